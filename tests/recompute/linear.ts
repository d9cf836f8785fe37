/**
 * Linear probes by the shortest way: rows prepared, logistic regression by Newton's method with Gaussian elimination, principal
 * components by Jacobi's rotations. Small cases only; it refuses nothing.
 */
import { dot, mean, range, where } from "./numbers.ts";
import type { Rows } from "./read.ts";

/** Every scene's mean taken away, then every column to mean 0 and deviation 1 (where it has one). */
export function prepared({ x, scene }: Rows, center: boolean, standardize: boolean): number[][] {
  let out = x;
  if (center) {
    const means = new Map(
      [...new Set(scene)].map((name) => {
        const same = where(x.length, (i) => scene[i] === name);
        return [name, x[0].map((_, j) => mean(same.map((i) => x[i][j])))];
      }),
    );
    out = out.map((row, i) => row.map((value, j) => value - means.get(scene[i])![j]));
  }
  return standardize ? standardised(out).rows : out;
}

export function standardised(x: number[][]): { rows: number[][]; means: number[]; scales: number[] } {
  const columns = x[0].map((_, j) => x.map((row) => row[j])), means = columns.map(mean);
  const scales = columns.map((column, j) => Math.sqrt(mean(column.map((v) => (v - means[j]) ** 2))) || 1);
  return { rows: x.map((row) => row.map((value, j) => (value - means[j]) / scales[j])), means, scales };
}

/** Gaussian elimination with pivoting. */
function solve(a: number[][], b: number[]): number[] {
  const m = a.map((row, i) => [...row, b[i]]), n = b.length;
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(m[i][k]) > Math.abs(m[best][k])) best = i;
    [m[k], m[best]] = [m[best], m[k]];
    for (let i = k + 1; i < n; i++) {
      const factor = m[i][k] / m[k][k];
      for (let j = k; j <= n; j++) m[i][j] -= factor * m[k][j];
    }
  }
  const x = new Array<number>(n);
  for (let k = n - 1; k >= 0; k--) {
    let rest = m[k][n];
    for (let j = k + 1; j < n; j++) rest -= m[k][j] * x[j];
    x[k] = rest / m[k][k];
  }
  return x;
}

/** An intercept last, unpenalised. */
export type Weights = number[];

export const scoreOf = (w: Weights, row: readonly number[]): number =>
  row.reduce((total, value, j) => total + value * w[j], w[row.length]);

/** Sum of logistic losses + |w|^2 / (2 C): scikit-learn's objective over C. Newton's method, steps halved where they overshoot. */
export function logistic(x: number[][], y: number[], c: number): Weights {
  const P = x[0].length + 1, rows = x.map((row) => [...row, 1]);
  const loss = (w: Weights) =>
    rows.reduce((total, row, i) => {
      const score = dot(row, w);
      return total + Math.max(score, 0) + Math.log1p(Math.exp(-Math.abs(score))) - y[i] * score;
    }, dot(w.slice(0, -1), w.slice(0, -1)) / (2 * c));
  let w = new Array<number>(P).fill(0);
  for (let step = 0; step < 100; step++) {
    const gradient = w.map((value, j) => j < P - 1 ? value / c : 0);
    const hessian = w.map((_, i) => w.map((_, j) => i === j && i < P - 1 ? 1 / c : 0));
    rows.forEach((row, i) => {
      const p = 1 / (1 + Math.exp(-dot(row, w)));
      for (let a = 0; a < P; a++) {
        gradient[a] += (p - y[i]) * row[a];
        for (let b = 0; b <= a; b++) hessian[a][b] += p * (1 - p) * row[a] * row[b];
      }
    });
    for (let a = 0; a < P; a++) for (let b = 0; b < a; b++) hessian[b][a] = hessian[a][b];
    let move = solve(hessian, gradient);
    const before = loss(w), moved = () => w.map((value, j) => value - move[j]);
    while (loss(moved()) > before + 1e-9 * Math.abs(before)) move = move.map((value) => value / 2);
    w = moved();
    if (Math.max(...move.map(Math.abs)) < 1e-12) break;
  }
  return w;
}

/** Eigenvectors of a symmetric matrix by Jacobi's rotations, the largest eigenvalue first. */
function eigen(matrix: number[][]): { value: number; vector: number[] }[] {
  const n = matrix.length, a = matrix.map((row) => [...row]);
  const v = range(n).map((i) => range(n).map((j) => Number(i === j)));
  for (let sweep = 0; sweep < 60; sweep++) {
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(a[p][q]) < 1e-300) continue;
        const angle = Math.atan2(2 * a[p][q], a[q][q] - a[p][p]) / 2;
        const c = Math.cos(angle), s = Math.sin(angle);
        const turn = (m: number[][], i: number, j: number, k: number, l: number) => {
          const [x, y] = [m[i][j], m[k][l]];
          m[i][j] = c * x - s * y;
          m[k][l] = s * x + c * y;
        };
        for (let k = 0; k < n; k++) turn(a, p, k, q, k);
        for (let k = 0; k < n; k++) turn(a, k, p, k, q);
        for (let k = 0; k < n; k++) turn(v, k, p, k, q);
      }
    }
  }
  return range(n).map((j) => ({ value: a[j][j], vector: v.map((row) => row[j]) }))
    .sort((left, right) => right.value - left.value);
}

/** Coordinates on the first two principal components and their shares of variance; of loadings the largest in size is positive. */
export function principal(x: number[][]): { rows: number[][]; explained: number[] } {
  const means = x[0].map((_, j) => mean(x.map((row) => row[j])));
  const centred = x.map((row) => row.map((value, j) => value - means[j]));
  const covariance = means.map((_, i) => means.map((_, j) => mean(centred.map((row) => row[i] * row[j]))));
  const all = eigen(covariance), total = all.reduce((sum, { value }) => sum + value, 0);
  const first = all.slice(0, 2).map(({ value, vector }) => {
    const largest = vector.reduce((most, entry) => Math.abs(entry) > Math.abs(most) ? entry : most, 0);
    return { value, vector: vector.map((entry) => largest < 0 ? -entry : entry) };
  });
  return {
    rows: centred.map((row) => first.map(({ vector }) => dot(row, vector))),
    explained: first.map(({ value }) => value / total),
  };
}
