/**
 * L2-penalised logistic regression with scikit-learn's objective: C sum log(1 + exp(-y m)) + |w|^2 / 2, intercept unpenalised.
 * Refuses a single class, a C that is not positive, and data on which f64 cannot reach the tolerance.
 *
 * The solver is L-BFGS (Nocedal & Wright 2006, algorithm 7.4) started from the Hessian's upper bound
 * X^T X / 4 + I / C (Boehning & Lindsay 1988), which is factored once for all labels and subsets of the same rows.
 */
import { InputError } from "../errors.ts";
import { choleskyInPlace, choleskySolve, pivotedGram } from "./cholesky.ts";
import type { FeatureMatrix, PreparedRows } from "./design.ts";

export interface LogisticOptions {
  /** Inverse strength of the penalty; 1 unless told. */
  c?: number;
  /** Stop when the gradient, in the metric of the Hessian's bound, has shrunk by this factor; 1e-10 unless told. */
  tolerance?: number;
}

export interface LogisticFit {
  /** (dim) */
  coef: Float64Array;
  intercept: number;
  iterations: number;
}

const EXACT = 1e-10, MEMORY = 10, ITERATIONS = 2000;

/** Fits all rows. @throws InputError for a single class, a bad C, or data too badly scaled to converge */
export function fitLogistic(
  x: FeatureMatrix | PreparedRows,
  labels: Uint8Array,
  options: LogisticOptions = {},
): LogisticFit {
  const all = Int32Array.from({ length: x.n }, (_, i) => i);
  const rows = { n: x.n, dim: x.dim, data: Float64Array.from(x.data) };
  return logisticSolver(rows, x.n, options.c).fit(all, labels, options.tolerance);
}

/** Fits subsets of the same rows again and again, sharing what does not depend on labels. */
export interface LogisticSolver {
  /** Fits the named rows with their labels, (n) for all rows. @throws InputError as `fitLogistic` */
  fit(train: Int32Array, labels: Uint8Array, tolerance?: number): LogisticFit;
  /** Writes the log-odds of the named rows under the latest fit to `out`. */
  scores(rows: Int32Array, out: Float64Array): void;
}

/**
 * Prepares fits of subsets of about `size` rows. Where dim > n the rows are first rotated into their own span, in which the
 * optimum lies (representer theorem): the fit is the same, in n dimensions. @throws InputError for a C that is not positive
 */
