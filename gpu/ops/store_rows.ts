/**
 * Rows written to chosen places of two longer tensors: how new keys and values enter a cache.
 * Refuses rows whose width is no multiple of 4 and a place that is not there.
 */
import { dims } from "../../core/shape.ts";
import { checkIndices } from "../../core/sparse_rows.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tensor } from "../tensor.ts";
import source from "./store_rows.wgsl" with { type: "text" };

const store = kernel("store_rows", source, "store", { M: "u32", C4: "u32" }, 3, 2);

/**
 * Row m of k and v (M, C) becomes row places[m] of toK and toV (N, C); `list` holds the places on the device.
 * @throws RangeError when the shapes or places do not fit
 */
export function storeRows(
  gpu: Gpu,
  [k, v]: readonly [Tensor, Tensor],
  [toK, toV]: readonly [Tensor, Tensor],
  places: Uint32Array,
  list: Tensor,
): void {
  const { M, C, N } = dims("M C", k, "M C", v, "N C", toK, "N C", toV, "M", list);
  if (C % 4 !== 0) throw new RangeError(`Cannot store rows of ${C} values: expected a multiple of 4`);
  checkIndices(places, N);
  gpu.run(store, { M, C4: C / 4 }, [list, k, v], [toK, toV], gridFor(M * C / 4));
}
