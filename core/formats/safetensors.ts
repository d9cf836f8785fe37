/**
 * safetensors files: read tensor by tensor from any byte source, written whole in a canonical order.
 * Refuses headers that are too long, overlap, leave holes or disagree with their shapes.
 */
import { InputError } from "../errors.ts";
import type { WeightSource } from "./checkpoint.ts";
import type { ByteSource } from "./folder.ts";

export type SafeDtype = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "U32" | "BOOL";
/** Bytes of one element. */
export const WIDTH: Record<SafeDtype, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  U32: 4,
  BOOL: 1, // deno-fmt-ignore
};

export interface TensorEntry {
  dtype: SafeDtype;
  shape: number[];
  /** Byte range inside the file, from its start. */
  start: number;
  end: number;
}

const HEADER_LIMIT = 100_000_000;

/** An opened file: its header in memory, its tensors still on disk. */
export class SafetensorsFile {
  private constructor(
    readonly source: ByteSource,
    readonly entries: Map<string, TensorEntry>,
    readonly metadata: Record<string, string>,
  ) {}

  /** @throws InputError naming the file and what is wrong with its header */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    const fail = (why: string): never => {
      throw new InputError(`Cannot read "${source.name}": ${why}`);
    };
    if (source.size < 8) fail(`${source.size} bytes are too few for a safetensors file`);
    const head = await source.readAt(0, 8);
    const length = Number(new DataView(head.buffer).getBigUint64(0, true));
    if (length > HEADER_LIMIT || length + 8 > source.size) {
      fail(`its header claims ${length} bytes, the file has ${source.size}`);
    }
    let header: Record<string, { dtype: SafeDtype; shape: number[]; data_offsets: [number, number] }>;
    try {
      header = JSON.parse(new TextDecoder().decode(await source.readAt(8, length)));
    } catch {
      return fail("its header is no JSON");
    }
    const { __metadata__, ...tensors } = header as typeof header & { __metadata__?: Record<string, string> };
    const entries = new Map<string, TensorEntry>();
    let position = 0;
    const byOffset = Object.entries(tensors).sort((a, b) => a[1].data_offsets[0] - b[1].data_offsets[0]);
    for (const [name, { dtype, shape, data_offsets: [start, end] }] of byOffset) {
      const width = WIDTH[dtype] ?? fail(`tensor "${name}" has the unknown type "${dtype}"`);
      const bytes = shape.reduce((a, b) => a * b, width);
      if (end - start !== bytes) {
        fail(`tensor "${name}" of shape (${shape}) needs ${bytes} bytes, has ${end - start}`);
      }
      if (start !== position) fail(`tensor "${name}" starts at byte ${start}, expected ${position}`);
      position = end;
      entries.set(name, { dtype, shape, start: start + 8 + length, end: end + 8 + length });
    }
    if (position + 8 + length !== source.size) {
      fail(`its tensors end at byte ${position + 8 + length}, the file has ${source.size}`);
    }
    return new SafetensorsFile(source, entries, __metadata__ ?? {});
  }

  /** @throws InputError when there is no such tensor */
  entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (!entry) throw new InputError(`Cannot read "${this.source.name}": it has no tensor "${name}"`);
    return entry;
  }

  /** The raw little-endian bytes of a tensor. */
  bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { start, end } = this.entry(name);
    return this.source.readAt(start, end - start);
  }

  /** A tensor as 32-bit floats; f16 and bf16 are widened, f64 is rounded. @throws InputError for an integer tensor */
  async f32(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { dtype } = this.entry(name);
    return toF32(await this.bytes(name), dtype, `tensor "${name}" of "${this.source.name}"`);
  }

  /** Elements `from` to `to` of the flattened tensor, widened as by `f32`. @throws RangeError outside the tensor */
  async f32Range(name: string, from: number, to: number): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, start, end } = this.entry(name), width = WIDTH[dtype];
    if (from < 0 || to < from || start + to * width > end) {
      throw new RangeError(
        `Cannot read elements ${from} to ${to} of "${name}": it has ${(end - start) / width}`,
      );
    }
    const bytes = await this.source.readAt(start + from * width, (to - from) * width);
    return toF32(bytes, dtype, `tensor "${name}" of "${this.source.name}"`);
  }

  /** A tensor as doubles, for the references. */
  async f64(name: string): Promise<Float64Array<ArrayBuffer>> {
    if (this.entry(name).dtype === "F64") return new Float64Array((await this.bytes(name)).buffer);
    return Float64Array.from(await this.f32(name));
  }

  /** An integer tensor as plain numbers. @throws InputError for a float tensor or a value beyond 2^53 */
  async ints(name: string): Promise<number[]> {
    const { dtype } = this.entry(name);
    const { buffer } = await this.bytes(name);
    switch (dtype) {
      case "I64":
        return Array.from(new BigInt64Array(buffer), Number);
      case "I32":
        return Array.from(new Int32Array(buffer));
      case "U32":
        return Array.from(new Uint32Array(buffer));
      case "I16":
        return Array.from(new Int16Array(buffer));
      case "I8":
        return Array.from(new Int8Array(buffer));
      case "U8":
      case "BOOL":
        return Array.from(new Uint8Array(buffer));
    }
    throw new InputError(`Cannot read tensor "${name}" of "${this.source.name}" as integers: it is ${dtype}`);
  }
}

