/**
 * Cholesky factors: of a positive definite matrix, and, pivoted, of a Gram matrix that may be rank deficient.
 * Refuses a matrix that is not positive definite in f64; the pivoted form stops at the numerical rank instead.
 */

/** Overwrites the lower triangle of A, (n, n) row-major and positive definite, by L with L L^T = A. @throws Error if it is not */
export function choleskyInPlace(a: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j];
      for (let k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
      if (i > j) a[i * n + j] = sum / a[j * n + j];
      else if (sum > 0) a[i * n + i] = Math.sqrt(sum);
      else throw new Error(`Cannot factor the matrix: pivot ${i} is ${sum}, expected a positive number`);
    }
  }
}

/** Solves L L^T x = b in place; l is (n, n) row-major, x comes as b. */
export function choleskySolve(l: Float64Array, n: number, x: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let sum = x[i];
    const row = i * n;
    for (let k = 0; k < i; k++) sum -= l[row + k] * x[k];
    x[i] = sum / l[row + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    const row = i * n, value = x[i] / l[row + i];
    x[i] = value;
    // Row-wise, so that the factor is read in the order it lies in memory.
    for (let k = 0; k < i; k++) x[k] -= l[row + k] * value;
  }
}

/** K = L L^T with L (n, rank): row pivots[j] of L ends at column j. */
export interface PivotedFactor {
  rank: number;
  /** (n, rank) row-major. */
  factor: Float64Array;
  /** The row chosen at each step, (rank). */
  pivots: Int32Array;
}

/** Pivoted Cholesky of the Gram matrix X X^T of x, (n, dim), up to its numerical rank (Higham 2002, section 10.3). */
export function pivotedGram(x: Float64Array, n: number, dim: number): PivotedFactor {
  const columns: Float64Array[] = [], pivots: number[] = [], left = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < dim; j++) left[i] += x[i * dim + j] ** 2;
  const floor = n * 2.3e-16 * left.reduce((most, value) => Math.max(most, value), 0);
  while (columns.length < n) {
    let p = 0;
    for (let i = 1; i < n; i++) if (left[i] > left[p]) p = i;
    if (!(left[p] > floor)) break;
    const column = new Float64Array(n), root = Math.sqrt(left[p]);
    for (let i = 0; i < n; i++) {
      if (pivots.includes(i)) continue;
      let sum = 0;
      for (let j = 0; j < dim; j++) sum += x[i * dim + j] * x[p * dim + j];
      for (const done of columns) sum -= done[i] * done[p];
      column[i] = i === p ? root : sum / root;
      left[i] -= column[i] ** 2;
    }
    left[p] = -1;
    columns.push(column);
    pivots.push(p);
  }
  const rank = columns.length, factor = new Float64Array(n * rank);
  columns.forEach((column, j) => {
    for (let i = 0; i < n; i++) factor[i * rank + j] = column[i];
  });
  return { rank, factor, pivots: Int32Array.from(pivots) };
}
