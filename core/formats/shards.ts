/**
 * Tensors as a sharded safetensors checkpoint, each shard a stream of bytes: nothing is in memory whole.
 * Refuses values that the chosen type cannot hold.
 */
import { InputError } from "../errors.ts";
import { encodeHeader, type SafeDtype, toBf16, WIDTH } from "./safetensors.ts";

export type FloatDtype = "F32" | "BF16" | "F16";

/** A tensor that is made while it is written. */
export interface StreamedTensor {
  name: string;
  dtype: SafeDtype;
  shape: number[];
  /** Its little-endian bytes, in order. */
  chunks(): AsyncIterable<Uint8Array<ArrayBuffer>>;
}

export interface Shard {
  file: string;
  tensors: StreamedTensor[];
  bytes: number;
}

export const bytesOf = ({ shape, dtype }: Pick<StreamedTensor, "shape" | "dtype">): number =>
  shape.reduce((a, b) => a * b, WIDTH[dtype]);

/** Puts tensors into shards of at most `limit` bytes, in order; a larger one has a shard of its own. */
export function planShards(tensors: readonly StreamedTensor[], limit: number): Shard[] {
  const groups: StreamedTensor[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor);
    if (size > 0 && size + bytes > limit) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1)!.push(tensor);
    size += bytes;
  }
  const number = (i: number) => String(i).padStart(5, "0");
  return groups.map((group, i) => ({
    file: groups.length === 1
      ? "model.safetensors"
      : `model-${number(i + 1)}-of-${number(groups.length)}.safetensors`,
    tensors: group,
    bytes: group.reduce((sum, tensor) => sum + bytesOf(tensor), 0),
  }));
}

/** A shard's file, piece by piece. */
export async function* shardChunks({ tensors }: Shard): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  yield encodeHeader(tensors, { format: "pt" });
  for (const tensor of tensors) yield* tensor.chunks();
}

/** The index that names every tensor's shard; undefined where there is one file only. */
export function shardIndex(shards: readonly Shard[]): string | undefined {
  if (shards.length === 1) return undefined;
  const entries = shards.flatMap(({ file, tensors }) => tensors.map(({ name }) => [name, file]));
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(entries.sort()) };
  return JSON.stringify(index, null, 2) + "\n";
}

/** Values rounded once to a type, as bytes. @throws InputError naming a value that f16 cannot hold */
export function encodeFloats(
  values: Float32Array<ArrayBuffer>,
  dtype: FloatDtype,
  what: string,
): Uint8Array<ArrayBuffer> {
  if (dtype === "F32") return bytesIn(values);
  if (dtype === "BF16") return bytesIn(toBf16(values));
  const halves = Float16Array.from(values);
  const beyond = halves.findIndex((half, i) => !Number.isFinite(half) && Number.isFinite(values[i]));
  if (beyond >= 0) throw new InputError(`Cannot write "${what}" as f16: it holds ${values[beyond]}`);
  return bytesIn(halves);
}

const bytesIn = ({ buffer, byteOffset, byteLength }: ArrayBufferView<ArrayBuffer>) =>
  new Uint8Array(buffer, byteOffset, byteLength);
