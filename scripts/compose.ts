/**
 * `deno task compose`: a text-only llama behind a small vision tower, as a checkpoint folder that others can train.
 * Refuses a folder that holds something, and parts that do not fit together.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { openWeights, type WeightSource } from "../core/formats/checkpoint.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { planShards, shardChunks } from "../core/formats/shards.ts";
import { withImageToken } from "../core/text/image_token.ts";
import { composedTensors, compositionOf } from "../gpu/compose.ts";
import { modelHash } from "../gpu/session.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder, writeStream } from "./folder.ts";
import { modelFolder } from "./model.ts";
import { byteProgress } from "./progress.ts";

const schema = z.object({
  decoder: z.string().describe("a llama: checkpoint folder, .gguf file, or org/name[@revision] of the hub"),
  vision: z.string().default("builtin:tiny").describe("a CLIP, or a llava whose tower is taken, likewise"),
  freshTower: z.boolean().default(false).describe(
    "draw the tower's weights from the seed; its config is kept",
  ),
  merge: z.number().int().positive().optional().describe(
    "patches along either side that become one image token (default: as in the tower's llava, else 1)",
  ),
  decoderLayers: z.number().int().positive().optional().describe(
    "how many of the decoder's layers to take, from the first: a projector is trained sooner behind few (default: all)",
  ),
  projector: z.string().optional().describe(
    "a llava whose projector is taken (default: drawn from the seed)",
  ),
  out: z.string().describe("folder of the new checkpoint"),
  seed: z.number().int().min(0).default(0).describe("seed of the projector, and of a fresh tower"),
});

/**
 * Writes the folder, whole or not at all: it is made beside its place. Returns the manifest's hash and facts.
 * @throws InputError for parts that do not fit, Interrupted
 */
export async function compose(settings: z.infer<typeof schema>, signal?: AbortSignal) {
  const { freshTower, merge, decoderLayers: layers, seed } = settings, place = new DiskFolder(settings.out);
  if ((await place.list()).length) {
    throw new InputError(`Cannot compose into "${place.path}": it is not empty`);
  }
  const out = new DiskFolder(`${place.path}.partial`);
  await removeFolder(out.path); // what a killed process left
  const decoder = await modelFolder(settings.decoder), tower = await modelFolder(settings.vision);
  const projector = settings.projector === undefined ? undefined : await modelFolder(settings.projector);
  const part = async (folder: Folder) => ({
    json: await readJson(folder, "config.json"),
    name: `${folder.path}/config.json`,
  });
  const tokens = await withImageToken(decoder);
  const composition = compositionOf(await part(decoder), await part(tower), tokens.id, { merge, layers });
  const { config } = composition, opened: WeightSource[] = [];
  const weightsOf = async (folder: Folder) => {
    const source = await openWeights(folder);
    opened.push(source);
    return source;
  };
  try {
    const tensors = await composedTensors(composition, {
      decoder: await weightsOf(decoder),
      ...(!freshTower && { tower: await weightsOf(tower) }),
      ...(projector && { projector: await weightsOf(projector) }),
    }, seed);
    const files = { ...tokens.files, ...await pictureFiles(tower, config), "config.json": text(config) };
    for (const [name, content] of Object.entries(files)) await out.write(name, content);
    const [shard] = planShards(tensors, Infinity);
    const stopped = "Stopped; nothing was written, the same command begins anew";
    const bar = byteProgress("writing", shard.bytes, { signal, stopped });
    const chunks = bar.through(shardChunks(shard));
    const known = { [shard.file]: await writeStream(`${out.path}/${shard.file}`, chunks) };
    bar.stop();
    const parents = {
      decoder: await modelHash(decoder),
      tower: await modelHash(tower),
      ...(projector && { projector: await modelHash(projector) }),
    };
    const facts = {
      parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
      image_token: tokens.id,
      new_rows: composition.vocabulary - composition.rows,
    };
    const { hash } = await writeManifest(out, {
      ...{ kind: "model", parents, seed, config: { ...settings }, facts, known },
    });
    await Deno.rename(out.path, place.path);
    return { hash, ...facts };
  } catch (error) {
    await removeFolder(out.path);
    throw error;
  } finally {
    opened.forEach((source) => source.close());
  }
}

async function removeFolder(path: string): Promise<void> {
  await Deno.remove(path, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

const text = (json: unknown) => JSON.stringify(json, null, 2) + "\n";

/** How pictures are prepared, as the tower wants them; transformers' processor has no setting for merged patches. */
async function pictureFiles(
  tower: Folder,
  config: Record<string, unknown>,
) {
  const pictures = text(await readJson(tower, "preprocessor_config.json"));
  if (config.vision_feature_merge !== undefined) return { "preprocessor_config.json": pictures };
  const { patch_size } = config.vision_config as { patch_size: number };
  return {
    "preprocessor_config.json": pictures,
    "processor_config.json": text({
      processor_class: "LlavaProcessor",
      image_token: "<image>",
      patch_size,
      vision_feature_select_strategy: config.vision_feature_select_strategy,
      num_additional_image_tokens: 1,
    }),
  };
}

if (import.meta.main) {
  await runTask({
    name: "compose",
    summary:
      "Put a text-only llama behind a vision tower; the projector between them is drawn from a seed, or taken",
    schema,
    examples: [
      "deno task compose --decoder SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2-vision",
      "deno task compose --decoder path/to/llama --vision openai/clip-vit-base-patch32 --out models/mine --seed 1",
    ],
    async run(settings) {
      console.log(JSON.stringify(await compose(settings, interruptSignal())));
    },
  });
}
