/**
 * A linear layer, x w^T + b, with an optional low-rank adapter beside it: one op, so that the adapter's product is
 * added into the result and nothing is saved for a frozen weight. Refuses an adapter whose shapes do not fit.
 */
import { dims } from "../../core/shape.ts";
import { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { add } from "./add.ts";
import { dropout } from "./dropout.ts";
import { matmulNN, matmulNT, matmulTN } from "./matmul.ts";
import { columnSum } from "./reduce.ts";

/** Hu et al. 2021: y += scaling * dropout(x) a^T b^T. */
export interface LowRank {
  /** (R, K), Kaiming-uniform at the start. */
  a: Tensor;
  /** (N, R), zero at the start. */
  b: Tensor;
  /** alpha / R, or alpha / sqrt(R) with rank-stabilised scaling. */
  scaling: number;
  /** The share of x that the adapter does not see in training. */
  dropout: number;
  /** Of this layer in this step, so that recomputation drops the same values. */
  seed: number;
}

/** x (T, K), w (N, K) f32 or packed bf16, b (N): (T, N). @throws RangeError when shapes do not fit */
export function linear(tape: Tape, x: Tensor, w: Tensor, b?: Tensor, adapter?: LowRank): Tensor {
  const { T, K, N } = dims("T K", x, "N K", w, ...(b ? ["N", b] : []));
  const { gpu } = tape;
  const y = tape.empty([T, N]);
  matmulNT(gpu, x, w, y, { bias: b });
  gpu.trace?.op("linear", [x, w, b, adapter?.a, adapter?.b], y, { scaling: adapter?.scaling });
  if (!adapter) {
    return tape.record(y, b ? [x, w, b] : [x, w], (dy) => {
      weightGradients(tape, dy, x, w, b);
      if (!x.requiresGrad) return [];
      const dx = tape.empty([T, K]);
      matmulNN(gpu, dy, w, dx);
      return [dx];
    });
  }
  const { a, b: up, scaling } = adapter;
  const { R } = dims("R K", a, "N R", up, "T K", x, "N K", w);
  const silent = new Tape(gpu, false);
  const drop = { p: adapter.dropout, seed: adapter.seed };
  const seen = dropout(silent, x, drop); // (T, K)
  const low = tape.empty([T, R]);
  matmulNT(gpu, seen, a, low);
  matmulNT(gpu, low, up, y, { alpha: scaling, accumulate: true });
  return tape.record(y, [x, w, ...(b ? [b] : []), a, up], (dy) => {
    weightGradients(tape, dy, x, w, b);
    if (up.grad) matmulTN(gpu, dy, low, up.grad, { alpha: scaling, accumulate: true });
    const dLow = tape.empty([T, R]);
    matmulNN(gpu, dy, up, dLow, { alpha: scaling });
    if (a.grad) matmulTN(gpu, dLow, seen, a.grad, { accumulate: true });
    if (!x.requiresGrad) return [];
    const dx = tape.empty([T, K]);
    matmulNN(gpu, dy, w, dx);
    if (drop.p === 0) {
      matmulNN(gpu, dLow, a, dx, { accumulate: true });
      return [dx];
    }
    const through = tape.empty([T, K]);
    matmulNN(gpu, dLow, a, through);
    return [add(silent, dx, dropout(silent, through, drop))];
  });
}

/** x p for a matrix stored as (K, N), from input to output: (T, N). @throws RangeError when shapes do not fit */
export function project(tape: Tape, x: Tensor, p: Tensor): Tensor {
  const { T, N } = dims("T K", x, "K N", p);
  const { gpu } = tape;
  const y = tape.empty([T, N]);
  matmulNN(gpu, x, p, y);
  gpu.trace?.op("project", [x, p], y, {});
  return tape.record(y, [x, p], (dy) => {
    if (p.grad) matmulTN(gpu, x, dy, p.grad, { accumulate: true });
    if (!x.requiresGrad) return [];
    const dx = tape.empty(x.shape);
    matmulNT(gpu, dy, p, dx);
    return [dx];
  });
}

function weightGradients({ gpu }: Tape, dy: Tensor, x: Tensor, w: Tensor, b?: Tensor): void {
  if (w.grad) matmulTN(gpu, dy, x, w.grad, { accumulate: true });
  if (b?.grad) columnSum(gpu, dy, b.grad, { accumulate: true });
}
