/**
 * Products of a sparse matrix of rows with a tensor: what gathers, merges and pools go back by.
 * Refuses tensors whose rows are not those of the matrix.
 */
import { type SparseRows, transposeRows } from "../../core/sparse_rows.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, type Tensor } from "../tensor.ts";
import { rowWindows } from "../windows.ts";
import source from "./sparse_rows.wgsl" with { type: "text" };

const sizes = { R: "u32", C: "u32", E: "u32" } as const;
const product4 = kernel("sparse_rows", source, "product4", sizes, 2, 1);
const product1 = kernel("sparse_rows", source, "product1", sizes, 2, 1);

/** out (R, C) = S (R, N) x (N, C), or out += S x, which leaves rows without entries untouched. @throws RangeError */
export function sparseProduct(
  gpu: Gpu,
  matrix: SparseRows,
  x: Tensor,
  out: Tensor,
  { accumulate = false }: { accumulate?: boolean } = {},
): void {
  const [N, C] = x.shape, rows = matrix.starts.length - 1;
  if (N !== matrix.columns || out.shape[0] !== rows || out.shape[1] !== C) {
    throw new RangeError(
      `Cannot multiply a sparse (${rows}, ${matrix.columns}) by (${x.shape.join(", ")}) into (${
        out.shape.join(", ")
      })`,
    );
  }
  const windows = rowWindows(gpu, [out]);
  if (windows.length > 1) {
    for (const [first, count] of windows) {
      sparseProduct(gpu, cutRows(matrix, first, count), x, rowsOf(out, first, count), { accumulate });
    }
    return;
  }
  const { R, words } = pack(matrix, accumulate);
  const E = matrix.entries.length, WEIGHTED = matrix.weights ? 1 : 0, ACCUMULATE = accumulate ? 1 : 0;
  const width = C % 4 === 0 ? 4 : 1;
  using _scope = gpu.pool.scope();
  gpu.run(
    width === 4 ? product4 : product1,
    { R, C: C / width, E },
    [gpu.upload(words), x],
    [out],
    gridFor(R * C / width),
    { WEIGHTED, ACCUMULATE },
  );
}

/** S x for x (N, C): rows (R, C) mixed by the weights of S, as a resampled table is. @throws RangeError */
export function mixRows(tape: Tape, matrix: SparseRows, x: Tensor): Tensor {
  const y = tape.empty([matrix.starts.length - 1, x.shape[1]]);
  sparseProduct(tape.gpu, matrix, x, y);
  tape.gpu.trace?.op("mix", [x], y, { matrix });
  return tape.record(y, [x], (dy) => [sparseGradient(tape.gpu, matrix, x, dy)]);
}

/**
 * The gradient S^T dy of x in y = S x: returned for an activation, added to `x.grad` for a trained parameter (rows
 * that S does not read stay untouched), neither computed nor listed where x needs none.
 */
export function sparseGradient(gpu: Gpu, matrix: SparseRows, x: Tensor, dy: Tensor): Tensor | undefined {
  if (!x.requiresGrad) return undefined;
  const back = transposeRows(matrix);
  if (x.grad) {
    sparseProduct(gpu, back, dy, x.grad, { accumulate: true });
    return undefined;
  }
  const dx = gpu.empty(x.shape);
  sparseProduct(gpu, back, dy, dx);
  return dx;
}

/** Some rows of a matrix. */
function cutRows(
  { starts, entries, weights, columns }: SparseRows,
  first: number,
  count: number,
): SparseRows {
  const from = starts[first], to = starts[first + count];
  return {
    columns,
    starts: starts.slice(first, first + count + 1).map((start) => start - from),
    entries: entries.subarray(from, to),
    weights: weights?.slice(from, to),
  };
}

/** The lists as one buffer, in the order of the kernel; when accumulating, rows without entries are left out. */
function pack({ starts, entries, weights }: SparseRows, accumulate: boolean) {
  let first: ArrayLike<number> = starts;
  const rows: number[] = [];
  if (accumulate) {
    for (let r = 0; r + 1 < starts.length; r++) if (starts[r + 1] > starts[r]) rows.push(r);
    first = [...rows.map((r) => starts[r]), entries.length];
  }
  const R = first.length - 1;
  const words = new Uint32Array(first.length + entries.length + rows.length + (weights?.length ?? 0));
  words.set(first);
  words.set(entries, first.length);
  words.set(rows, first.length + entries.length);
  if (weights) {
    const bits = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
    words.set(bits, first.length + entries.length + rows.length);
  }
  return { R, words };
}
