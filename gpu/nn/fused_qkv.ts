/**
 * Queries, keys and values out of one projection, where a checkpoint keeps the three as one matrix.
 * Refuses a width that three times the groups do not divide.
 */
import { dims } from "../../core/shape.ts";
import { gatherRows } from "../ops/gather.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/**
 * x (T, 3*C) to q, k, v, each (T, C). The columns lie in `groups` groups, each [q | k | v]: one group for three whole
 * blocks, one a head for Megatron's order.
 */
export function splitQkv(tape: Tape, x: Tensor, groups = 1): [Tensor, Tensor, Tensor] {
  const { T, N } = dims("T N", x), width = N / 3 / groups;
  if (!Number.isInteger(width)) {
    throw new RangeError(`Cannot cut ${N} columns into queries, keys and values of ${groups} groups`);
  }
  const pieces = tape.reshape(x, [T * groups * 3, width]);
  const pick = (which: number) =>
    tape.reshape(
      gatherRows(tape, pieces, Uint32Array.from({ length: T * groups }, (_, i) => 3 * i + which)),
      [T, groups * width],
    );
  return [pick(0), pick(1), pick(2)];
}
