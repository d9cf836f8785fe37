/**
 * GGUF files, versions 2 and 3: the metadata and the list of tensors, read from the front of any byte source.
 * Refuses big-endian files, tensor types it cannot dequantise and tensors that overlap or leave the file.
 */
import { InputError } from "../errors.ts";
import type { ByteSource } from "./folder.ts";
import { BLOCKS, type BlockType, TYPE_NAMES } from "./gguf_blocks.ts";

export type GgufValue = number | boolean | string | number[] | boolean[] | string[];

export interface GgufTensor {
  name: string;
  type: BlockType;
  /** Outermost first, as Hugging Face writes it; the file has it the other way round. */
  shape: number[];
  /** Byte range inside the file. */
  start: number;
  end: number;
}

export interface GgufHeader {
  version: number;
  metadata: Map<string, GgufValue>;
  tensors: Map<string, GgufTensor>;
}

const FIRST_READ = 4 * 2 ** 20, HEADER_LIMIT = 512 * 2 ** 20;
const MAGIC = 0x46554747, STRING = 8, ARRAY = 9;

/** The source ended before the header did: read more of it. */
class TooShort extends Error {}

/**
 * Reads the header, which holds the vocabulary and is a few MB long. Layout: docs/gguf.md of ggml.
 * @throws InputError naming the file and what is wrong with it
 */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  for (let length = FIRST_READ;; length *= 4) {
    const bytes = await source.readAt(0, Math.min(length, source.size));
    try {
      return parseHeader(bytes, source);
    } catch (error) {
      if (!(error instanceof TooShort)) throw error;
      if (bytes.length === source.size || length > HEADER_LIMIT) {
        throw new InputError(
          `Cannot read "${source.name}": its header does not end in ${bytes.length} bytes`,
        );
      }
    }
  }
}

function parseHeader(bytes: Uint8Array<ArrayBuffer>, source: ByteSource): GgufHeader {
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${source.name}": ${why}`);
  };
  const next = cursor(bytes, fail);
  if (next.u32() !== MAGIC) fail("it does not start with GGUF");
  const version = next.u32();
  if (version === 0x02000000 || version === 0x03000000) fail("it is big-endian, expected little-endian");
  if (version !== 2 && version !== 3) fail(`its version is ${version}, expected 2 or 3`);
  const tensorCount = next.u64(), pairs = next.u64();
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < pairs; i++) {
    const key = next.string();
    if (metadata.has(key)) fail(`"${key}" is there twice`);
    metadata.set(key, next.value(next.u32(), key));
  }
  const listed: { name: string; shape: number[]; type: number; offset: number }[] = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = next.string(), rank = next.u32();
    if (rank > 4) fail(`tensor "${name}" has ${rank} dimensions, expected at most 4`);
    const shape = Array.from({ length: rank }, () => next.u64()).reverse();
    listed.push({ name, shape, type: next.u32(), offset: next.u64() });
  }
  const unknown = listed.filter(({ type }) => !BLOCKS[TYPE_NAMES[type] as BlockType]);
  if (unknown.length) {
    const shown = unknown.slice(0, 8).map(({ name, type }) => `"${name}" is ${TYPE_NAMES[type] ?? type}`);
    const more = unknown.length > 8 ? `, and ${unknown.length - 8} more` : "";
    fail(`supported are ${Object.keys(BLOCKS).join(", ")}, but ${shown.join(", ")}${more}`);
  }
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 8 || alignment % 8 !== 0) {
    return fail(`general.alignment is ${alignment}, expected a multiple of 8`);
  }
  const data = Math.ceil(next.position() / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  let position = data;
  for (const { name, shape, type, offset } of listed.sort((a, b) => a.offset - b.offset)) {
    const block = BLOCKS[TYPE_NAMES[type] as BlockType], row = shape.at(-1) ?? 1;
    if (row % block.size !== 0) {
      fail(`rows of tensor "${name}" have ${row} values, expected a multiple of ${block.size}`);
    }
    const start = data + offset, end = start + shape.reduce((a, b) => a * b, 1) / block.size * block.bytes;
    if (offset % alignment !== 0) fail(`tensor "${name}" starts at ${offset}, no multiple of ${alignment}`);
    if (start < position) {
      fail(`tensor "${name}" starts at byte ${start}, the one before ends at ${position}`);
    }
    if (end > source.size) fail(`tensor "${name}" ends at byte ${end}, the file has ${source.size}`);
    if (tensors.has(name)) fail(`tensor "${name}" is there twice`);
    tensors.set(name, { name, type: TYPE_NAMES[type] as BlockType, shape, start, end });
    position = end;
  }
  return { version, metadata, tensors };
}

/** Reads one value after the other. */
function cursor(bytes: Uint8Array<ArrayBuffer>, fail: (why: string) => never) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), utf8 = new TextDecoder();
  let at = 0;
  const step = (width: number): number => {
    if (at + width > bytes.length) throw new TooShort();
    return (at += width) - width;
  };
  const u32 = () => view.getUint32(step(4), true);
  const u64 = () => Number(view.getBigUint64(step(8), true));
  const string = () => {
    const length = u64();
    const start = step(length);
    return utf8.decode(bytes.subarray(start, start + length));
  };
  const scalars: Record<number, () => number | boolean | string> = {
    0: () => view.getUint8(step(1)),
    1: () => view.getInt8(step(1)),
    2: () => view.getUint16(step(2), true),
    3: () => view.getInt16(step(2), true),
    4: u32,
    5: () => view.getInt32(step(4), true),
    6: () => view.getFloat32(step(4), true),
    7: () => view.getUint8(step(1)) !== 0,
    [STRING]: string,
    10: u64,
    11: () => Number(view.getBigInt64(step(8), true)),
    12: () => view.getFloat64(step(8), true),
  };
  const value = (type: number, key: string): GgufValue => {
    if (type !== ARRAY) return (scalars[type] ?? fail(`"${key}" has the unknown type ${type}`))();
    const inner = u32(), count = u64();
    const read = scalars[inner] ?? fail(`"${key}" is an array of the unsupported type ${inner}`);
    const out: unknown[] = [];
    for (let i = 0; i < count; i++) out.push(read());
    return out as GgufValue;
  };
  return { u32, u64, string, value, position: () => at };
}
