/**
 * Rows of gpu/ops/linear.ts: plain, with bias, over bf16, with a low-rank adapter beside it, with dropout before the
 * adapter, over matrices stored the other way; on and off the multiples of four. Wrong adapters are refused.
 */
import assert from "node:assert/strict";
import { dropoutReference } from "../../core/reference/activation.ts";
import { matmulNNReference, matmulNTReference } from "../../core/reference/matmul.ts";
import { linear, project } from "../../gpu/ops/linear.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, constant, parameter, type Row } from "./row.ts";

const shapes = [[1, 1, 1, 1], [5, 3, 7, 2], [17, 12, 8, 4], [33, 20, 64, 8]];

/** x w^T + b + scaling * dropout(x) a^T u^T. */
function reference(
  [x, w, b, a, u]: Float64Array[],
  [T, N, K, R]: number[],
  scaling = 0,
  p = 0,
): Float64Array {
  const y = matmulNTReference(x, w, { T, N, K }).map((v, i) => v + (b?.[i % N] ?? 0));
  if (!a) return y;
  const low = matmulNTReference(p ? dropoutReference(x, { p, seed: 9 }) : x, a, { T, N: R, K });
  return matmulNTReference(low, u, { T, N, K: R }).map((v, i) => y[i] + scaling * v);
}

export const rows: Row[] = [
  ...shapes.flatMap((shape): Row[] => {
    const [T, N, K, R] = shape, name = `x (${T}, ${K}), w (${N}, ${K})`;
    const adapted = [
      activation([T, K]),
      parameter([N, K]),
      parameter([N]),
      parameter([R, K]),
      parameter([N, R]),
    ];
    return [{
      op: "linear",
      name,
      inputs: [activation([T, K]), parameter([N, K])],
      gpu: (tape, [x, w]) => linear(tape, x, w),
      reference: (inputs) => reference(inputs, shape),
    }, {
      op: "linear",
      name: `${name}, bias`,
      inputs: adapted.slice(0, 3),
      gpu: (tape, [x, w, b]) => linear(tape, x, w, b),
      reference: (inputs) => reference(inputs, shape),
    }, {
      op: "linear",
      name: `${name} in bf16, bias`,
      inputs: [activation([T, K]), constant([N, K], { dtype: "bf16" }), parameter([N])],
      gpu: (tape, [x, w, b]) => linear(tape, x, w, b),
      reference: (inputs) => reference(inputs, shape),
    }, {
      op: "linear",
      name: `${name}, rank ${R}`,
      inputs: adapted,
      gpu: (tape, [x, w, b, a, u]) => linear(tape, x, w, b, { a, b: u, scaling: 1.5, dropout: 0, seed: 9 }),
      reference: (inputs) => reference(inputs, shape, 1.5),
    }, {
      op: "linear",
      name: `${name}, rank ${R}, dropout`,
      inputs: adapted,
      gpu: (tape, [x, w, b, a, u]) => linear(tape, x, w, b, { a, b: u, scaling: 0.5, dropout: 0.3, seed: 9 }),
      reference: (inputs) => reference(inputs, shape, 0.5, 0.3),
    }, {
      op: "project",
      name: `x (${T}, ${N}), p (${N}, ${K})`,
      inputs: [activation([T, N]), parameter([N, K])],
      gpu: (tape, [x, p]) => project(tape, x, p),
      reference: ([x, p]) => matmulNNReference(x, p, { T, N, K }),
    }];
  }),
  {
    op: "linear",
    name: "refuses an adapter of another layer",
    check: (gpu) => {
      const [x, w, a, b] = [[3, 8], [4, 8], [2, 12], [4, 2]].map((shape) => gpu.empty(shape));
      const adapter = { a, b, scaling: 1, dropout: 0, seed: 0 };
      assert.throws(() => linear(new Tape(gpu), x, w, undefined, adapter), /K is 8, expected 12/);
    },
  },
];
