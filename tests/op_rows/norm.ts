/**
 * Rows of gpu/ops/norm.ts: widths and heights around the workgroup of 64, the strip of 32 rows and a panel of 16,384
 * values, whose rows must start at multiples of 256 bytes; strips of 576 columns and rows of 16,388 fit no panel.
 * Input is far from zero mean in one row, where a one-pass variance would fail.
 */
import assert from "node:assert/strict";
import { layernormReference, rmsnormReference } from "../../core/reference/norm.ts";
import { layernorm, rmsnorm } from "../../gpu/ops/norm.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, parameter, type Row } from "./row.ts";

const shapes = [[1, 1], [1, 63], [2, 64], [31, 65], [33, 8], [64, 3], [65, 132], [129, 1], [261, 64], [
  40,
  576,
], [2, 16388]];

export const rows: Row[] = [
  ...shapes.flatMap(([T, C]): Row[] => [{
    op: "rmsnorm",
    name: `(${T}, ${C})`,
    inputs: [activation([T, C]), parameter([C])],
    gpu: (tape, [x, w]) => rmsnorm(tape, x, w, { eps: 1e-5 }),
    reference: ([x, w]) => rmsnormReference(x, w, { T, C, eps: 1e-5 }),
    tuned: true,
  }, {
    op: "layernorm",
    name: `(${T}, ${C})`,
    inputs: [activation([T, C]), parameter([C]), parameter([C])],
    gpu: (tape, [x, w, b]) => layernorm(tape, x, w, b, { eps: 1e-6 }),
    reference: ([x, w, b]) => layernormReference(x, w, b, { T, C, eps: 1e-6 }),
    tuned: true,
  }]),
  {
    op: "layernorm",
    name: "far from zero",
    inputs: [
      activation([3, 96], { value: (random, i) => random.normal() + (i < 96 ? 50 : 0) }),
      parameter([96]),
      parameter([96]),
    ],
    gpu: (tape, [x, w, b]) => layernorm(tape, x, w, b, { eps: 1e-5 }),
    reference: ([x, w, b]) => layernormReference(x, w, b, { T: 3, C: 96, eps: 1e-5 }),
    tuned: true,
  },
  {
    op: "rmsnorm",
    name: "refuses a weight of another length",
    check: (gpu) => {
      const x = gpu.empty([4, 6]), w = gpu.empty([5]);
      assert.throws(() => rmsnorm(new Tape(gpu), x, w, { eps: 1e-5 }), /C is 5, expected 6/);
    },
  },
];
