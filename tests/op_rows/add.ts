/**
 * Rows of gpu/ops/add.ts, up to more values than the 16,384 of a panel. Refuses nothing that the op accepts.
 */
import assert from "node:assert/strict";
import { Tape } from "../../gpu/tape.ts";
import { add, scale } from "../../gpu/ops/add.ts";
import { activation, type Row } from "./row.ts";

export const rows: Row[] = [
  ...[[1], [3], [4, 64], [5, 51], [257], [130, 131]].flatMap((shape): Row[] => [{
    op: "add",
    name: `(${shape})`,
    inputs: [activation(shape), activation(shape)],
    gpu: (tape, [x, y]) => add(tape, x, y),
    reference: ([x, y]) => x.map((v, i) => v + y[i]),
    tuned: true,
  }, {
    op: "scale",
    name: `(${shape})`,
    inputs: [activation(shape)],
    gpu: (tape, [x]) => scale(tape, x, -1.75),
    reference: ([x]) => x.map((v) => -1.75 * v),
    tuned: true,
  }]),
  {
    op: "add",
    name: "refuses two shapes",
    check: (gpu) => {
      const tape = new Tape(gpu);
      assert.throws(() => add(tape, gpu.empty([2, 3]), gpu.empty([3, 2])), /\(2, 3\) and \(3, 2\)/);
    },
  },
];
