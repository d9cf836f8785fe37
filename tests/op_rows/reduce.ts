/**
 * Rows of gpu/ops/reduce.ts: heights around a strip of 32 rows, where column sums get a second stage, widths on and
 * off the vec4 path, panels of many strips and of none, overlapping groups. Empty groups, rows that are not there and mixed widths are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { columnSumReference, concatRowsReference, poolRowsReference } from "../../core/reference/rows.ts";
import { columnSum, concatRows, poolRows } from "../../gpu/ops/reduce.ts";
import { Tape } from "../../gpu/tape.ts";
import { allclose } from "../check.ts";
import { activation, parameter, type Row } from "./row.ts";

const random = new Random(4, "reduce rows");

const sums = [[0, 3], [1, 1], [31, 3], [32, 4], [33, 5], [65, 64], [1025, 12], [2000, 1], [601, 64], [
  6007,
  4,
], [33, 576]].map((
  [T, C],
): Row => ({
  op: "columnSum",
  name: `(${T}, ${C})`,
  tuned: true,
  check: async (gpu) => {
    const x = Float32Array.from({ length: T * C }, () => random.normal() + 0.5);
    const start = Float32Array.from({ length: C }, () => random.normal());
    const [plain, added, again] = [0, 1, 2].map(() => gpu.upload(start));
    const input = gpu.upload(x, [T, C]);
    columnSum(gpu, input, plain);
    columnSum(gpu, input, added, { accumulate: true });
    columnSum(gpu, input, again);
    const [first, sum, second] = await gpu.read(plain, added, again);
    const expected = columnSumReference(Float64Array.from(x), C);
    allclose("sum", first, expected, 1e-6);
    allclose("accumulated", sum, expected.map((v, c) => v + start[c]), 1e-6);
    assert.deepEqual(first, second, "two runs differ");
  },
}));

const pools = [[1, 1, 1], [5, 3, 2], [65, 64, 7], [33, 10, 40]].map(([T, C, S]): Row => {
  const groups = Array.from(
    { length: S },
    (_, s) => Uint32Array.from({ length: 1 + s % 9 }, () => random.int(T)),
  );
  return {
    op: "poolRows",
    name: `${S} groups of (${T}, ${C})`,
    inputs: [activation([T, C])],
    gpu: (tape, [x]) => poolRows(tape, x, groups),
    reference: ([x]) => poolRowsReference(x, groups, C),
    tolerance: 1e-6,
  };
});

const concats = [[[1, 1]], [[3, 5], [1, 5]], [[2, 64], [65, 64], [1, 64]]].map((shapes): Row => ({
  op: "concatRows",
  name: shapes.map((shape) => `(${shape})`).join(" "),
  inputs: shapes.map((shape) => activation(shape)),
  gpu: (tape, xs) => concatRows(tape, xs),
  reference: (xs) => concatRowsReference(xs),
  tolerance: 0,
}));

export const rows: Row[] = [
  ...sums,
  ...pools,
  ...concats,
  {
    op: ["poolRows", "concatRows"],
    name: "of trained parameters",
    inputs: [parameter([6, 4]), parameter([1, 4])],
    gpu: (tape, [x, token]) => concatRows(tape, [token, poolRows(tape, x, [Uint32Array.of(5, 1)]), token]),
    reference: ([x, token]) => concatRowsReference([token, poolRowsReference(x, [[5, 1]], 4), token]),
  },
  {
    op: ["columnSum", "poolRows", "concatRows"],
    name: "refuse what does not fit",
    check: (gpu) => {
      const tape = new Tape(gpu), x = gpu.empty([3, 5]);
      assert.throws(() => columnSum(gpu, x, gpu.empty([3])), /C is 3, expected 5/);
      assert.throws(() => poolRows(tape, x, [Uint32Array.of(0), new Uint32Array()]), /group 1 of 2 is empty/);
      assert.throws(() => poolRows(tape, x, [Uint32Array.of(3)]), /row 3 \(index 0\): there are 3 rows/);
      assert.throws(() => concatRows(tape, [x, gpu.empty([3, 4])]), /C is 5, expected 4/);
      assert.throws(() => concatRows(tape, []), /no tensor/);
    },
  },
];
