/**
 * Learnt tables of positions on a square grid, resampled to another grid, as sparse matrices over their rows: torch's
 * bicubic interpolation, with half-pixel centres and clamped borders and without antialiasing. Refuses an empty grid.
 */
import type { SparseRows } from "./sparse_rows.ts";

/** torch's kernel; Pillow's has -0.5. */
const A = -0.75;

/**
 * The matrix (to * to, from * from) that turns a row-major table of one square grid into another's.
 * Keys 1981, eq. 4, with a = -0.75, as in `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`.
 * @throws RangeError for a side that is no whole number above 0
 */
export function bicubicTable(from: number, to: number): SparseRows {
  for (const side of [from, to]) {
    if (!Number.isInteger(side) || side < 1) {
      throw new RangeError(`Cannot resample a grid of side ${side}: expected a whole number above 0`);
    }
  }
  const taps = Array.from({ length: to }, (_, i) => cubicTaps(i, from, to));
  const starts = Uint32Array.from({ length: to * to + 1 }, (_, r) => 16 * r);
  const entries = new Uint32Array(16 * to * to), weights = new Float32Array(16 * to * to);
  let at = 0;
  for (const rows of taps) {
    for (const columns of taps) {
      for (const row of rows) {
        for (const column of columns) {
          entries[at] = row.index * from + column.index;
          weights[at++] = row.weight * column.weight;
        }
      }
    }
  }
  return { columns: from * from, starts, entries, weights };
}

/** The four source cells of target cell i along one axis, and their shares. */
function cubicTaps(i: number, from: number, to: number): { index: number; weight: number }[] {
  const source = Math.fround(Math.fround(from / to) * (i + 0.5) - 0.5); // torch computes it in f32
  const first = Math.floor(source), t = source - first;
  return [-1, 0, 1, 2].map((step) => ({
    index: Math.min(Math.max(first + step, 0), from - 1),
    weight: cubic(Math.abs(step - t)),
  }));
}

function cubic(x: number): number {
  return x <= 1 ? ((A + 2) * x - (A + 3)) * x * x + 1 : ((A * x - 5 * A) * x + 8 * A) * x - 4 * A;
}
