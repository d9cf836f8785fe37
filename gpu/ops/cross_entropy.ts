/**
 * Cross-entropy over the supervised rows alone, in chunks: the logits of a whole sequence are never in memory.
 * Refuses a row or target that is not there, a row supervised twice, and a loss over no row.
 */
import { dims } from "../../core/shape.ts";
import { checkIndices, selectRows } from "../../core/sparse_rows.ts";
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import { Tape } from "../tape.ts";
import { rowsOf, rowStep, type Tensor } from "../tensor.ts";
import source from "./cross_entropy.wgsl" with { type: "text" };
import { gatherRows } from "./gather.ts";
import { matmulNN, matmulNT, matmulTN } from "./matmul.ts";
import { sparseGradient } from "./sparse_rows.ts";

const token = kernel(
  "cross_entropy",
  source,
  "token",
  { M: "u32", V: "u32", first: "u32", scale: "f32" },
  1,
  3,
);
const total = kernel("cross_entropy", source, "total", { M: "u32", scale: "f32" }, 1, 1);

const GROUP = 64;

export interface CrossEntropyOptions {
  /** The M rows of `hidden` that predict, each once, and the token that each should predict. */
  rows: Uint32Array;
  targets: Uint32Array;
  /** Factor of the sum over rows: 1 / tokens of the batch for a mean. */
  scale: number;
  /** Bytes that the logits of a chunk may take, 32 MiB by default; at least a row is taken, 64 / gcd(C, 64) of odd C. */
  chunk?: number;
}

export interface CrossEntropy {
  /** (1) scale * sum of perToken. */
  loss: Tensor;
  /** (M) -log p(target) of each supervised row. */
  perToken: Tensor;
  /** (M) u32, the most likely token of each supervised row. */
  predicted: Tensor;
}

/**
 * scale * sum over rows of -log softmax(hidden[row] head^T)[target], from hidden (T, C) and head (V, C).
 * Gradients are worked out chunk by chunk during the forward, that of a trained head is added to `head.grad` there:
 * the gradient of the loss handed to `backward` must be 1. @throws RangeError when rows or targets do not fit
 */
export function crossEntropy(
  tape: Tape,
  hidden: Tensor,
  head: Tensor,
  { rows, targets, scale, chunk = 32 * 2 ** 20 }: CrossEntropyOptions,
): CrossEntropy {
  const { gpu } = tape;
  const { T, C, V } = dims("T C", hidden, "V C", head), M = rows.length;
  checkLabels(rows, targets, T, V);
  const loss = tape.empty([1]), perToken = tape.empty([M]), predicted = tape.empty([M], "u32");
  const dRows = tape.recording && hidden.requiresGrad ? tape.empty([M, C]) : undefined;
  const dHead = tape.recording && head.requiresGrad ? head.grad ?? tape.empty([V, C]) : undefined;
  const GRADIENT = dRows || dHead ? 1 : 0, LANES = gpu.isCpu ? 1 : GROUP;
  const step = chunkRows(C, V, Math.min(chunk, gpu.bindingLimit));

  using _scope = gpu.pool.scope();
  const labels = gpu.upload(Uint32Array.from(targets));
  const states = gatherRows(new Tape(gpu, false), hidden, rows); // (M, C)
  for (let first = 0; first < M; first += step) {
    using _scope = gpu.pool.scope();
    const n = Math.min(step, M - first);
    const h = rowsOf(states, first, n), logits = gpu.empty([n, V]);
    matmulNT(gpu, h, head, logits);
    const sizes = { M: n, V, first, scale };
    const grid = gridFor(n * LANES, GROUP);
    gpu.run(token, sizes, [labels], [logits, perToken, predicted], grid, { GRADIENT, LANES });
    if (dRows) matmulNN(gpu, logits, head, rowsOf(dRows, first, n));
    if (dHead) matmulTN(gpu, logits, h, dHead, { accumulate: first > 0 || dHead === head.grad });
  }
  gpu.run(total, { M, scale }, [perToken], [loss], [1]);

  tape.record(loss, [hidden, head], () => [
    dRows && sparseGradient(gpu, selectRows(rows, T), hidden, dRows),
    dHead === head.grad ? undefined : dHead,
  ]);
  return { loss, perToken, predicted };
}

/** Rows of a chunk: as many as the budget allows, their start always at a multiple of 256 bytes in a (M, C). */
function chunkRows(C: number, V: number, bytes: number): number {
  const unit = rowStep(4 * C);
  return Math.max(unit, Math.floor(bytes / (4 * V * unit)) * unit);
}

function checkLabels(rows: Uint32Array, targets: Uint32Array, T: number, V: number): void {
  if (rows.length !== targets.length || rows.length === 0) {
    throw new RangeError(
      `Cannot compute the cross-entropy of ${rows.length} rows and ${targets.length} targets: ` +
        "expected as many of both, at least one",
    );
  }
  checkIndices(rows, T);
  const seen = new Uint8Array(T);
  for (const row of rows) {
    if (seen[row]++) throw new RangeError(`Cannot compute the cross-entropy: row ${row} is supervised twice`);
  }
  const wrong = targets.findIndex((target) => target >= V);
  if (wrong >= 0) {
    throw new RangeError(
      `Cannot compute the cross-entropy: target ${targets[wrong]} of row ${
        rows[wrong]
      } is outside a vocabulary of ${V}`,
    );
  }
}
