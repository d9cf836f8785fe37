/**
 * Rows of gpu/ops/matmul.ts and pack.ts: shapes around register blocks (8, 16), tiles (64), panels and packed blocks
 * (128), odd widths that take the tiles, f32 and bf16 weights, factor, bias and accumulation.
 */
import assert from "node:assert/strict";
import { dequantizeNf4, packScales, quantizeNf4 } from "../../core/formats/nf4.ts";
import { toBf16, toF32 } from "../../core/formats/safetensors.ts";
import { Random } from "../../core/random.ts";
import {
  matmulNNReference,
  matmulNTReference,
  type MatmulShape,
  matmulTNReference,
} from "../../core/reference/matmul.ts";
import { matmulNN, matmulNT, type MatmulOptions, matmulTN } from "../../gpu/ops/matmul.ts";
import { decodeNf4 } from "../../gpu/ops/nf4.ts";
import { packColumns } from "../../gpu/ops/pack.ts";
import { Gpu } from "../../gpu/device.ts";
import { nf4Bytes, nf4Over, nf4Writer } from "../../gpu/nf4.ts";
import { type Dtype, rowsOf, type Tensor } from "../../gpu/tensor.ts";
import { allclose } from "../check.ts";
import type { Row } from "./row.ts";

type Product = (gpu: Gpu, a: Tensor, b: Tensor, out: Tensor, options?: MatmulOptions) => void;
type Reference = (a: Float64Array, b: Float64Array, shape: MatmulShape) => Float64Array;
type Shape = readonly [number, number];

const random = new Random(5, "matmul rows");
const normal = (shape: Shape) => Float32Array.from({ length: shape[0] * shape[1] }, () => random.normal());

/** A temporary with normal values as this type keeps them, and those values. */
function weight(gpu: Gpu, shape: Shape, dtype: Dtype): { tensor: Tensor; held: Float32Array } {
  const values = normal(shape);
  if (dtype === "nf4") {
    const tensor = nf4Over(gpu.pool.scoped(nf4Bytes(shape)), shape), writer = nf4Writer(gpu, tensor);
    writer.write(values);
    writer.finish();
    return { tensor, held: throughNf4(values) };
  }
  const tensor = gpu.empty(shape, dtype), packed = toBf16(values);
  gpu.write(tensor, dtype === "f32" ? values : packed);
  return { tensor, held: dtype === "f32" ? values : toF32(new Uint8Array(packed.buffer), "BF16") };
}

function throughNf4(values: Float32Array): Float32Array {
  const codes = new Uint8Array(Math.ceil(values.length / 2));
  const absmax = new Float32Array(Math.ceil(values.length / 64));
  quantizeNf4(values, codes, absmax);
  return dequantizeNf4(codes, packScales(absmax), values.length);
}

interface Case {
  op: string;
  product: Product;
  reference: Reference;
  a: Shape;
  b: Shape;
  out: Shape;
  sizes: MatmulShape;
  dtype?: Dtype;
}

function row({ op, product, reference, a, b, out, sizes, dtype = "f32" }: Case): Row {
  return {
    op,
    name: `(${a}) and ${dtype} (${b})`,
    tuned: true,
    check: async (gpu) => {
      const x = normal(a), start = normal(out), bias = normal([1, out[1]]);
      const left = gpu.upload(x, a), { tensor: right, held: y } = weight(gpu, b, dtype);
      const results = [0, 1, 2, 3].map(() => gpu.upload(start, out));
      product(gpu, left, right, results[0]);
      product(gpu, left, right, results[1], { alpha: -0.5, accumulate: true });
      product(gpu, left, right, results[2]);
      if (op === "matmulNT") product(gpu, left, right, results[3], { alpha: 2, bias: gpu.upload(bias) });
      const [plain, added, again, shifted] = await gpu.read(...results);
      const truth = reference(Float64Array.from(x), Float64Array.from(y), sizes);
      allclose("product", plain, truth, 1e-6);
      allclose("accumulated", added, truth.map((v, i) => start[i] - 0.5 * v), 1e-6);
      assert.deepEqual(plain, again, "two runs differ");
      if (op === "matmulNT") {
        allclose("with bias", shifted, truth.map((v, i) => 2 * v + bias[i % out[1]]), 1e-6);
      }
    },
  };
}

/** Rows T, columns N of dy, columns K of x. */
const shapes = [
  [1, 1, 1],
  [3, 5, 7],
  [17, 7, 4],
  [16, 8, 8],
  [33, 12, 64],
  [129, 36, 20],
  [7, 68, 300],
  [
    131,
    260,
    136,
  ],
  [5, 132, 520],
  [65, 63, 65],
];

