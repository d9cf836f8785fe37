/**
 * LLaVA as its authors publish it, seen as one checkpoint folder: a llama, an mm_projector.bin and a CLIP tower under
 * Hugging Face's names. Tensors stay where they lie; a part that does not fit is refused by the strict loader.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { joinSources, openWeights, weightFiles, type WeightFolder, type WeightSource } from "./checkpoint.ts";
import { type ByteSource, type Folder, MemoryFolder, readJson } from "./folder.ts";
import { composeConfig, freeToken } from "./llava_config.ts";
import { openPytorch } from "./pytorch.ts";
import { openSafetensors } from "./safetensors.ts";

export interface LlavaParts {
  /** Vicuna, or a LLaVA of the authors' own layout; its tokenizer is the model's. */
  language: Folder;
  /** A CLIP with its preprocessor_config.json. */
  tower: Folder;
  /** The file of the projector; not needed where the language folder holds one. */
  projector?: { path: string; open(): Promise<ByteSource> };
}

const TOWER = /^(?:model\.vision_tower\.(?:vision_tower\.)?)?(?:vision_model\.)?/;
/** What a CLIP has beside the tower that looks. */
const OTHER_HALF = /^(text_model\.|text_projection\.|visual_projection\.|logit_scale$)/;
const PROJECTOR = /^(?:.*\.)?mm_projector\.(0|2)\.(weight|bias)$/;

/** @throws InputError naming the part that is missing or of another kind */
export async function composeLlava(parts: LlavaParts): Promise<WeightFolder> {
  const { language, tower, projector } = parts;
  const path = [language.path, projector?.path, tower.path].filter(Boolean).join(" + ");
  const made = new MemoryFolder(path);
  const json = await readJson(language, "config.json"), name = `${language.path}/config.json`;
  const tokens = await tokenFiles(language, (added) => freeToken(json, name, added));
  const { config, pad } = composeConfig(
    json,
    name,
    await readJson(tower, "config.json"),
    `${tower.path}/config.json`,
    tokens.imageToken,
  );
  const pictures = await readJson(tower, "preprocessor_config.json") as Record<string, unknown>;
  await made.write("config.json", JSON.stringify(config, null, 2) + "\n");
  await made.write(
    "preprocessor_config.json",
    JSON.stringify({ ...pictures, image_processor_type: "LlavaImageProcessor", do_pad: pad }, null, 2) + "\n",
  );
  await made.write("tokenizer_config.json", tokens.config);

  const weights = {
    ...await filesOf(language, "language"),
    ...(projector && { [`projector/${projector.path.split("/").at(-1)}`]: () => projector.open() }),
    ...await filesOf(tower, "tower"),
  };
  const find = async (name: string): Promise<Folder> => await made.exists(name) ? made : language;
  const readOnly = (name: string) =>
    Promise.reject(new InputError(`Cannot change "${name}" in "${path}": a model of parts is only read`));
  return {
    path,
    open: async (name) => weights[name] ? await weights[name]() : await (await find(name)).open(name),
    read: async (name) => await (await find(name)).read(name),
    // A manifest beside the language model tells of that part alone.
    exists: async (name) =>
      name !== "manifest.json" && (name in weights || await (await find(name)).exists(name)),
    list: async () => [...new Set([...await made.list(), ...await language.list()])].sort(),
    folder: (name) => language.folder(name),
    write: readOnly,
    remove: readOnly,
    weightFiles: () => Promise.resolve(Object.keys(weights)),
    openWeights: () => openParts(parts, path),
  };
}

async function filesOf(folder: Folder, part: string): Promise<Record<string, () => Promise<ByteSource>>> {
  const names = await weightFiles(folder);
  return Object.fromEntries(names.map((name) => [`${part}/${name}`, () => folder.open(name)]));
}

const idsSchema = z.record(z.string(), z.int());
const tokensSchema = z.looseObject({ added_tokens_decoder: z.record(z.string(), z.unknown()).nullish() });