/** A safetensors file as a source of weights. @throws InputError when its header is damaged */
export async function openSafetensors(bytes: ByteSource): Promise<WeightSource> {
  const file = await SafetensorsFile.open(bytes);
  return {
    name: bytes.name,
    names: () => [...file.entries.keys()],
    shape: (tensor) => file.entry(tensor).shape,
    dtype: (tensor) => file.entry(tensor).dtype,
    f32: (tensor) => file.f32(tensor),
    f32Range: (tensor, from, to) => file.f32Range(tensor, from, to),
    bytes: (tensor) => file.bytes(tensor),
    close: () => bytes.close(),
  };
}

/** Widens raw tensor bytes to 32-bit floats. @throws InputError for integer types */
export function toF32(
  bytes: Uint8Array<ArrayBuffer>,
  dtype: SafeDtype,
  what = "the tensor",
): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  if (dtype === "F64") {
    return Float32Array.from(new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8));
  }
  if (dtype !== "BF16" && dtype !== "F16") {
    throw new InputError(`Cannot read ${what} as floats: it is ${dtype}`);
  }
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  if (dtype === "F16") {
    return Float32Array.from(new Float16Array(words.buffer, words.byteOffset, words.length));
  }
  const out = new Uint32Array(words.length);
  for (let i = 0; i < words.length; i++) out[i] = words[i] << 16;
  return new Float32Array(out.buffer);
}

/** Rounds to bfloat16, nearest even, two to a 32-bit word (the low half first). */
export function toBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i];
    const isNan = (word & 0x7fffffff) > 0x7f800000;
    out[i] = isNan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return out;
}

type TypedArray =
  | Float64Array
  | Float32Array
  | Float16Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint16Array
  | Uint32Array; // deno-fmt-ignore

export interface TensorData {
  shape: number[];
  data: TypedArray;
  /** Needed for bf16 (a Uint16Array) and bool (a Uint8Array); otherwise told by the array. */
  dtype?: SafeDtype;
}

/** Encodes tensors as one safetensors file, names sorted, so that equal content gives equal bytes. */
export function encodeSafetensors(
  tensors: Record<string, TensorData>,
  metadata?: Record<string, string>,
): Uint8Array<ArrayBuffer> {
  const names = Object.keys(tensors).sort();
  const head = encodeHeader(
    names.map((name) => {
      const { shape, data } = tensors[name], dtype = tensors[name].dtype ?? dtypeOf(data);
      if (shape.reduce((a, b) => a * b, 1) !== data.length) {
        throw new RangeError(
          `Cannot write tensor "${name}": shape (${shape}) does not hold ${data.length} values`,
        );
      }
      return { name, dtype, shape };
    }),
    metadata,
  );
  const total = names.reduce((sum, name) => sum + tensors[name].data.byteLength, 0);
  const out = new Uint8Array(head.length + total);
  out.set(head);
  let position = head.length;
  for (const name of names) {
    const { data } = tensors[name];
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), position);
    position += data.byteLength;
  }
  return out;
}

/** What a file starts with, for tensors that follow in this order without gaps. */
export function encodeHeader(
  tensors: readonly { name: string; dtype: SafeDtype; shape: readonly number[] }[],
  metadata?: Record<string, string>,
): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let position = 0;
  for (const { name, dtype, shape } of tensors) {
    const bytes = shape.reduce((a, b) => a * b, WIDTH[dtype]);
    header[name] = { dtype, shape, data_offsets: [position, position += bytes] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8, out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(text, 8);
  return out;
}

function dtypeOf(data: TypedArray): SafeDtype {
  if (data instanceof Float32Array) return "F32";
  if (data instanceof Float64Array) return "F64";
  if (data instanceof Float16Array) return "F16";
  if (data instanceof BigInt64Array) return "I64";
  if (data instanceof Int32Array) return "I32";
  if (data instanceof Int16Array) return "I16";
  if (data instanceof Int8Array) return "I8";
  if (data instanceof Uint32Array) return "U32";
  if (data instanceof Uint16Array) return "BF16";
  return "U8";
}
