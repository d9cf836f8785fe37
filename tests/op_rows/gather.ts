/**
 * Rows of gpu/ops/gather.ts and of the sparse products behind their gradients: widths on and off the vec4 path,
 * packed tables, rows read many times or never. Indices out of range and features used twice are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { gatherRowsReference, mergeRowsReference } from "../../core/reference/rows.ts";
import { bicubicTable } from "../../core/resample_table.ts";
import { sparseRows, transposeRows } from "../../core/sparse_rows.ts";
import { gatherRows, mergeRows } from "../../gpu/ops/gather.ts";
import { mixRows, sparseProduct } from "../../gpu/ops/sparse_rows.ts";
import { Tape } from "../../gpu/tape.ts";
import { allclose } from "../check.ts";
import { activation, constant, parameter, type Row } from "./row.ts";

const random = new Random(3, "gather rows");
/** Reads some rows often and leaves others out. */
const someOf = (N: number, M: number) => Uint32Array.from({ length: M }, () => random.int(N) & random.int(N));

const tables: [N: number, C: number, M: number][] = [[1, 1, 1], [1, 3, 5], [7, 4, 1], [9, 64, 33], [
  65,
  130,
  7,
]];

const gathers = tables.flatMap(([N, C, M]): Row[] => {
  const index = someOf(N, M);
  return [activation([N, C]), parameter([N, C])].map((table): Row => ({
    op: ["gatherRows", "sparseGradient"],
    name: `${M} rows of ${table.kind} (${N}, ${C})`,
    inputs: [table],
    gpu: (tape, [x]) => gatherRows(tape, x, index),
    reference: ([x]) => gatherRowsReference(x, index, C),
    tolerance: 0,
  }));
});

const packed = [2, 6, 64].map((C): Row => {
  const index = someOf(5, 9);
  return {
    op: "gatherRows",
    name: `9 rows of bf16 (5, ${C})`,
    inputs: [constant([5, C], { dtype: "bf16" })],
    gpu: (tape, [x]) => gatherRows(tape, x, index),
    reference: ([x]) => gatherRowsReference(x, index, C),
    tolerance: 0,
  };
});

const merges = [[1, 1, 1], [6, 4, 4], [65, 10, 7], [16, 64, 20]].map(([T, P, C]): Row => {
  const order = random.shuffle(Array.from({ length: P }, (_, p) => p));
  const source = Int32Array.from({ length: T }, () => random.int(3) ? order.pop() ?? -1 : -1);
  if (T === 1) source[0] = 0;
  return {
    op: "mergeRows",
    name: `(${T}, ${C}) with ${source.filter((p) => p >= 0).length} of ${P}`,
    inputs: [activation([T, C]), activation([P, C])],
    gpu: (tape, [base, features]) => mergeRows(tape, base, features, source),
    reference: ([base, features]) => mergeRowsReference(base, features, source, C),
    tolerance: 0,
  };
});

const windows = [activation([100, 6]), activation([100, 64]), constant([200, 6], { dtype: "bf16" })].map(
  (table): Row => {
    const [N, C] = table.shape, index = Uint32Array.from({ length: 50 }, () => random.int(N));
    return {
      op: "gatherRows",
      name: `of ${table.dtype} (${N}, ${C}) through windows of 2 KiB`,
      inputs: [table],
      gpu: (tape, [x]) => gatherRows(tape, x, index, { window: 2048 }),
      reference: ([x]) => gatherRowsReference(x, index, C),
      tolerance: 0,
    };
  },
);

export const rows: Row[] = [
  ...gathers,
  ...packed,
  ...windows,
  ...merges,
  {
    op: "mergeRows",
    name: "of a trained base and trained features",
    inputs: [parameter([4, 8]), parameter([3, 8])],
    gpu: (tape, [base, features]) => mergeRows(tape, base, features, Int32Array.of(-1, 2, -7, 0)),
    reference: ([base, features]) => mergeRowsReference(base, features, [-1, 2, -1, 0], 8),
  },
  ...[3, 8].map((C): Row => ({
    op: "sparseProduct",
    name: `with weights, (4, 5) by (5, ${C})`,
    check: async (gpu) => {
      const matrix = sparseRows([[4, 0, 4], [], [1], [3, 2]], 5, (r) => 0.5 + r);
      const dense = new Float64Array(20);
      dense.set([0.5, 0, 0, 0, 1]);
      [dense[11], dense[17], dense[18]] = [2.5, 3.5, 3.5];
      const x = Float32Array.from({ length: 5 * C }, () => random.normal());
      const start = Float32Array.from({ length: 4 * C }, () => random.normal());
      const product = (r: number, c: number) =>
        [0, 1, 2, 3, 4].reduce((sum, n) => sum + dense[r * 5 + n] * x[n * C + c], 0);
      const expected = start.map((_, i) => product(Math.floor(i / C), i % C));
      const out = gpu.upload(start, [4, C]), sum = gpu.upload(start, [4, C]), input = gpu.upload(x, [5, C]);
      const turned = gpu.upload(start, [4, C]);
      sparseProduct(gpu, matrix, input, out);
      sparseProduct(gpu, matrix, input, sum, { accumulate: true });
      sparseProduct(gpu, transposeRows(transposeRows(matrix)), input, turned);
      const [plain, added, twice] = await gpu.read(out, sum, turned);
      allclose("product", plain, expected, 1e-6);
      allclose("accumulated", added, expected.map((v, i) => v + start[i]), 1e-6);
      assert.deepEqual(added.subarray(C, 2 * C), start.subarray(C, 2 * C), "a row without entries changed");
      allclose("transposed twice", twice, expected, 1e-6);
    },
  })),
  ...[[3, 5, 1], [4, 2, 8], [16, 18, 12]].map(([from, to, C]): Row => {
    const matrix = bicubicTable(from, to);
    return {
      op: "mixRows",
      name: `a table of ${from} x ${from} resampled to ${to} x ${to}, width ${C}`,
      inputs: [parameter([from * from, C])],
      gpu: (tape, [x]) => mixRows(tape, matrix, x),
      reference: ([x]) =>
        Float64Array.from({ length: to * to * C }, (_, i) => {
          let sum = 0;
          for (let e = matrix.starts[Math.floor(i / C)]; e < matrix.starts[Math.floor(i / C) + 1]; e++) {
            sum += matrix.weights![e] * x[matrix.entries[e] * C + i % C];
          }
          return sum;
        }),
    };
  }),
  {
    op: ["gatherRows", "mergeRows", "sparseProduct"],
    name: "refuse rows that are not there",
    check: (gpu) => {
      const tape = new Tape(gpu), x = gpu.empty([3, 5]), odd = gpu.empty([3, 5], "bf16");
      assert.throws(() => gatherRows(tape, x, Uint32Array.of(1, 3)), /row 3 \(index 1\): there are 3 rows/);
      assert.throws(() => gatherRows(tape, odd, Uint32Array.of(1)), /bf16 table \(3, 5\)/);
      assert.throws(() => mergeRows(tape, x, x, Int32Array.of(0, -1)), /2 sources, expected 3/);
      assert.throws(() => mergeRows(tape, x, x, Int32Array.of(0, -1, 3)), /row 3 \(index 2\)/);
      assert.throws(() => mergeRows(tape, x, x, Int32Array.of(2, 2, -1)), /feature row 2 is used twice/);
      assert.throws(
        () => sparseProduct(gpu, sparseRows([[0]], 2), x, x),
        /\(1, 2\) by \(3, 5\) into \(3, 5\)/,
      );
    },
  },
];