/** tokenizer_config.json with `<image>` added, under the id that `free` gives for those that are taken. */
async function tokenFiles(folder: Folder, free: (added: number[]) => number) {
  const read = async <T>(name: string, schema: z.ZodType<T>): Promise<T | undefined> => {
    if (!await folder.exists(name)) return undefined;
    const parsed = schema.safeParse(await readJson(folder, name));
    if (parsed.success) return parsed.data;
    throw new InputError(`Cannot read "${folder.path}/${name}": ${issueOf(parsed.error)}`);
  };
  const config = await read("tokenizer_config.json", tokensSchema);
  const decoder = config?.added_tokens_decoder ?? {};
  const added = await read("added_tokens.json", idsSchema) ?? {};
  const imageToken = free([...Object.values(added), ...Object.keys(decoder).map(Number)]);
  const image = { content: "<image>", special: true, lstrip: false, rstrip: false, normalized: false };
  const changed = { ...config, added_tokens_decoder: { ...decoder, [imageToken]: image } };
  return { imageToken, config: JSON.stringify(changed, null, 2) + "\n" };
}

async function openParts({ language, tower, projector }: LlavaParts, path: string): Promise<WeightSource> {
  const opened: WeightSource[] = [];
  const hold = (source: WeightSource) => {
    opened.push(source);
    return source;
  };
  try {
    const own = hold(await openWeights(language));
    const parts = [
      renamed(own, (name) => projector && PROJECTOR.test(name) ? undefined : languageName(name)),
    ];
    if (projector) parts.push(renamed(hold(await openProjector(projector)), languageName));
    // A tower that was tuned lies beside the language model; the one of CLIP's folder then gives its config alone.
    if (!parts[0].names().some((name) => name.startsWith("model.vision_tower."))) {
      parts.push(renamed(hold(await openWeights(tower)), towerName));
    }
    return joinSources(parts, path);
  } catch (error) {
    opened.forEach((source) => source.close());
    throw error;
  }
}

async function openProjector({ path, open }: NonNullable<LlavaParts["projector"]>): Promise<WeightSource> {
  const bytes = await open();
  try {
    return path.endsWith(".safetensors") ? await openSafetensors(bytes) : await openPytorch(bytes);
  } catch (error) {
    bytes.close();
    throw error;
  }
}

function languageName(name: string): string {
  const projector = PROJECTOR.exec(name);
  if (projector) {
    return `model.multi_modal_projector.linear_${projector[1] === "0" ? 1 : 2}.${projector[2]}`;
  }
  if (name.startsWith("model.vision_tower.")) return towerName(name)!;
  return name.replace(/^model\./, "model.language_model.");
}

const towerName = (name: string): string | undefined =>
  OTHER_HALF.test(name) ? undefined : name.replace(TOWER, "model.vision_tower.");

/** A source under other names; a tensor whose new name is undefined is left out. */
function renamed(source: WeightSource, rename: (name: string) => string | undefined): WeightSource {
  const old = new Map<string, string>();
  for (const name of source.names()) {
    const target = rename(name);
    if (target === undefined) continue;
    if (old.has(target)) {
      throw new InputError(
        `Cannot load "${source.name}": "${name}" and "${old.get(target)}" are the same tensor`,
      );
    }
    old.set(target, name);
  }
  const at = (name: string): string => {
    const own = old.get(name);
    if (own === undefined) throw new InputError(`Cannot load "${source.name}": it has no tensor "${name}"`);
    return own;
  };
  return {
    name: source.name,
    names: () => [...old.keys()],
    shape: (name) => source.shape(at(name)),
    dtype: (name) => source.dtype(at(name)),
    f32: async (name) => await source.f32(at(name)),
    f32Range: async (name, from, to) => await source.f32Range(at(name), from, to),
    bytes: async (name) => await source.bytes(at(name)),
    close: () => source.close(),
  };
}