export function logisticSolver(rows: PreparedRows, size: number, c = 1): LogisticSolver {
  if (!(c > 0 && c < Infinity)) {
    throw new InputError(`Cannot fit a probe: C is ${c}, expected a positive number`);
  }
  const span = rows.dim > rows.n ? spanOf(rows) : undefined;
  const { n, dim, data } = span?.rows ?? rows;
  const bound = hessianBound(data, n, dim, c, size / n);
  const P = dim + 1; // the parameters: dim weights, then the intercept
  const theta = new Float64Array(P), gradient = new Float64Array(P), previous = new Float64Array(P);
  const step = new Float64Array(P),
    work = new Float64Array(P),
    alpha = new Float64Array(MEMORY),
    rho = new Float64Array(MEMORY);
  const S = Array.from({ length: MEMORY }, () => new Float64Array(P));
  const Y = Array.from({ length: MEMORY }, () => new Float64Array(P));
  const x = new Float64Array(n * dim), y = new Float64Array(n);
  const margin = new Float64Array(n), slope = new Float64Array(n), residual = new Float64Array(n);

  /** residual = sigma(margin + t slope) - y; returns the first and second derivative along the step. */
  function along(m: number, t: number, linear: number, square: number, out: Float64Array): void {
    let first = linear + t * square, second = square;
    for (let i = 0; i < m; i++) {
      const p = 1 / (1 + Math.exp(-(margin[i] + t * slope[i]))), u = slope[i];
      residual[i] = p - y[i];
      first += (p - y[i]) * u;
      second += p * (1 - p) * u * u;
    }
    out[0] = first;
    out[1] = second;
  }
  const derivative = new Float64Array(2);

  /** The step length at which the slope along the step is at most a tenth of its start: safeguarded Newton in one variable. */
  function search(m: number, start: number, linear: number, square: number): number {
    let low = 0, high = Infinity, t = 1;
    for (let i = 0; i < 60; i++) {
      along(m, t, linear, square, derivative);
      const [first, second] = derivative;
      if (Math.abs(first) <= 0.1 * Math.abs(start)) break;
      if (first < 0) low = t;
      else high = t;
      const newton = t - first / second;
      t = newton > low && newton < high ? newton : high < Infinity ? (low + high) / 2 : 2 * t;
    }
    return t;
  }

  function fit(train: Int32Array, labels: Uint8Array, tolerance = EXACT): LogisticFit {
    const m = train.length;
    let seen = 0;
    for (let i = 0; i < m; i++) {
      x.set(data.subarray(train[i] * dim, (train[i] + 1) * dim), i * dim);
      seen += y[i] = labels[train[i]];
    }
    if (seen === 0 || seen === m) {
      throw new InputError(`Cannot fit a probe: ${seen} of ${m} rows are seen, expected both kinds`);
    }
    theta.fill(0);
    margin.fill(0);
    for (let i = 0; i < m; i++) residual[i] = 0.5 - y[i];
    gradientOf(x, residual, m, dim, theta, 1 / c, gradient);
    let first = 0, iteration = 0, pairs = 0, shrink = 1;
    for (;; iteration++) {
      step.set(gradient);
      for (let k = pairs - 1; k >= Math.max(0, pairs - MEMORY); k--) {
        const at = k % MEMORY;
        alpha[at] = rho[at] * dot(S[at], step);
        axpy(step, -alpha[at], Y[at]);
      }
      choleskySolve(bound, P, step);
      for (let j = 0; j < P; j++) step[j] *= shrink;
      for (let k = Math.max(0, pairs - MEMORY); k < pairs; k++) {
        const at = k % MEMORY;
        axpy(step, alpha[at] - rho[at] * dot(Y[at], step), S[at]);
      }
      const decrease = dot(gradient, step); // g^T H^-1 g: twice the distance to the optimum, in the objective
      if (iteration === 0) first = decrease;
      if (!(decrease > tolerance * tolerance * first)) break;
      if (iteration === ITERATIONS) {
        throw new InputError(
          `Cannot fit a probe: no convergence in ${ITERATIONS} steps; standardise the activations or lower C`,
        );
      }
      for (let j = 0; j < P; j++) step[j] = -step[j];
      slopesOf(x, step, m, dim, slope);
      let linear = 0, square = 0;
      for (let j = 0; j < dim; j++) {
        linear += theta[j] * step[j] / c;
        square += step[j] * step[j] / c;
      }
      const t = search(m, decrease, linear, square);
      for (let i = 0; i < m; i++) margin[i] += t * slope[i];
      axpy(theta, t, step);
      previous.set(gradient);
      gradientOf(x, residual, m, dim, theta, 1 / c, gradient);
      const at = pairs % MEMORY;
      for (let j = 0; j < P; j++) {
        S[at][j] = t * step[j];
        Y[at][j] = gradient[j] - previous[j];
      }
      const curvature = dot(S[at], Y[at]);
      if (!(curvature > 0)) break; // rounding is all that is left to gain
      rho[at] = 1 / curvature;
      pairs++;
      // Where most p (1 - p) are far below 1/4 the bound is too steep: its scale follows the latest curvature.
      work.set(Y[at]);
      choleskySolve(bound, P, work);
      shrink = curvature / dot(Y[at], work);
    }
    const coef = span ? span.expand(theta) : theta.slice(0, dim);
    return { coef, intercept: theta[dim], iterations: iteration };
  }

  return {
    fit,
    scores(which, out) {
      for (let i = 0; i < which.length; i++) {
        const row = which[i] * dim;
        let sum = theta[dim];
        for (let j = 0; j < dim; j++) sum += data[row + j] * theta[j];
        out[i] = sum;
      }
    },
  };
}