const all = shapes.flatMap(([T, N, K]): Case[] => {
  const sizes = { T, N, K }, x: Shape = [T, K], w: Shape = [N, K], dy: Shape = [T, N];
  const nt = { op: "matmulNT", product: matmulNT, reference: matmulNTReference, a: x, b: w, out: dy, sizes };
  const nn = { op: "matmulNN", product: matmulNN, reference: matmulNNReference, a: dy, b: w, out: x, sizes };
  const tn = { op: "matmulTN", product: matmulTN, reference: matmulTNReference, a: dy, b: x, out: w, sizes };
  const packed = (["bf16", "nf4"] as const).flatMap((dtype) => [{ ...nt, dtype }, { ...nn, dtype }]);
  return [nt, nn, tn, ...packed];
});

export const rows: Row[] = [
  ...all.map(row),
  ...[[1, 4], [3, 128], [5, 132], [2, 516]].map(([R, C]): Row => ({
    op: "packColumns",
    name: `(${R}, ${C})`,
    check: async (gpu) => {
      const x = Float32Array.from({ length: R * C }, (_, i) => i);
      const blocks = packColumns(gpu, gpu.upload(x, [R, C]));
      const parts = await gpu.read(...blocks);
      parts.forEach((part, b) => {
        const columns = blocks[b].shape[1];
        const expected = Float32Array.from(
          part,
          (_, i) => Math.floor(i / columns) * C + b * 128 + i % columns,
        );
        assert.deepEqual(part, expected, `block ${b}`);
      });
      assert.equal(parts.reduce((sum, part) => sum + part.length, 0), R * C);
    },
  })),
  ...[[3, 64], [9, 520], [7, 33]].map(([R, C]): Row => ({
    op: "decodeNf4",
    name: `(${R}, ${C}) and its rows`,
    check: async (gpu) => {
      const { tensor, held } = weight(gpu, [R, C], "nf4");
      const some = rowsOf(rowsOf(tensor, 1, R - 1), 1, R - 2);
      const [whole, part] = await gpu.read(decodeNf4(gpu, tensor), decodeNf4(gpu, some));
      allclose("decoded", whole, held, 1e-7);
      assert.deepEqual(part, whole.slice(2 * C), "rows");
    },
  })),
  // 160 KiB hold a packed block's 128 rows, 32 KiB do not; everything is larger, and so are the 4-bit codes for 32.
  ...[32, 160].map((kib): Row => ({
    op: ["matmulNT", "matmulNN", "matmulTN"],
    name: `cut to bindings of ${kib} KiB`,
    tuned: true,
    check: async (gpu) => {
      const limited = new Gpu(gpu.device, gpu.adapter, kib * 1024), T = 130, N = 300, K = 264;
      const x = gpu.upload(normal([T, K]), [T, K]), dy = gpu.upload(normal([T, N]), [T, N]);
      const bias = gpu.upload(normal([1, N]));
      const run = (on: Gpu) => {
        using scope = on.pool.scope();
        const out = (rows: number, columns: number, into: (out: Tensor) => void) => {
          const tensor = gpu.upload(start.subarray(0, rows * columns), [rows, columns]);
          into(tensor);
          on.submit();
          return scope.keep(tensor);
        };
        return [
          ...weights.flatMap((w) => [
            out(T, N, (to) => matmulNT(on, x, w, to, { bias })),
            out(T, K, (to) => matmulNN(on, dy, w, to, { alpha: 0.5, accumulate: true })),
          ]),
          out(N, K, (to) => matmulTN(on, dy, x, to)),
          out(N, K, (to) => matmulTN(on, dy, x, to, { accumulate: true })),
        ];
      };
      const start = normal([N, K]);
      const weights = (["f32", "bf16", "nf4"] as const).map((dtype) => weight(gpu, [N, K], dtype).tensor);
      gpu.submit();
      const whole = run(gpu), dispatches = limited.dispatches, cut = run(limited);
      assert(limited.dispatches - dispatches > cut.length, "something was cut");
      const values = await gpu.read(...whole, ...cut);
      whole.forEach((_, i) => allclose(`product ${i}`, values[whole.length + i], values[i], 1e-6));
      await limited.check();
    },
  })),
  {
    op: ["matmulNT", "packColumns"],
    name: "refuse what does not fit",
    check: (gpu) => {
      const x = gpu.empty([3, 5]), w = gpu.empty([4, 6]);
      assert.throws(() => matmulNT(gpu, x, w, gpu.empty([3, 4])), /K is 6, expected 5/);
      assert.throws(() => packColumns(gpu, x), /rows of 20 bytes/);
      assert.throws(() => decodeNf4(gpu, x), /decode f32 as nf4/);
    },
  },
];
