/**
 * Ops that move, pool and add up whole rows, in f64 on plain arrays: the truth that tests hold the GPU against.
 * Refuses nothing: shapes are the caller's word.
 */

/** Row m of the result is row index[m] of x (N, C). */
export function gatherRowsReference(x: Float64Array, index: ArrayLike<number>, C: number): Float64Array {
  return rowsOf(index.length, C, (m, c) => x[index[m] * C + c]);
}

/** Row t is that of base (T, C), or row source[t] of features (P, C) where source[t] >= 0. */
export function mergeRowsReference(
  base: Float64Array,
  features: Float64Array,
  source: ArrayLike<number>,
  C: number,
): Float64Array {
  return rowsOf(source.length, C, (t, c) => source[t] < 0 ? base[t * C + c] : features[source[t] * C + c]);
}

/** Row s is the mean of the rows groups[s] of x (T, C). */
export function poolRowsReference(
  x: Float64Array,
  groups: readonly ArrayLike<number>[],
  C: number,
): Float64Array {
  return rowsOf(groups.length, C, (s, c) => {
    let sum = 0;
    for (const row of Array.from(groups[s])) sum += x[row * C + c];
    return sum / groups[s].length;
  });
}

/** The rows of all xs, one after another. */
export function concatRowsReference(xs: readonly Float64Array[]): Float64Array {
  return Float64Array.from(xs.flatMap((x) => [...x]));
}

/** The sum of each column of x (T, C). */
export function columnSumReference(x: Float64Array, C: number): Float64Array {
  const sums = new Float64Array(C);
  x.forEach((value, i) => sums[i % C] += value);
  return sums;
}

function rowsOf(rows: number, C: number, value: (row: number, c: number) => number): Float64Array {
  return Float64Array.from({ length: rows * C }, (_, i) => value(Math.floor(i / C), i % C));
}
