/**
 * Rows picked by lists of the host: embedding lookups, class tokens, 2x2 merges, window permutations, and image
 * features put into a text. Refuses an index outside the table, and a feature used twice.
 */
import { dims } from "../../core/shape.ts";
import { checkIndices, selectRows } from "../../core/sparse_rows.ts";
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./gather.wgsl" with { type: "text" };
import { sparseGradient } from "./sparse_rows.ts";

const rows4 = kernel("gather", source, "rows4", { M: "u32", C: "u32" }, 3, 1);
const rows1 = kernel("gather", source, "rows1", { M: "u32", C: "u32" }, 3, 1);
const rowsBf16 = kernel("gather", source, "rowsBf16", { M: "u32", C: "u32" }, 2, 1);

/**
 * Row m of the result (M, C) is row index[m] of x (N, C); rows may be read many times. x may be packed bf16.
 * @throws RangeError for an index outside 0..N-1, for bf16 of odd width or with a gradient
 */
export function gatherRows(tape: Tape, x: Tensor, index: Uint32Array): Tensor {
  const { gpu } = tape;
  const { N, C } = dims("N C", x), M = index.length;
  checkIndices(index, N);
  const y = tape.empty([M, C]);
  using _scope = gpu.pool.scope();
  const list = gpu.upload(Uint32Array.from(index));
  if (x.dtype === "bf16") {
    if (C % 2 || x.requiresGrad) {
      throw new RangeError(
        `Cannot gather from a bf16 table (${N}, ${C})${x.requiresGrad ? " that is trained" : ""}: ` +
          "expected an even width and no gradient",
      );
    }
    gpu.run(rowsBf16, { M, C: C / 2 }, [list, x], [y], gridFor(M * C / 2));
    return y;
  }
  const width = C % 4 === 0 ? 4 : 1;
  gpu.run(
    width === 4 ? rows4 : rows1,
    { M, C: C / width },
    [list, x, undefined],
    [y],
    gridFor(M * C / width),
  );
  return tape.record(y, [x], (dy) => [sparseGradient(gpu, selectRows(index, N), x, dy)]);
}

/**
 * Row t of the result (T, C) is features[source[t]] (P, C), or base[t] (T, C) where source[t] is negative.
 * @throws RangeError for a source of another length, one beyond P-1, and a feature row used twice
 */
export function mergeRows(tape: Tape, base: Tensor, features: Tensor, source: Int32Array): Tensor {
  const { gpu } = tape;
  const { T, P, C } = dims("T C", base, "P C", features);
  if (source.length !== T) {
    throw new RangeError(`Cannot merge rows by ${source.length} sources, expected ${T}`);
  }
  const fromFeatures = selectRows(source, P);
  const used = new Uint8Array(P);
  for (const row of fromFeatures.entries) {
    if (used[row]++) throw new RangeError(`Cannot merge rows: feature row ${row} is used twice`);
  }
  const width = C % 4 === 0 ? 4 : 1;
  const y = tape.empty([T, C]);
  using _scope = gpu.pool.scope();
  const list = gpu.upload(Uint32Array.from(source, (row) => row < 0 ? 0xffffffff : row));
  gpu.run(
    width === 4 ? rows4 : rows1,
    { M: T, C: C / width },
    [list, features, base],
    [y],
    gridFor(T * C / width),
  );
  return tape.record(y, [base, features], (dy) => [
    sparseGradient(gpu, selectRows(source.map((row, t) => row < 0 ? t : -1), T), base, dy),
    sparseGradient(gpu, fromFeatures, features, dy),
  ]);
}
