/**
 * Rows of gpu/ops/rotary.ts: head widths from 2 up, rows around the 64 pairs of a workgroup, and more rows than a panel has.
 * Cosines and sines are independent numbers here, so that swapping them shows.
 */
import assert from "node:assert/strict";
import { rotaryReference } from "../../core/reference/activation.ts";
import { rotary } from "../../gpu/ops/rotary.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, constant, type Row } from "./row.ts";

const shapes = [
  [1, 1, 2],
  [1, 3, 2],
  [7, 2, 6],
  [5, 9, 14],
  [4, 2, 64],
  [3, 1, 128],
  [2, 5, 26],
  [301, 7, 8],
  [30, 20, 80],
  [2, 200, 128],
];

export const rows: Row[] = [
  ...shapes.map(([T, H, D]): Row => ({
    op: "rotary",
    name: `T ${T}, ${H} heads of ${D}`,
    inputs: [activation([T, H * D]), constant([T, D / 2]), constant([T, D / 2])],
    gpu: (tape, [x, cos, sin]) => rotary(tape, x, cos, sin),
    reference: ([x, cos, sin]) => rotaryReference(x, cos, sin, { T, H, D }),
    tuned: true,
  })),
  {
    op: "rotary",
    name: "refuses half a head",
    check: (gpu) => {
      const x = gpu.empty([2, 12]), angles = gpu.empty([2, 4]);
      assert.throws(() => rotary(new Tape(gpu), x, angles, angles), /rows of 12 into heads of 8/);
    },
  },
];
