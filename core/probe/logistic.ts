/**
 * L2-penalised logistic regression with scikit-learn's objective, |w|^2 / 2 + C sum log(1 + exp(-y (w.x + b))), by
 * L-BFGS (Nocedal 1980) under one Cholesky preconditioner a feature. Refuses to return before it has converged.
 */
import type { Design } from "./design.ts";
import { sigmoid } from "./metrics.ts";

export interface FitOptions {
  /** Inverse strength of the penalty; the intercept carries none. */
  c?: number;
  /** Bound on the relative error of the coefficients. */
  tolerance?: number;
}

/** Fits many label vectors on rows of one design; not for two fits at once, its buffers are shared. */
export interface Fitter {
  design: Design;
  /**
   * Fits the given rows. Coefficients and intercept stay in `weights` (stride: width coefficients, the intercept,
   * zeros) until the next fit. Returns the number of gradients it took.
   * @param labels (n), 1 for seen @throws Error when it does not converge
   */
  fit(rows: Int32Array, labels: Uint8Array): number;
  weights: Float64Array;
  /** Log-odds of the given rows under the last fit. */
  score(rows: Int32Array, out: Float64Array): Float64Array;
}

const MEMORY = 12, MOST_GRADIENTS = 3000;

/** A fitter for the rows of `design`; `trainShare` of them are fitted at a time, which scales its preconditioner. */
export function createFitter(
  design: Design,
  { c = 1, tolerance = 1e-7 }: FitOptions = {},
  trainShare = 1,
): Fitter {
  const { x, width, stride } = design;
  const factor = preconditioner(design, c * trainShare);
  const vector = () => new Float64Array(stride);
  const weights = vector(),
    gradient = vector(),
    trial = vector(),
    trialGradient = vector(),
    direction = vector();
  const steps = Array.from({ length: MEMORY }, vector), changes = Array.from({ length: MEMORY }, vector);
  const inverse = new Float64Array(MEMORY), alpha = new Float64Array(MEMORY), work = vector();

  /** Gradient of the objective at w, into g: penalised for the coefficients, plain for the intercept. */
  function gradientAt(w: Float64Array, g: Float64Array, rows: Int32Array, labels: Uint8Array): void {
    g.fill(0);
    for (let r = 0; r < rows.length; r++) {
      const at = rows[r] * stride;
      const error = c * (sigmoid(dotAt(x, at, w)) - labels[rows[r]]);
      for (let j = 0; j < stride; j += 4) {
        g[j] += error * x[at + j];
        g[j + 1] += error * x[at + j + 1];
        g[j + 2] += error * x[at + j + 2];
        g[j + 3] += error * x[at + j + 3];
      }
    }
    for (let j = 0; j < width; j++) g[j] += w[j];
  }

  /** direction = -H gradient, H from the last `kept` steps ending before slot `next` (two-loop recursion). */
  function quasiNewton(kept: number, next: number): void {
    direction.set(gradient);
    for (let k = 1; k <= kept; k++) {
      const slot = (next - k + MEMORY) % MEMORY;
      alpha[slot] = inverse[slot] * dotAt(steps[slot], 0, direction);
      addScaled(direction, -alpha[slot], changes[slot]);
    }
    solve(factor, direction, stride);
    if (kept > 0) {
      const last = (next - 1 + MEMORY) % MEMORY;
      work.set(changes[last]);
      solve(factor, work, stride);
      const ratio = 1 / (inverse[last] * dotAt(changes[last], 0, work));
      for (let j = 0; j < stride; j++) direction[j] *= ratio;
    }
    for (let k = kept; k >= 1; k--) {
      const slot = (next - k + MEMORY) % MEMORY;
      addScaled(direction, alpha[slot] - inverse[slot] * dotAt(changes[slot], 0, direction), steps[slot]);
    }
    for (let j = 0; j < stride; j++) direction[j] = -direction[j];
  }

  function fit(rows: Int32Array, labels: Uint8Array): number {
    let seen = 0;
    for (let r = 0; r < rows.length; r++) seen += labels[rows[r]];
    if (seen === 0 || seen === rows.length) {
      throw new RangeError(
        `Cannot fit a probe: ${seen} of ${rows.length} rows are labelled seen, need both classes`,
      );
    }
    weights.fill(0);
    weights[width] = Math.log(seen / (rows.length - seen));
    gradientAt(weights, gradient, rows, labels);
    let gradients = 1, kept = 0, next = 0;
    for (;;) {
      // The objective is 1-strongly convex in w: |w - w*| <= |gradient|, so this bounds the relative error of w.
      const norm = Math.sqrt(dotAt(gradient, 0, gradient));
      const size = Math.sqrt(dotAt(weights, 0, weights) - weights[width] ** 2);
      if (norm <= tolerance * Math.max(size, 1e-6)) return gradients;
      quasiNewton(kept, next);
      const slope = dotAt(gradient, 0, direction);
      // A step is taken unless it ends on a slope that rises half as fast as it fell (it is convex: one minimum along
      // the line); then a secant step goes back. Gradients alone decide: losses lose all digits near the optimum.
      for (let t = 1;;) {
        for (let j = 0; j < stride; j++) trial[j] = weights[j] + t * direction[j];
        gradientAt(trial, trialGradient, rows, labels);
        if (++gradients > MOST_GRADIENTS) {
          throw new Error(
            `Cannot fit a probe on ${rows.length} rows: its gradient is ${norm} after ${gradients} evaluations`,
          );
        }
        const end = dotAt(trialGradient, 0, direction);
        if (end <= -slope / 2) break;
        t *= Math.min(0.9, Math.max(0.1, -slope / (end - slope)));
      }
      for (let j = 0; j < stride; j++) {
        steps[next][j] = trial[j] - weights[j];
        changes[next][j] = trialGradient[j] - gradient[j];
      }
      const curvature = dotAt(steps[next], 0, changes[next]);
      weights.set(trial);
      gradient.set(trialGradient);
      if (curvature > 0) {
        inverse[next] = 1 / curvature;
        next = (next + 1) % MEMORY;
        kept = Math.min(kept + 1, MEMORY);
      }
    }
  }

  return {
    design,
    fit,
    weights,
    score(rows, out) {
      for (let r = 0; r < rows.length; r++) out[r] = dotAt(x, rows[r] * stride, weights);
      return out;
    },
  };
}

