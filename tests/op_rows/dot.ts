/**
 * Rows of gpu/ops/dot.ts: pairs of awkward sizes, what lies in the padding, tensors cut by the binding limit, and
 * nearly equal ones. Pairs of different sizes are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { innerProductsReference } from "../../core/reference/dot.ts";
import { cosineOf } from "../../core/study/products.ts";
import { Gpu } from "../../gpu/device.ts";
import { innerProducts } from "../../gpu/ops/dot.ts";
import { rowsOf, viewAs } from "../../gpu/tensor.ts";
import { allclose } from "../check.ts";
import type { Row } from "./row.ts";

const SIZES = [1, 3, 4, 64, 513, 1030, 40_001];
const draw = (name: string, N: number) => {
  const random = new Random(3, name);
  return Float32Array.from({ length: N }, () => random.normal());
};

async function compare(gpu: Gpu, sizes: readonly number[]) {
  const a = sizes.map((N) => draw(`a ${N}`, N)), b = sizes.map((N) => draw(`b ${N}`, N));
  const { shares, finish } = innerProducts(gpu, a.map((x, i) => [gpu.upload(x), gpu.upload(b[i])]));
  const found = finish((await gpu.read(shares))[0]);
  found.forEach(({ ab, aa, bb, dd }, i) => {
    const expected = innerProductsReference(a[i], b[i]);
    // A sum of both signs is compared with the size of what was added.
    const size = Math.sqrt(expected[1] * expected[2]);
    assert(Math.abs(ab - expected[0]) <= 1e-6 * size, `a . b of ${sizes[i]}: ${ab}, expected ${expected[0]}`);
    allclose(`norms of ${sizes[i]}`, [aa, bb, dd], expected.subarray(1), 1e-6);
  });
}

export const rows: Row[] = [{
  op: "innerProducts",
  name: `pairs of ${SIZES.join(", ")}`,
  check: (gpu) => compare(gpu, SIZES),
}, {
  op: "innerProducts",
  name: "cut by the binding limit",
  check: async (gpu) => {
    const small = new Gpu(gpu.device, gpu.adapter, 4096);
    using _scope = small.pool.scope();
    await compare(small, [1030, 40_001]);
  },
}, {
  op: "innerProducts",
  name: "without what lies behind the last value",
  check: async (gpu) => {
    const whole = gpu.upload(new Float32Array(8).fill(2)), part = rowsOf(viewAs(whole, [8, 1]), 0, 5);
    const { shares, finish } = innerProducts(gpu, [[part, part]]);
    assert.deepEqual(finish((await gpu.read(shares))[0]), [{ ab: 20, aa: 20, bb: 20, dd: 0 }]);
  },
}, {
  op: "innerProducts",
  name: "nearly equal tensors keep the digits of their difference",
  check: async (gpu) => {
    const a = draw("a", 5000), noise = draw("noise", 5000), b = a.map((v, i) => v + 1e-4 * noise[i]);
    const { shares, finish } = innerProducts(gpu, [[gpu.upload(a), gpu.upload(b)]]);
    const [found] = finish((await gpu.read(shares))[0]);
    const [ab, aa, bb] = innerProductsReference(a, b);
    allclose("1 - cosine", [1 - cosineOf(found)!], [1 - ab / Math.sqrt(aa * bb)], 1e-4);
  },
}, {
  op: "innerProducts",
  name: "refuses pairs of different sizes",
  check: (gpu) => {
    const wrong = () =>
      innerProducts(gpu, [[gpu.upload(new Float32Array(4)), gpu.upload(new Float32Array(5))]]);
    assert.throws(wrong, /Cannot multiply 4 values with 5/);
  },
}];
