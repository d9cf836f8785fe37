/**
 * Rows of an NF4 matrix decoded to f32, for kernels that read panels; the tile product decodes on its own.
 * Refuses what is not NF4.
 */
import { sizeOf } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import { NF4_STEP, type Tensor } from "../tensor.ts";
import values from "./nf4.wgsl" with { type: "text" };
import source from "./nf4_decode.wgsl" with { type: "text" };

const decode = kernel("nf4", values + source, "decode", { N: "u32", first: "u32", skip: "u32" }, 2, 1);

/** w (N, K) nf4, or some rows of such a matrix -> a temporary (N, K) f32. @throws RangeError for another type */
export function decodeNf4(gpu: Gpu, w: Tensor): Tensor {
  if (!w.nf4) throw new RangeError(`Cannot decode ${w.dtype} as nf4`);
  const { scales, first } = w.nf4, N = sizeOf(w.shape);
  const out = gpu.empty(w.shape);
  gpu.run(decode, { N, first, skip: first % NF4_STEP }, [w, scales], [out], gridFor(Math.ceil(N / 8)));
  return out;
}
