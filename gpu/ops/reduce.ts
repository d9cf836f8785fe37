/**
 * Sums of columns, means over groups of rows, and tensors put one under another. Sums have a fixed order.
 * Refuses an empty group, a row that is not there and tensors of different widths.
 */
import { dims, sizeOf } from "../../core/shape.ts";
import { sparseRows } from "../../core/sparse_rows.ts";
import { type Gpu, gridFor } from "../device.ts";
import { rowPanels, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, type Tensor, viewAs } from "../tensor.ts";
import { rowWindows } from "../windows.ts";
import source from "./reduce.wgsl" with { type: "text" };
import { sparseGradient, sparseProduct } from "./sparse_rows.ts";

const sizes = { T: "u32", C: "u32", height: "u32", strip0: "u32" } as const;
const columns4 = twins("reduce", source, "columns4", sizes, 1, 1);
const columns1 = twins("reduce", source, "columns1", sizes, 1, 1).storage;

/** Rows that one invocation adds up at least before a second stage pays. */
const STRIP_ROWS = 32;

/** Writes the sum of each column of x (T, C) into out (C), or adds it. @throws RangeError when the widths differ */
export function columnSum(
  gpu: Gpu,
  x: Tensor,
  out: Tensor,
  { accumulate = false }: { accumulate?: boolean } = {},
): void {
  const { T, C } = dims("T C", x, "C", out);
  if (T === 0 && !accumulate) gpu.zero(out);
  const width = C % 4 === 0 ? 4 : 1, storage = width === 4 ? columns4.storage : columns1;
  const ACCUMULATE = accumulate ? 1 : 0;
  const height = Math.max(STRIP_ROWS, Math.ceil(Math.sqrt(T))), strips = Math.ceil(T / height);
  const stage = (T: number, height: number, x: Tensor, out: Tensor, ACCUMULATE: number) => {
    const panels = rowPanels(gpu, T, C, height);
    for (const [first, rows] of panels ?? rowWindows(gpu, [x], { unit: height })) {
      const sizes = { T: rows, C: C / width, height, strip0: first / height };
      const grid = gridFor(Math.ceil(rows / height) * C / width);
      gpu.run(panels ? columns4.panel : storage, sizes, [rowsOf(x, first, rows)], [out], grid, {
        ACCUMULATE,
      });
    }
  };
  if (strips <= 1) return stage(T, height, x, out, ACCUMULATE);
  using _scope = gpu.pool.scope();
  const shares = gpu.empty([strips, C]);
  stage(T, height, x, shares, 0);
  stage(strips, strips, shares, out, ACCUMULATE);
}

/**
 * Row s of the result (S, C) is the mean of the rows groups[s] of x (T, C); groups may overlap.
 * @throws RangeError for an empty group and for a row beyond T-1
 */
export function poolRows(tape: Tape, x: Tensor, groups: readonly Uint32Array[]): Tensor {
  const { T, C } = dims("T C", x);
  const empty = groups.findIndex(({ length }) => length === 0);
  if (empty >= 0) throw new RangeError(`Cannot pool rows: group ${empty} of ${groups.length} is empty`);
  const matrix = sparseRows(groups, T, (s) => 1 / groups[s].length);
  const y = tape.empty([groups.length, C]);
  sparseProduct(tape.gpu, matrix, x, y);
  tape.gpu.trace?.op("pool", [x], y, { groups });
  return tape.record(y, [x], (dy) => [sparseGradient(tape.gpu, matrix, x, dy)]);
}

/** All rows of the xs (Ti, C), one tensor after another: (sum of Ti, C). @throws RangeError when widths differ */
export function concatRows(tape: Tape, xs: readonly Tensor[]): Tensor {
  const { gpu } = tape;
  if (xs.length === 0) throw new RangeError("Cannot concatenate the rows of no tensor");
  const C = xs[0].shape[1];
  for (const x of xs) dims("T C", x, "C", { shape: [C] });
  const y = tape.empty([xs.reduce((T, { shape }) => T + shape[0], 0), C]);
  const starts: number[] = [];
  xs.reduce((first, { shape }) => (starts.push(first), first + shape[0]), 0);
  // These views are for copies only: a binding would need starts in steps of 256 bytes.
  const part = (whole: Tensor, i: number) => rowsOf(whole, starts[i], xs[i].shape[0]);
  xs.forEach((x, i) => gpu.copy(x, part(y, i)));
  return tape.record(y, xs, (dy) =>
    xs.map((x, i) => {
      if (!x.requiresGrad) return undefined;
      const dx = tape.empty(x.shape);
      gpu.copy(part(dy, i), dx);
      if (!x.grad) return dx;
      const N = sizeOf(x.shape); // one row of N columns: the sum is the row itself
      columnSum(gpu, viewAs(dx, [1, N]), viewAs(x.grad, [N]), { accumulate: true });
      return undefined;
    }));
}
