/**
 * A checkpoint folder: config.json and the weights behind one interface, sharded or not, read tensor by tensor.
 * Refuses a folder without weights and an index that names a missing file.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "./folder.ts";
import { type SafeDtype, SafetensorsFile } from "./safetensors.ts";

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

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** Opens `model.safetensors`, or the shards of `model.safetensors.index.json`. @throws InputError when there is neither */
export async function openWeights(folder: Folder): Promise<WeightSource> {
  if (await folder.exists("model.safetensors")) {
    return sourceOf([await SafetensorsFile.open(await folder.open("model.safetensors"))], folder.path);
  }
  const index = "model.safetensors.index.json";
  if (!await folder.exists(index)) {
    throw new InputError(`Cannot load "${folder.path}": it has no model.safetensors and no ${index}`);
  }
  const parsed = indexSchema.safeParse(await readJson(folder, index));
  if (!parsed.success) {
    throw new InputError(`Cannot read "${folder.path}/${index}": ${z.prettifyError(parsed.error)}`);
  }
  const shards = [...new Set(Object.values(parsed.data.weight_map))].sort();
  return sourceOf(
    await Promise.all(shards.map(async (shard) => SafetensorsFile.open(await folder.open(shard)))),
    folder.path,
  );
}

function sourceOf(files: SafetensorsFile[], name: string): WeightSource {
  const home = new Map<string, SafetensorsFile>();
  for (const file of files) {
    for (const tensor of file.entries.keys()) {
      if (home.has(tensor)) {
        throw new InputError(`Cannot load "${name}": tensor "${tensor}" is in two shards`);
      }
      home.set(tensor, file);
    }
  }
  const at = (tensor: string): SafetensorsFile => {
    const file = home.get(tensor);
    if (!file) throw new InputError(`Cannot load "${name}": it has no tensor "${tensor}"`);
    return file;
  };
  return {
    name,
    names: () => [...home.keys()],
    shape: (tensor) => at(tensor).entry(tensor).shape,
    dtype: (tensor) => at(tensor).entry(tensor).dtype,
    f32: async (tensor) => await at(tensor).f32(tensor),
    f32Range: async (tensor, from, to) => await at(tensor).f32Range(tensor, from, to),
    bytes: async (tensor) => await at(tensor).bytes(tensor),
    close: () => files.forEach((file) => file.source.close()),
  };
}
