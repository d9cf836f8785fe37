/**
 * Logistic regression that stops where scikit-learn's `LogisticRegression(solver="lbfgs")` stops: same objective, same
 * start, steps and rule (scikit-learn 1.9 on scipy 1.17). That is up to a percent short of the optimum, which logistic.ts reaches.
 */
import { InputError } from "../errors.ts";
import { lineSearch } from "./line_search.ts";

export interface SklearnOptions {
  c?: number;
  /** Largest entry of the mean loss's gradient at which it stops. */
  tol?: number;
  maxIterations?: number;
}

export interface LinearModel {
  /** (D) */
  coef: Float64Array;
  intercept: number;
}

const MEMORY = 10, LEAST_DECREASE = 64 * Number.EPSILON;

/**
 * Fits x (n, dim) against labels (n): mean logistic loss + |w|^2 / (2 C n), from zero by L-BFGS with 10 corrections
 * (Byrd, Lu, Nocedal & Zhu 1995, without bounds). Like scikit-learn it may end at `maxIterations`.
 * @throws InputError for labels of one class only
 */
export function fitLikeSklearn(
  x: Float64Array,
  dim: number,
  labels: Uint8Array,
  { c = 1, tol = 1e-4, maxIterations = 1000 }: SklearnOptions = {},
): LinearModel & { iterations: number } {
  const n = labels.length, size = dim + 1, penalty = 1 / (c * n);
  if (!labels.includes(0) || !labels.includes(1)) {
    throw new InputError(`Cannot fit a probe on ${n} rows: they are all of one class`);
  }
  /** Value at w, its gradient into g. */
  const evaluate = (w: Float64Array, g: Float64Array): number => {
    let loss = 0, norm = 0;
    g.fill(0);
    for (let i = 0; i < n; i++) {
      let z = w[dim];
      for (let j = 0, at = i * dim; j < dim; j++) z += x[at + j] * w[j];
      loss += Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - labels[i] * z;
      const error = (1 / (1 + Math.exp(-z)) - labels[i]) / n;
      for (let j = 0, at = i * dim; j < dim; j++) g[j] += error * x[at + j];
      g[dim] += error;
    }
    for (let j = 0; j < dim; j++) {
      norm += w[j] ** 2;
      g[j] += penalty * w[j];
    }
    return loss / n + penalty * norm / 2;
  };

  const w = new Float64Array(size), g = new Float64Array(size), from = new Float64Array(size);
  const before = new Float64Array(size), direction = new Float64Array(size);
  const pairs: { s: Float64Array; y: Float64Array; sy: number }[] = [];
  let value = evaluate(w, g), iterations = 0;
  while (iterations < maxIterations && g.some((entry) => Math.abs(entry) > tol)) {
    quasiNewton(direction, g, pairs);
    from.set(w);
    before.set(g);
    const at = (step: number) => {
      for (let j = 0; j < size; j++) w[j] = from[j] + step * direction[j];
      value = evaluate(w, g);
      return { value, slope: dot(g, direction) };
    };
    const old = value, slope = dot(before, direction);
    const first = iterations === 0 ? 1 / Math.sqrt(dot(direction, direction)) : 1;
    if (!(slope < 0) || lineSearch({ value: old, slope }, first, at) === undefined) {
      // Rounding hides where it goes down: once more without memory, else this is the end, as in L-BFGS-B.
      w.set(from);
      g.set(before);
      value = old;
      if (pairs.length === 0) break;
      pairs.length = 0;
      continue;
    }
    iterations++;
    if (old - value <= LEAST_DECREASE * Math.max(Math.abs(old), Math.abs(value), 1)) break;
    const s = w.map((entry, j) => entry - from[j]), y = g.map((entry, j) => entry - before[j]);
    const sy = dot(s, y);
    if (sy > Number.EPSILON * -dot(before, s)) pairs.push({ s, y, sy });
    if (pairs.length > MEMORY) pairs.shift();
  }
  return { coef: w.slice(0, dim), intercept: w[dim], iterations };
}

/** direction <- -H g by the two-loop recursion, from the scaled identity (Nocedal & Wright, algorithm 7.4). */
function quasiNewton(
  direction: Float64Array,
  g: Float64Array,
  pairs: readonly { s: Float64Array; y: Float64Array; sy: number }[],
): void {
  direction.set(g);
  const alpha = pairs.map(() => 0);
  for (let k = pairs.length - 1; k >= 0; k--) {
    alpha[k] = dot(pairs[k].s, direction) / pairs[k].sy;
    addScaled(direction, -alpha[k], pairs[k].y);
  }
  const last = pairs.at(-1);
  const scale = last ? last.sy / dot(last.y, last.y) : 1;
  for (let j = 0; j < direction.length; j++) direction[j] *= scale;
  pairs.forEach(({ s, y, sy }, k) => addScaled(direction, alpha[k] - dot(y, direction) / sy, s));
  for (let j = 0; j < direction.length; j++) direction[j] = -direction[j];
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
  return sum;
}

function addScaled(v: Float64Array, factor: number, add: Float64Array): void {
  for (let j = 0; j < v.length; j++) v[j] += factor * add[j];
}
