/**
 * Cuts a matrix into blocks of columns that lie in memory one after the other, so that panels can show square parts
 * of a wide matrix. Refuses rows that are no multiple of 16 bytes.
 */
import { dims } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import { byteLength, type Tensor, tensorOver } from "../tensor.ts";
import source from "./pack.wgsl" with { type: "text" };

const pack = kernel("pack", source, "pack", { R: "u32", C: "u32", width: "u32" }, 1, 1);

/** Columns of a block: a row of it takes 256 bytes (bf16) or 512, and a panel shows 256 or 128 rows. */
export const BLOCK = 128;

/** x (R, C) -> temporaries (R, 128), the last (R, up to 128). @throws RangeError when a row is no multiple of 16 bytes */
export function packColumns(gpu: Gpu, x: Tensor): Tensor[] {
  const { R, C } = dims("R C", x);
  const rowBytes = byteLength([1, C], x.dtype), blockBytes = byteLength([1, BLOCK], x.dtype);
  if (rowBytes % 16 !== 0) {
    throw new RangeError(`Cannot pack rows of ${rowBytes} bytes: expected a multiple of 16`);
  }
  const packed = gpu.empty([R, C], x.dtype);
  const sizes = { R, C: rowBytes / 16, width: blockBytes / 16 };
  gpu.run(pack, sizes, [x], [packed], gridFor(R * rowBytes / 16));
  return Array.from({ length: Math.ceil(C / BLOCK) }, (_, b) => {
    const columns = Math.min(BLOCK, C - b * BLOCK);
    return tensorOver(packed.buffer, [R, columns], x.dtype, b * R * blockBytes);
  });
}
