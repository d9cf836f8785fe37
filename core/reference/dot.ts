/**
 * Inner products of two vectors in f64, as gpu/ops/dot.ts has them. Refuses nothing: sizes are the caller's.
 */

/** (a . b, |a|^2, |b|^2, |a - b|^2) */
export function innerProductsReference(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const sums = new Float64Array(4);
  for (let i = 0; i < a.length; i++) {
    sums[0] += a[i] * b[i];
    sums[1] += a[i] * a[i];
    sums[2] += b[i] * b[i];
    sums[3] += (a[i] - b[i]) ** 2;
  }
  return sums;
}
