/**
 * NF4: weights in 4 bits, in blocks of 64 with scales that are themselves kept in 8 bits, as QLoRA quantises them
 * (Dettmers et al. 2023; code books and ties follow bitsandbytes). Refuses values that are not finite.
 */
import { InputError } from "../errors.ts";

/** Values that share a scale, along the flattened row-major matrix; and scales that share a second scale. */
export const NF4_BLOCK = 64, NF4_GROUP = 256;

/** The 16 values of a code: quantiles of a normal distribution, scaled to [-1, 1], zero among them. */
export const NF4_LEVELS: Float32Array<ArrayBuffer> = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/**
 * The 256 values of an 8-bit code, ascending: the signed dynamic type of Dettmers et al. 2022, whose fraction has a
 * bit more for every power of ten that the value is larger.
 */
export const DYNAMIC_LEVELS: Float32Array<ArrayBuffer> = dynamicLevels();

/** Where the scale of a tensor lies among its words: 256 levels, the mean, then groups of 1 + 64 words. */
export const NF4_MEAN_AT = 256, NF4_GROUPS_AT = 257, NF4_GROUP_WORDS = 1 + NF4_GROUP / 4;

const { fround } = Math;
const DYNAMIC_BOUNDS = boundsOf(DYNAMIC_LEVELS);

/** Cells of 1/16 from -1 to 1, so narrow that at most one bound between two levels lies in each: it, and the code below. */
const CELL_CODES = new Uint8Array(33), CELL_BOUNDS = new Float32Array(33).fill(Infinity);
for (const bound of boundsOf(NF4_LEVELS)) {
  const cell = Math.floor(16 * bound + 16);
  CELL_BOUNDS[cell] = bound;
  for (let after = cell + 1; after < 33; after++) CELL_CODES[after]++;
}

/** Bytes of the codes of `size` values, whole 32-bit words. */
export function nf4CodeBytes(size: number): number {
  return Math.ceil(size / 8) * 4;
}

/** 32-bit words of the scales of `size` values. */
export function nf4ScaleWords(size: number): number {
  return NF4_GROUPS_AT + Math.ceil(size / NF4_BLOCK / NF4_GROUP) * NF4_GROUP_WORDS;
}

/**
 * Quantises a stretch of a tensor that starts at a multiple of 64: two codes a byte, the first in the upper half, into
 * `codes`, and the largest magnitude of every block into `absmax`. @throws InputError for a value that is not finite
 */
export function quantizeNf4(values: Float32Array, codes: Uint8Array, absmax: Float32Array): void {
  codes.fill(0);
  for (let start = 0, block = 0; start < values.length; start += NF4_BLOCK, block++) {
    const end = Math.min(values.length, start + NF4_BLOCK);
    let most = 0;
    for (let i = start; i < end; i++) {
      const size = Math.abs(values[i]);
      if (!(size < Infinity)) throw new InputError(`Cannot quantise ${values[i]} (value ${i})`);
      if (size > most) most = size;
    }
    absmax[block] = most;
    const factor = fround(1 / Math.max(most, 1e-38));
    for (let i = start; i < end; i++) {
      const value = fround(values[i] * factor), cell = (16 * value + 16) | 0;
      const code = CELL_CODES[cell] + (value > CELL_BOUNDS[cell] ? 1 : 0);
      codes[i >> 1] |= i & 1 ? code : code << 4;
    }
  }
}

/**
 * The scales of a whole tensor as the device keeps them: DYNAMIC_LEVELS, the mean of all block maxima, then, for each
 * group of 256 blocks, the largest distance from that mean and an 8-bit code a block, four to a word.
 */
export function packScales(absmax: Float32Array): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(nf4ScaleWords(absmax.length * NF4_BLOCK));
  const floats = new Float32Array(words.buffer), bytes = new Uint8Array(words.buffer);
  floats.set(DYNAMIC_LEVELS);
  const mean = fround(absmax.reduce((sum, value) => sum + value, 0) / absmax.length);
  floats[NF4_MEAN_AT] = mean;
  for (let start = 0, at = NF4_GROUPS_AT; start < absmax.length; start += NF4_GROUP, at += NF4_GROUP_WORDS) {
    const end = Math.min(absmax.length, start + NF4_GROUP);
    let most = 0;
    for (let i = start; i < end; i++) most = Math.max(most, Math.abs(fround(absmax[i] - mean)));
    floats[at] = most;
    const factor = fround(1 / Math.max(most, 1e-38));
    for (let i = start; i < end; i++) {
      const distance = fround(fround(absmax[i] - mean) * factor);
      bytes[4 * (at + 1) + i - start] = codeOf(distance, DYNAMIC_BOUNDS);
    }
  }
  return words;
}

/** What codes and scales stand for: `size` values. */
export function dequantizeNf4(
  codes: Uint8Array,
  scales: Uint32Array,
  size: number,
): Float32Array<ArrayBuffer> {
  const floats = new Float32Array(scales.buffer, scales.byteOffset, scales.length);
  const bytes = new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength);
  const out = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const block = Math.floor(i / NF4_BLOCK);
    const at = NF4_GROUPS_AT + Math.floor(block / NF4_GROUP) * NF4_GROUP_WORDS;
    const level = floats[bytes[4 * (at + 1) + block % NF4_GROUP]];
    const scale = fround(fround(level * floats[at]) + floats[NF4_MEAN_AT]);
    const code = codes[i >> 1];
    out[i] = NF4_LEVELS[i & 1 ? code & 15 : code >> 4] * scale;
  }
  return out;
}

/** The nearest level of a value; one that lies in the middle takes the lower. */
function codeOf(value: number, bounds: Float32Array): number {
  let low = 0, high = bounds.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value > bounds[middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}

function boundsOf(levels: Float32Array): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: levels.length - 1 }, (_, i) => fround(levels[i] + levels[i + 1]) / 2);
}

/** Middles of 2^i even steps from 0.1 to 1, times ten to the power i - 6, of both signs; and 0 and 1. */
function dynamicLevels(): Float32Array<ArrayBuffer> {
  const levels = [0, 1], first = Math.fround(0.1);
  for (let i = 0; i < 7; i++) {
    const count = 2 ** i,
      step = Math.fround(Math.fround(1 - first) / count),
      scale = Math.fround(10 ** (i - 6));
    // Counted from the nearer end, as torch.linspace counts.
    const edge = (k: number) => Math.fround(k < (count + 1) >> 1 ? first + step * k : 1 - step * (count - k));
    for (let k = 0; k < count; k++) {
      const middle = Math.fround(scale * (Math.fround(edge(k) + edge(k + 1)) / 2));
      levels.push(middle, -middle);
    }
  }
  return Float32Array.from(levels).sort();
}
