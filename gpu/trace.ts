/**
 * What a device tells whoever wants to know which ops a forward pass runs, on what and with which settings: the way a
 * model is exported. It is a type alone; a device that nobody listens to calls nothing.
 */
import type { OpName, OpOptions } from "../core/onnx/ops.ts";
import type { Tensor } from "./tensor.ts";

export interface Trace {
  /** Called after an op with its inputs in the order of `OpOptions`. */
  op<K extends OpName>(
    op: K,
    inputs: readonly (Tensor | undefined)[],
    output: Tensor,
    options: OpOptions[K],
  ): void;
  /** Called for every feature "site@reduction" that a tap has read. */
  feature(name: string, value: Tensor): void;
}
