/**
 * A tensor: a shape over (a part of) a pooled buffer. It owns nothing: scopes, parameters and slabs own buffers.
 * Refuses a reshape that changes the number of elements.
 */
import { nf4CodeBytes } from "../core/formats/nf4.ts";
import { sizeOf } from "../core/shape.ts";
import type { PoolBuffer } from "./pool.ts";

/** bf16 is packed two to a 32-bit word, the lower half first; nf4 eight, in bytes as core/formats/nf4.ts fills them. */
export type Dtype = "f32" | "u32" | "bf16" | "nf4";

export interface Tensor {
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly buffer: PoolBuffer;
  /** Byte offset and length inside the buffer; offsets are multiples of 256. */
  readonly offset: number;
  readonly bytes: number;
  /** True for trained parameters and for whatever was computed from something that needs a gradient. */
  requiresGrad: boolean;
  /** Of a trained parameter: where its gradient is added up. Ops add to it, `zeroGrad` clears it. */
  grad?: Tensor;
  /** Of nf4 codes: the scales of the whole matrix, and which of its values the first one here is. */
  readonly nf4?: { readonly scales: Tensor; readonly first: number };
}

/** Views of nf4 codes start at multiples of so many values of their matrix, at 256 bytes, and may skip some. */
export const NF4_STEP = 512;

/** Bytes that a shape takes, whole 32-bit words. */
export function byteLength(shape: readonly number[], dtype: Dtype): number {
  if (dtype === "nf4") return nf4CodeBytes(sizeOf(shape));
  return dtype === "bf16" ? Math.ceil(sizeOf(shape) / 2) * 4 : sizeOf(shape) * 4;
}

/** A tensor over the start of a buffer. */
export function tensorOver(
  buffer: PoolBuffer,
  shape: readonly number[],
  dtype: Dtype = "f32",
  offset = 0,
): Tensor {
  return { shape, dtype, buffer, offset, bytes: byteLength(shape, dtype), requiresGrad: false };
}

/** The same elements under another shape, without gradients: ops use `tape.reshape`. @throws RangeError when sizes differ */
export function viewAs(x: Tensor, shape: readonly number[]): Tensor {
  if (sizeOf(shape) !== sizeOf(x.shape)) {
    throw new RangeError(`Cannot view the shape (${x.shape.join(", ")}) as (${shape.join(", ")})`);
  }
  return { ...x, shape, grad: x.grad && viewAs(x.grad, shape) };
}

/** Some rows of a matrix, where they lie in the buffer; the start must be a multiple of 256 bytes, but for nf4. */
export function rowsOf(x: Tensor, start: number, count: number): Tensor {
  const [, C] = x.shape;
  if (x.nf4) return nf4Rows(x, x.nf4, start, count);
  return {
    shape: [count, C],
    dtype: x.dtype,
    buffer: x.buffer,
    offset: x.offset + byteLength([start, C], x.dtype),
    bytes: byteLength([count, C], x.dtype),
    requiresGrad: false,
  };
}

function nf4Rows(
  x: Tensor,
  { scales, first }: NonNullable<Tensor["nf4"]>,
  start: number,
  count: number,
): Tensor {
  const [, C] = x.shape, at = first + start * C, skipped = at % NF4_STEP;
  return {
    shape: [count, C],
    dtype: "nf4",
    buffer: x.buffer,
    offset: x.offset + (at - skipped - (first - first % NF4_STEP)) / 2,
    bytes: nf4CodeBytes(skipped + count * C),
    requiresGrad: false,
    nf4: { scales, first: at },
  };
}

/** The fewest rows of `rowBytes` bytes that end at a multiple of 256 bytes: where `rowsOf` may start. */
export function rowStep(rowBytes: number): number {
  let step = 256;
  while (step > 1 && rowBytes * (step / 2) % 256 === 0) step /= 2;
  return step;
}
