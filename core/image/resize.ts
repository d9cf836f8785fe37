/**
 * Resizing as Pillow does it, to the bit: separable filters on 8 bits with 22-bit fixed-point weights.
 * It knows the three filters that image processors use and refuses no size above zero.
 */
import { blankPicture, type Picture } from "./picture.ts";

export type Filter = "bilinear" | "bicubic" | "lanczos";

/** Pillow's PRECISION_BITS: a 32-bit sum less 8 bits of pixel and 2 of headroom. */
const PRECISION_BITS = 32 - 8 - 2;

const sinc = (x: number): number => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);

const FILTERS: Record<Filter, { support: number; weight: (x: number) => number }> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x), -0.5) },
  lanczos: { support: 3, weight: (x) => x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0 },
};

/** Keys' cubic convolution kernel (1981) with parameter a, for x >= 0. */
function cubic(x: number, a: number): number {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

interface Weights {
  /** First source pixel and number of source pixels, for each output pixel. */
  start: Int32Array;
  count: Int32Array;
  /** `width` weights for each output pixel, times 2^22 and rounded. */
  fixed: Int32Array;
  width: number;
}

/** The weights of every output pixel along one side; shrinking widens the filter, so it averages. */
function weightsFor(from: number, to: number, filter: Filter): Weights {
  const { support, weight } = FILTERS[filter];
  const scale = from / to, stretch = Math.max(scale, 1), reach = support * stretch;
  const width = Math.ceil(reach) * 2 + 1;
  const start = new Int32Array(to), count = new Int32Array(to), fixed = new Int32Array(to * width);
  const row = new Float64Array(width);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const n = Math.min(from, Math.trunc(center + reach + 0.5)) - first;
    let sum = 0;
    for (let k = 0; k < n; k++) sum += row[k] = weight((k + first - center + 0.5) * (1 / stretch));
    for (let k = 0; k < n; k++) {
      const scaled = (sum === 0 ? row[k] : row[k] / sum) * (1 << PRECISION_BITS);
      fixed[i * width + k] = Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    start[i] = first;
    count[i] = n;
  }
  return { start, count, fixed, width };
}

/**
 * Which Pillow to agree with. Both passes round to 8 bits, so their order shows (by a few levels at edges): up to 12
 * the width always came first; 13 begins with the height where that loses more than twice as many pixels.
 * The published models were trained with 12 or older.
 */
export type PillowVersion = 12 | 13;

/** Resizes a picture to width x height. A side that keeps its length is not touched. */
export function resizePicture(
  picture: Picture,
  width: number,
  height: number,
  filter: Filter,
  pillow: PillowVersion = 12,
): Picture {
  const lostRows = picture.height - height, lostColumns = picture.width - width;
  const rowsFirst = pillow === 13 && lostRows > 0 && lostRows > 2 * lostColumns;
  const across = (p: Picture) => width === p.width ? p : resizeColumns(p, width, filter);
  const down = (p: Picture) => height === p.height ? p : resizeRows(p, height, filter);
  return rowsFirst ? across(down(picture)) : down(across(picture));
}

function resizeColumns(picture: Picture, width: number, filter: Filter): Picture {
  const out = blankPicture(width, picture.height);
  const { start, count, fixed, width: taps } = weightsFor(picture.width, width, filter);
  const { data } = picture;
  for (let y = 0, at = 0; y < picture.height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      let r = 1 << (PRECISION_BITS - 1), g = r, b = r;
      let from = (y * picture.width + start[x]) * 3;
      for (let k = x * taps, end = k + count[x]; k < end; k++, from += 3) {
        const w = fixed[k];
        r += data[from] * w;
        g += data[from + 1] * w;
        b += data[from + 2] * w;
      }
      out.data[at] = clip(r);
      out.data[at + 1] = clip(g);
      out.data[at + 2] = clip(b);
    }
  }
  return out;
}

function resizeRows(picture: Picture, height: number, filter: Filter): Picture {
  const out = blankPicture(picture.width, height);
  const { start, count, fixed, width: taps } = weightsFor(picture.height, height, filter);
  const { data } = picture, stride = picture.width * 3;
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (let k = 0; k < count[y]; k++) {
      const w = fixed[y * taps + k], from = (start[y] + k) * stride;
      for (let i = 0; i < stride; i++) sums[i] += data[from + i] * w;
    }
    for (let i = 0; i < stride; i++) out.data[y * stride + i] = clip(sums[i]);
  }
  return out;
}

const clip = (sum: number): number => Math.min(255, Math.max(0, sum >> PRECISION_BITS));
