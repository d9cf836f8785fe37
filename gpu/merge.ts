/**
 * A checkpoint with what training changed written into it: W + scaling B A beside adapters, whole modules replaced. Names
 * are those of the source, values come slice by slice. Refuses tensors that the model does not know.
 */
import { InputError } from "../core/errors.ts";
import { joinSources, type WeightSource } from "../core/formats/checkpoint.ts";
import type { Folder } from "../core/formats/folder.ts";
import { readManifest } from "../core/formats/manifest.ts";
import {
  adapterKey,
  type LoraConfig,
  loraSchema,
  openAdapter,
  readAdapterConfig,
  savedKey,
} from "../core/formats/peft.ts";
import { rankOf } from "../core/formats/peft_rules.ts";
import { openSafetensors, type SafeDtype } from "../core/formats/safetensors.ts";
import { encodeFloats, type FloatDtype, type StreamedTensor } from "../core/formats/shards.ts";
import { sizeOf } from "../core/shape.ts";
import { createModel } from "./models/create.ts";
import type { Model } from "./models/model.ts";
import { attachSaved, targetsOf } from "./nn/lora.ts";
import { translateConfig, translateKeys } from "./peft.ts";

/** Elements that are read, changed and written at a time. */
const SLICE = 2 ** 22;

/** What training changed of a model. */
export interface Change {
  /** The model's tree; a head that was tied and is no more has a parameter of its own. */
  model: Model;
  /** Keys of A and B beside a weight, by the parameter's name. */
  adapters: Map<string, { a: string; b: string; scaling: number }>;
  /** Keys of replaced parameters, by their names. */
  whole: Map<string, string>;
  source: WeightSource;
}

/** What a finished run changed. @throws InputError for a folder that is none */
export async function changeOfRun(json: unknown, run: Folder): Promise<Change> {
  const { manifest: { config } } = await readManifest(run, "run");
  const lora = config.lora ? loraSchema.parse(config.lora) : null, opened: WeightSource[] = [];
  try {
    if (lora) opened.push(await openAdapter(run.folder("adapter")));
    const trained = "trained.safetensors";
    if (await run.exists(trained)) opened.push(await openSafetensors(await run.open(trained)));
    return describe(createModel(json), lora, joinSources(opened, run.path));
  } catch (error) {
    opened.forEach((source) => source.close());
    throw error;
  }
}

