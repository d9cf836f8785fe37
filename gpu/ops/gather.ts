/**
 * Rows picked by lists of the host: embedding lookups, class tokens, 2x2 merges, window permutations, and image
 * features put into a text. Refuses an index outside the table, and a feature used twice.
 */
import { dims } from "../../core/shape.ts";
import { checkIndices, selectRows } from "../../core/sparse_rows.ts";
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import { byteLength, rowsOf, rowStep, type Tensor } from "../tensor.ts";
import source from "./gather.wgsl" with { type: "text" };
import { sparseGradient } from "./sparse_rows.ts";

const sizes = { M: "u32", C: "u32", first: "u32", rows: "u32" } as const;
const rows4 = kernel("gather", source, "rows4", sizes, 3, 1);
const rows1 = kernel("gather", source, "rows1", sizes, 3, 1);
const rowsBf16 = kernel("gather", source, "rowsBf16", sizes, 2, 1);

export interface GatherOptions {
  /** Bytes of the table that one dispatch reads from, the device's limit of a binding by default. */
  window?: number;
}

/**
 * Row m of the result (M, C) is row index[m] of x (N, C); rows may be read many times. x may be packed bf16.
 * @throws RangeError for an index outside 0..N-1, for bf16 of odd width or with a gradient
 */
export function gatherRows(
  tape: Tape,
  x: Tensor,
  index: Uint32Array,
  { window = tape.gpu.bindingLimit }: GatherOptions = {},
): Tensor {
  const { gpu } = tape;
  const { N, C } = dims("N C", x), M = index.length, packed = x.dtype === "bf16";
  checkIndices(index, N);
  if (packed && (C % 2 || x.requiresGrad)) {
    throw new RangeError(
      `Cannot gather from a bf16 table (${N}, ${C})${x.requiresGrad ? " that is trained" : ""}: ` +
        "expected an even width and no gradient",
    );
  }
  const y = tape.empty([M, C]);
  using _scope = gpu.pool.scope();
  const list = gpu.upload(Uint32Array.from(index));
  const width = packed ? 2 : C % 4 === 0 ? 4 : 1, pick = packed ? rowsBf16 : width === 4 ? rows4 : rows1;
  const rowBytes = byteLength([C], x.dtype), unit = rowStep(rowBytes);
  const step = Math.max(unit, Math.floor(window / (rowBytes * unit)) * unit);
  for (let first = 0; first < N; first += step) {
    const rows = Math.min(step, N - first), part = rowsOf(x, first, rows);
    const inputs = packed ? [list, part] : [list, part, undefined];
    gpu.run(pick, { M, C: C / width, first, rows }, inputs, [y], gridFor(M * C / width));
  }
  gpu.trace?.op("gather", [x], y, { index });
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
    { M: T, C: C / width, first: 0, rows: P },
    [list, features, base],
    [y],
    gridFor(T * C / width),
  );
  gpu.trace?.op("merge", [base, features], y, { source });
  return tape.record(y, [base, features], (dy) => [
    sparseGradient(gpu, selectRows(source.map((row, t) => row < 0 ? t : -1), T), base, dy),
    sparseGradient(gpu, fromFeatures, features, dy),
  ]);
}
