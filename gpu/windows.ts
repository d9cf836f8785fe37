/**
 * Windows: rows of matrices that fit into one storage binding, for products and sums over what is larger than that.
 * Refuses a matrix of which not even the fewest rows that may start a binding fit.
 */
import { InputError } from "../core/errors.ts";
import type { Gpu } from "./device.ts";
import { evenParts } from "./panels.ts";
import { byteLength, NF4_STEP, rowStep, type Tensor } from "./tensor.ts";

export interface WindowOptions {
  /** Bytes of a window, the device's limit of a binding by default. */
  limit?: number;
  /** Windows start at multiples of so many rows. */
  unit?: number;
}

/**
 * Cuts the rows of matrices, as many in each, into the fewest windows [first, rows] that show a part of every one.
 * @throws InputError when a single step of rows is too large
 */
export function rowWindows(
  gpu: Gpu,
  xs: readonly Tensor[],
  { limit = gpu.bindingLimit, unit = 1 }: WindowOptions = {},
): [number, number][] {
  const T = xs[0].shape[0];
  if (xs.every(({ bytes }) => bytes <= limit)) return [[0, T]];
  const aligned = Math.max(...xs.map(firstStep)), most = Math.min(...xs.map((x) => fitting(x, limit)));
  let step = unit;
  while (step % aligned) step *= 2; // `aligned` is a power of two
  if (most < step) {
    const shapes = xs.map(({ shape }) => `(${shape.join(", ")})`).join(" and ");
    throw new InputError(
      `Cannot cut ${shapes} into windows of ${step} rows: the device binds ${limit} bytes`,
    );
  }
  return evenParts(T, most, step);
}

/** Whether windows of `rows` rows of x fit into a binding. */
export function windowFits(gpu: Gpu, x: Tensor, rows: number): boolean {
  return x.bytes <= gpu.bindingLimit || fitting(x, gpu.bindingLimit) >= rows;
}

function fitting({ shape: [, C], dtype }: Tensor, limit: number): number {
  if (dtype === "nf4") return Math.floor((2 * limit - NF4_STEP) / C);
  return Math.floor(limit / byteLength([1, C], dtype));
}

function firstStep({ shape: [, C], dtype }: Tensor): number {
  return dtype === "nf4" ? 1 : rowStep(byteLength([1, C], dtype));
}
