/**
 * Dropout by a hash of seed and index: nothing is stored, and a checkpointed block drops the same elements again.
 * Refuses a probability outside [0, 1).
 */
import { hash32 } from "../../core/random.ts";
import { runPointwise, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./dropout.wgsl" with { type: "text" };

const dropKernels = twins(
  "dropout",
  source,
  "dropout",
  { N: "u32", first: "u32", state: "u32", threshold: "u32", scale: "f32" },
  1,
  1,
);

export interface DropoutOptions {
  /** Share of elements that become 0; 0 returns x itself. */
  p: number;
  /** Any 32-bit integer: fresh for every step and place, the same when a block is computed again. */
  seed: number;
}

/** Keeps x[i] / (1 - p) where hash32(seed, i) >= p * 2^32, any shape. @throws RangeError unless 0 <= p < 1 */
export function dropout(tape: Tape, x: Tensor, { p, seed }: DropoutOptions): Tensor {
  if (!(p >= 0 && p < 1)) throw new RangeError(`Cannot drop a share of ${p}: expected 0 <= p < 1`);
  if (p === 0) return x;
  const y = drop(tape, x, p, seed);
  return tape.record(y, [x], (dy) => [drop(tape, dy, p, seed)]);
}

function drop(tape: Tape, x: Tensor, p: number, seed: number): Tensor {
  const threshold = Math.min(Math.ceil(p * 2 ** 32), 2 ** 32 - 1);
  const y = tape.empty(x.shape);
  runPointwise(tape.gpu, dropKernels, { state: hash32(seed), threshold, scale: 1 / (1 - p) }, [x], [y]);
  return y;
}
