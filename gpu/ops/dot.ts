/**
 * Inner products of pairs of tensors on the device, in a fixed order: shares to be added up in f64 on the host, so that
 * neither tensor is read back. Refuses pairs of different sizes.
 */
import { type InnerProducts, ZERO_PRODUCTS } from "../../core/study/products.ts";
import { sizeOf } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import { evenParts } from "../panels.ts";
import { rowsOf, type Tensor, viewAs } from "../tensor.ts";
import source from "./dot.wgsl" with { type: "text" };

const products = kernel("dot", source, "products", { N: "u32", first: "u32", shares: "u32" }, 2, 1);

/** Values that one invocation adds up at least, and invocations a dispatch at most. */
const SHARE_VALUES = 512, MAX_SHARES = 16384;

export interface PendingProducts {
  /** (S, 4), to be read back whenever it suits. */
  shares: Tensor;
  /** Of `shares` as read: one entry a pair, in order. */
  finish(values: ArrayLike<number>): InnerProducts[];
}

/** Records the inner products of every pair (a, b) of f32 tensors. @throws RangeError when a pair's sizes differ */
export function innerProducts(gpu: Gpu, pairs: readonly (readonly [Tensor, Tensor])[]): PendingProducts {
  const parts = pairs.map(([a, b]) => {
    const N = sizeOf(a.shape);
    if (sizeOf(b.shape) !== N) {
      throw new RangeError(`Cannot multiply ${N} values with ${sizeOf(b.shape)}`);
    }
    return evenParts(N, gpu.bindingLimit / 4, 64).map(([start, count]) => ({
      views: [a, b].map((x) => rowsOf(viewAs(x, [N, 1]), start, count)),
      count,
      shares: Math.min(MAX_SHARES, Math.ceil(count / SHARE_VALUES)),
    }));
  });
  const totals = parts.map((cut) => cut.reduce((sum, { shares }) => sum + shares, 0));
  const sums = gpu.empty([totals.reduce((a, b) => a + b, 0), 4]);
  let first = 0;
  for (const { views, count, shares } of parts.flat()) {
    gpu.run(products, { N: count, first, shares }, views, [sums], gridFor(shares));
    first += shares;
  }
  return {
    shares: sums,
    finish(values) {
      let at = 0;
      return totals.map((total) => {
        const sum = { ...ZERO_PRODUCTS };
        for (const end = at + 4 * total; at < end; at += 4) {
          sum.ab += values[at];
          sum.aa += values[at + 1];
          sum.bb += values[at + 2];
          sum.dd += values[at + 3];
        }
        return sum;
      });
    },
  };
}