/** The Cholesky factor of share [X 1]^T [X 1] / 4 + diag(1/C, ..., 1/C, 0): no logistic Hessian exceeds it; (dim + 1)^2. */
function hessianBound(x: Float64Array, n: number, dim: number, c: number, share: number): Float64Array {
  const P = dim + 1, h = new Float64Array(P * P);
  for (let i = 0; i < n; i++) {
    const row = i * dim;
    for (let j = 0; j < dim; j++) {
      const value = x[row + j];
      for (let k = 0; k <= j; k++) h[j * P + k] += value * x[row + k];
      h[dim * P + j] += value;
    }
  }
  h[dim * P + dim] = n;
  for (let i = 0; i < P * P; i++) h[i] *= share / 4;
  for (let j = 0; j < dim; j++) h[j * P + j] += 1 / c;
  choleskyInPlace(h, P);
  return h;
}

/** The rows, where there are more columns than rows, in an orthonormal basis of their span: any fit scores them alike. */
export const narrowRows = (rows: PreparedRows): PreparedRows => rows.dim > rows.n ? spanOf(rows).rows : rows;

/** The rows in an orthonormal basis of their span, (n, rank), and the way back for weights. */
function spanOf(
  { n, dim, data }: PreparedRows,
): { rows: PreparedRows; expand(v: Float64Array): Float64Array } {
  const { rank, factor, pivots } = pivotedGram(data, n, dim);
  return {
    rows: { n, dim: rank, data: factor },
    // w = X_p^T a with L_p^T a = v, where p are the pivot rows: then X w = L v and |w| = |v|.
    expand(v) {
      const a = v.slice(0, rank), w = new Float64Array(dim);
      for (let i = rank - 1; i >= 0; i--) {
        const row = pivots[i] * rank;
        a[i] /= factor[row + i];
        for (let k = 0; k < i; k++) a[k] -= factor[row + k] * a[i];
      }
      for (let i = 0; i < rank; i++) {
        for (let j = 0; j < dim; j++) w[j] += a[i] * data[pivots[i] * dim + j];
      }
      return w;
    },
  };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
  return sum;
}

function axpy(a: Float64Array, factor: number, b: Float64Array): void {
  for (let j = 0; j < a.length; j++) a[j] += factor * b[j];
}

/** out = X d + d_intercept, four rows a turn so that d is read once for all of them. */
function slopesOf(x: Float64Array, d: Float64Array, m: number, dim: number, out: Float64Array): void {
  const bias = d[dim];
  let i = 0;
  for (; i + 3 < m; i += 4) {
    const r0 = i * dim, r1 = r0 + dim, r2 = r1 + dim, r3 = r2 + dim;
    let a = bias, b = bias, e = bias, f = bias;
    for (let j = 0; j < dim; j++) {
      const w = d[j];
      a += w * x[r0 + j];
      b += w * x[r1 + j];
      e += w * x[r2 + j];
      f += w * x[r3 + j];
    }
    out[i] = a;
    out[i + 1] = b;
    out[i + 2] = e;
    out[i + 3] = f;
  }
  for (; i < m; i++) {
    let a = bias;
    for (let j = 0; j < dim; j++) a += d[j] * x[i * dim + j];
    out[i] = a;
  }
}

/** out = X^T r + ridge w, then the intercept's sum of r; four rows a turn. */
function gradientOf(
  x: Float64Array,
  r: Float64Array,
  m: number,
  dim: number,
  theta: Float64Array,
  ridge: number,
  out: Float64Array,
): void {
  let sum = 0, i = 0;
  for (let j = 0; j < dim; j++) out[j] = ridge * theta[j];
  for (; i + 3 < m; i += 4) {
    const r0 = i * dim, r1 = r0 + dim, r2 = r1 + dim, r3 = r2 + dim;
    const a = r[i], b = r[i + 1], e = r[i + 2], f = r[i + 3];
    sum += a + b + e + f;
    for (let j = 0; j < dim; j++) out[j] += a * x[r0 + j] + b * x[r1 + j] + e * x[r2 + j] + f * x[r3 + j];
  }
  for (; i < m; i++) {
    sum += r[i];
    for (let j = 0; j < dim; j++) out[j] += r[i] * x[i * dim + j];
  }
  out[dim] = sum;
}