/** What an adapter of peft changes. @throws InputError when it does not fit the model */
export async function changeOfPeft(json: unknown, folder: Folder): Promise<Change> {
  const config = await readAdapterConfig(folder), model = createModel(json);
  const source = await openAdapter(folder);
  try {
    const names = translateKeys(model, source.names());
    return describe(model, translateConfig(model, config, names), renamed(source, names));
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The same tensors under other names. */
function renamed(source: WeightSource, names: ReadonlyMap<string, string>): WeightSource {
  const old = new Map([...names].map(([from, to]) => [to, from]));
  const at = (name: string) => old.get(name) ?? name;
  return {
    ...source,
    names: () => [...old.keys()],
    shape: (name) => source.shape(at(name)),
    dtype: (name) => source.dtype(at(name)),
    f32: (name) => source.f32(at(name)),
    f32Range: (name, from, to) => source.f32Range(at(name), from, to),
    bytes: (name) => source.bytes(at(name)),
  };
}

function describe(model: Model, lora: LoraConfig | null, source: WeightSource): Change {
  const { registry } = model, adapters: Change["adapters"] = new Map(), whole: Change["whole"] = new Map();
  const left = new Set(source.names());
  const take = (key: string, shape: readonly number[]) => {
    if (!left.delete(key)) throw new InputError(`Cannot merge "${source.name}": missing "${key}"`);
    const found = source.shape(key);
    if (found.join() !== shape.join()) {
      throw new InputError(
        `Cannot merge "${source.name}": "${key}" is (${found.join(", ")}), expected (${shape.join(", ")})`,
      );
    }
    return key;
  };
  if (lora) {
    for (const { name, shape } of attachSaved(model, lora)) whole.set(name, take(savedKey(name), shape));
    for (const { name, weight, bypassed } of targetsOf(registry, lora)) {
      const a = adapterKey(name, "A"), b = adapterKey(name, "B"), { r, scaling } = rankOf(name, lora);
      // Beside layers that never compute they may be missing; past a bypassed one they have no effect.
      if ((!weight.used || bypassed) && !left.has(a)) continue;
      take(a, [r, weight.shape[1]]);
      take(b, [weight.shape[0], r]);
      if (!bypassed) adapters.set(weight.name, { a, b, scaling });
    }
  }
  for (const key of [...left]) {
    const param = registry.params.get(key);
    if (!param) throw new InputError(`Cannot merge "${source.name}": unexpected "${key}"`);
    whole.set(key, take(key, param.shape));
  }
  return { model, adapters, whole, source };
}

/** Whether the head has values of its own that the base's embeddings do not. */
export const isUntied = ({ model }: Pick<Change, "model">): boolean => model.registry.copies.size > 0;

/**
 * Every tensor of the merged checkpoint, in the source's order, made when its chunks are asked for.
 * @param dtype of all floats, or "keep" for each tensor's own. @param slice elements at a time. @throws InputError for tensors the model does not know
 */
export function mergeTensors(
  base: WeightSource,
  change: Change,
  dtype: FloatDtype | "keep",
  slice = SLICE,
): StreamedTensor[] {
  const { model: { registry, rename } } = change, tensors: StreamedTensor[] = [], written = new Set<string>();
  const add = (name: string, from: string, param: string | undefined) => {
    const stored = base.dtype(from), shape = base.shape(from);
    const wanted = isFloat(stored) && dtype !== "keep" ? dtype : stored;
    tensors.push({
      name,
      dtype: wanted,
      shape,
      chunks: () => chunksOf(base, change, { name, from, param, wanted, slice }),
    });
  };
  const names = base.names(), at = new Map<string, string>();
  for (const name of names) {
    const target = rename(name),
      param = target && (registry.params.has(target) ? target : registry.ties.get(target));
    if (target !== undefined && !param) {
      throw new InputError(`Cannot merge into "${base.name}": unexpected "${name}"`);
    }
    add(name, name, param);
    if (param) at.set(param, name);
    if (param) written.add(param);
  }
  for (const [copy, source] of registry.copies) {
    if (written.has(copy)) continue;
    const older = names.some((name) => name.startsWith("language_model.model."));
    add(older ? `language_model.${copy}` : copy, at.get(source)!, copy);
  }
  const lost = [...change.adapters.keys(), ...change.whole.keys()].find((param) =>
    !written.has(param) && !registry.copies.has(param)
  );
  if (lost) throw new InputError(`Cannot merge into "${base.name}": it has no tensor for "${lost}"`);
  return tensors;
}

const isFloat = (dtype: SafeDtype): boolean => ["F64", "F32", "F16", "BF16"].includes(dtype);

async function* chunksOf(
  base: WeightSource,
  { adapters, whole, source }: Change,
  { name, from, param, wanted, slice }: {
    name: string;
    from: string;
    param?: string;
    wanted: SafeDtype;
    slice: number;
  },
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const replaced = param === undefined ? undefined : whole.get(param);
  const adapter = param === undefined ? undefined : adapters.get(param);
  if (!replaced && !adapter && (!isFloat(wanted) || wanted === "F64")) return yield await base.bytes(from);
  const shape = base.shape(from), size = sizeOf(shape), dtype = floatOf(wanted, name);
  const row = size / (shape[0] ?? 1), step = Math.max(1, Math.floor(slice / row)) * row;
  const a = adapter && await source.f32(adapter.a);
  for (let start = 0; start < size; start += step) {
    const end = Math.min(size, start + step);
    const values = replaced
      ? await source.f32Range(replaced, start, end)
      : await base.f32Range(from, start, end);
    if (adapter) {
      const r = a!.length / row, b = await source.f32Range(adapter.b, start / row * r, end / row * r);
      addProduct(values, b, a!, { K: row, scaling: adapter.scaling });
    }
    yield encodeFloats(values, dtype, name);
  }
}

function floatOf(dtype: SafeDtype, name: string): FloatDtype {
  if (dtype === "F32" || dtype === "BF16" || dtype === "F16") return dtype;
  throw new InputError(`Cannot merge into "${name}": it is ${dtype}; choose a float type with --dtype`);
}

/** values (n, K) += scaling b (n, R) a (R, K), summed in f64 and rounded once. */
export function addProduct(
  values: Float32Array,
  b: Float32Array,
  a: Float32Array,
  { K, scaling }: { K: number; scaling: number },
): void {
  const n = values.length / K, R = a.length / K, sum = new Float64Array(K);
  for (let i = 0; i < n; i++) {
    sum.fill(0);
    for (let r = 0; r < R; r++) {
      const factor = b[i * R + r], offset = r * K;
      if (factor !== 0) { for (let k = 0; k < K; k++) sum[k] += factor * a[offset + k]; }
    }
    for (let k = 0, at = i * K; k < K; k++, at++) values[at] += scaling * sum[k];
  }
}

/** JSON whose numbers are written again as they stood: transformers tells 1.0 from 1. */
function parseKeepingNumbers(text: string): Record<string, unknown> {
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  const keep = (_: string, value: unknown, context?: { source: string }) =>
    typeof value === "number" ? rawJSON(context!.source) : value;
  return JSON.parse(text, keep as (key: string, value: unknown) => unknown);
}

/** The source's config.json for the merged checkpoint: its type, and a head that is tied no more. */
export async function mergedConfig(
  base: Folder,
  change: Pick<Change, "model">,
  dtype: FloatDtype | "keep",
): Promise<string> {
  const json = parseKeepingNumbers(new TextDecoder().decode(await base.read("config.json")));
  const names = { F32: "float32", BF16: "bfloat16", F16: "float16" };
  const parts = [json, json.text_config, json.vision_config].filter((part) =>
    typeof part === "object" && part !== null
  ) as Record<string, unknown>[];
  for (const part of parts) {
    if (dtype !== "keep") {
      for (const key of ["dtype", "torch_dtype"]) if (key in part) part[key] = names[dtype];
    }
    if (isUntied(change) && (part === json || part === json.text_config)) part.tie_word_embeddings = false;
  }
  if (dtype !== "keep" && !("dtype" in json) && !("torch_dtype" in json)) json.dtype = names[dtype];
  return JSON.stringify(json, null, 2) + "\n";
}
