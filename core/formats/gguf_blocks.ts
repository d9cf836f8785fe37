/**
 * The blocks of GGUF's tensor types, and how each becomes 32-bit floats. Formulas are those of ggml-quants.c: a block
 * holds a few scales in f16 and small integers; every result is rounded once, so it equals ggml's to the bit.
 */
import { toF32 } from "./safetensors.ts";

export type BlockType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0" | "Q4_1" | "Q4_K" | "Q6_K";

export interface Block {
  /** Values a block. */
  size: number;
  /** Bytes a block. */
  bytes: number;
}

export const BLOCKS: Record<BlockType, Block> = {
  F32: { size: 1, bytes: 4 },
  F16: { size: 1, bytes: 2 },
  BF16: { size: 1, bytes: 2 },
  Q8_0: { size: 32, bytes: 34 },
  Q4_0: { size: 32, bytes: 18 },
  Q4_1: { size: 32, bytes: 20 },
  Q4_K: { size: 256, bytes: 144 },
  Q6_K: { size: 256, bytes: 210 },
};

/** ggml's numbers of types, those that are refused among them, so that a message can name them. */
export const TYPE_NAMES: Record<number, string> = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  30: "BF16",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

/** Whole blocks to floats. @throws RangeError when the bytes are no whole number of blocks */
export function dequantise(bytes: Uint8Array<ArrayBuffer>, type: BlockType): Float32Array<ArrayBuffer> {
  const block = BLOCKS[type], count = bytes.length / block.bytes;
  if (!Number.isInteger(count)) {
    throw new RangeError(`Cannot cut ${bytes.length} bytes into ${type} blocks of ${block.bytes}`);
  }
  if (type === "F32" || type === "F16" || type === "BF16") return toF32(bytes, type);
  const halves = new Float16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const out = new Float32Array(count * block.size), unpack = UNPACK[type];
  for (let i = 0; i < count; i++) unpack(bytes, i * block.bytes, halves, out, i * block.size);
  return out;
}

/** One block from byte `at` (its f16 scales are `halves[at / 2]` and so on) to the values from `to`. */
type Unpack = (
  bytes: Uint8Array,
  at: number,
  halves: Float16Array,
  out: Float32Array,
  to: number,
) => void;

const UNPACK: Record<Exclude<BlockType, "F32" | "F16" | "BF16">, Unpack> = {
  // d, 32 signed bytes: d q
  Q8_0(bytes, at, halves, out, to) {
    const d = halves[at / 2];
    for (let i = 0; i < 32; i++) out[to + i] = d * (bytes[at + 2 + i] << 24 >> 24);
  },

  // d, 16 bytes of two nibbles, the low ones first: d (q - 8)
  Q4_0(bytes, at, halves, out, to) {
    const d = halves[at / 2];
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + 2 + i];
      out[to + i] = d * ((pair & 15) - 8);
      out[to + 16 + i] = d * ((pair >> 4) - 8);
    }
  },

  // d, m, nibbles likewise: d q + m
  Q4_1(bytes, at, halves, out, to) {
    const d = halves[at / 2], m = halves[at / 2 + 1];
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + 4 + i];
      out[to + i] = d * (pair & 15) + m;
      out[to + 16 + i] = d * (pair >> 4) + m;
    }
  },

  // d, dmin, 8 pairs of a scale and a minimum of 6 bits in 12 bytes, 128 bytes of nibbles: d scale q - dmin minimum
  Q4_K(bytes, at, halves, out, to) {
    const d = halves[at / 2], dmin = halves[at / 2 + 1];
    for (let group = 0; group < 8; group++) {
      const low = bytes[at + 4 + (group & 3)], high = bytes[at + 8 + (group & 3)];
      const rest = bytes[at + 12 + (group & 3)];
      const scale = d * (group < 4 ? low & 63 : (rest & 15) | (low >> 6 << 4));
      const minimum = dmin * (group < 4 ? high & 63 : (rest >> 4) | (high >> 6 << 4));
      const shift = 4 * (group & 1), from = at + 16 + 32 * (group >> 1);
      for (let i = 0; i < 32; i++) {
        out[to + 32 * group + i] = scale * (bytes[from + i] >> shift & 15) - minimum;
      }
    }
  },

  // 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d: d scale (q - 32)
  Q6_K(bytes, at, halves, out, to) {
    const d = halves[(at + 208) / 2];
    for (let group = 0; group < 8; group++) { // of 32 values, two scales each
      const half = group >> 2, quarter = group & 3;
      const low = at + 64 * half + 32 * (quarter & 1), high = at + 128 + 32 * half;
      for (let i = 0; i < 32; i++) {
        const q = (bytes[low + i] >> 4 * (quarter >> 1) & 15) | ((bytes[high + i] >> 2 * quarter & 3) << 4);
        const scale = bytes[at + 192 + 2 * group + (i >> 4)] << 24 >> 24;
        out[to + 32 * group + i] = d * scale * (q - 32);
      }
    }
  },
};