/**
 * Cholesky factor (stride, stride) of C/4 X^T X + the penalty: the objective's Hessian with every p (1 - p) at its
 * largest, 1/4 (Boehning 1992). It knows no labels, so all fits of a feature share it.
 */
function preconditioner({ n, width, stride, x }: Design, c: number): Float64Array {
  const factor = new Float64Array(stride * stride);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= width; j++) {
      const value = x[i * stride + j] * c / 4;
      for (let k = 0; k <= j; k++) factor[j * stride + k] += value * x[i * stride + k];
    }
  }
  for (let j = 0; j < stride; j++) if (j !== width) factor[j * stride + j] += 1;
  for (let j = 0; j < stride; j++) {
    for (let k = 0; k <= j; k++) {
      let sum = factor[j * stride + k];
      for (let m = 0; m < k; m++) sum -= factor[j * stride + m] * factor[k * stride + m];
      factor[j * stride + k] = j === k ? Math.sqrt(sum) : sum / factor[k * stride + k];
    }
  }
  return factor;
}

/** v <- (L L^T)^-1 v, in place. */
function solve(factor: Float64Array, v: Float64Array, stride: number): void {
  for (let j = 0; j < stride; j++) {
    let sum = v[j];
    for (let k = 0, at = j * stride; k < j; k++) sum -= factor[at + k] * v[k];
    v[j] = sum / factor[j * stride + j];
  }
  for (let j = stride - 1; j >= 0; j--) {
    const value = v[j] / factor[j * stride + j];
    v[j] = value;
    for (let k = 0, at = j * stride; k < j; k++) v[k] -= value * factor[at + k];
  }
}

/** a[at..] . b, for b of a length that 4 divides. */
function dotAt(a: Float64Array, at: number, b: Float64Array): number {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let j = 0; j < b.length; j += 4) {
    s0 += a[at + j] * b[j];
    s1 += a[at + j + 1] * b[j + 1];
    s2 += a[at + j + 2] * b[j + 2];
    s3 += a[at + j + 3] * b[j + 3];
  }
  return s0 + s1 + s2 + s3;
}

function addScaled(v: Float64Array, factor: number, add: Float64Array): void {
  for (let j = 0; j < v.length; j++) v[j] += factor * add[j];
}
