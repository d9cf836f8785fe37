/**
 * A checkpoint folder: config.json and the weights behind one interface, sharded or not, read tensor by tensor.
 * Refuses a folder without weights, an index that leads out of it, and a tensor that lies in two shards.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { checkName, type Folder, readJson } from "./folder.ts";
import { openPytorch } from "./pytorch.ts";
import { openSafetensors, type SafeDtype } from "./safetensors.ts";

/** Named tensors, wherever they lie; nothing is in memory until it is asked for. */
export interface WeightSource {
  readonly name: string;
  names(): string[];
  shape(name: string): number[];
  dtype(name: string): SafeDtype;
  f32(name: string): Promise<Float32Array<ArrayBuffer>>;
  /** Elements `from` to `to` of the flattened tensor, so that a large one never lies in memory whole. */
  f32Range(name: string, from: number, to: number): Promise<Float32Array<ArrayBuffer>>;
  /** The bytes as stored. */
  bytes(name: string): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}

/** A folder whose weights do not lie in it under Hugging Face's file names: it brings them itself. */
export interface WeightFolder extends Folder {
  openWeights(): Promise<WeightSource>;
  /** Names, for `open`, of the files that hold them. */
  weightFiles(): Promise<string[]>;
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** Hugging Face's file names, the preferred first. */
const WHOLE = ["model.safetensors", "pytorch_model.bin"];

/** The files that hold a folder's weights; empty when there are none. @throws InputError for a wrong index */
export async function weightFiles(folder: Folder | WeightFolder): Promise<string[]> {
  if ("weightFiles" in folder) return await folder.weightFiles();
  for (const whole of WHOLE) {
    if (await folder.exists(whole)) return [whole];
    const index = `${whole}.index.json`;
    if (await folder.exists(index)) return await shardsOf(folder, index);
  }
  return [];
}

/** The shards that an index names, sorted. @throws InputError for another kind of JSON and for names that climb out */
export async function shardsOf(folder: Folder, index: string): Promise<string[]> {
  const parsed = indexSchema.safeParse(await readJson(folder, index));
  if (!parsed.success) {
    throw new InputError(`Cannot read "${folder.path}/${index}": ${issueOf(parsed.error)}`);
  }
  return [...new Set(Object.values(parsed.data.weight_map))].map(checkName).sort();
}

/** Opens what `weightFiles` finds. @throws InputError when there is nothing or a file is damaged */
export async function openWeights(folder: Folder | WeightFolder): Promise<WeightSource> {
  if ("openWeights" in folder) return await folder.openWeights();
  const files = await weightFiles(folder), opened: WeightSource[] = [];
  if (files.length === 0) {
    const names = WHOLE.flatMap((whole) => [whole, `${whole}.index.json`]);
    throw new InputError(`Cannot load "${folder.path}": it has no ${names.join(" and no ")}`);
  }
  try {
    for (const file of files) opened.push(await openWeightFile(folder, file));
    return joinSources(opened, folder.path);
  } catch (error) {
    opened.forEach((source) => source.close());
    throw error;
  }
}

/** One file of weights by its name's ending: safetensors, or what torch.save writes. */
export async function openWeightFile(folder: Folder, name: string): Promise<WeightSource> {
  const bytes = await folder.open(name);
  try {
    return name.endsWith(".safetensors") ? await openSafetensors(bytes) : await openPytorch(bytes);
  } catch (error) {
    bytes.close();
    throw error;
  }
}

/** Several sources as one. @throws InputError for a tensor that two of them have */
export function joinSources(sources: readonly WeightSource[], name: string): WeightSource {
  const home = new Map<string, WeightSource>();
  for (const source of sources) {
    for (const tensor of source.names()) {
      if (home.has(tensor)) {
        throw new InputError(`Cannot load "${name}": tensor "${tensor}" is in two shards`);
      }
      home.set(tensor, source);
    }
  }
  const at = (tensor: string): WeightSource => {
    const source = home.get(tensor);
    if (!source) throw new InputError(`Cannot load "${name}": it has no tensor "${tensor}"`);
    return source;
  };
  return {
    name,
    names: () => [...home.keys()],
    shape: (tensor) => at(tensor).shape(tensor),
    dtype: (tensor) => at(tensor).dtype(tensor),
    f32: async (tensor) => await at(tensor).f32(tensor),
    f32Range: async (tensor, from, to) => await at(tensor).f32Range(tensor, from, to),
    bytes: async (tensor) => await at(tensor).bytes(tensor),
    close: () => sources.forEach((source) => source.close()),
  };
}
