/**
 * What a row of the op tests is. A file in this folder exports `rows: Row[]`; `ops_test.ts` imports them all and
 * refuses an op exported by gpu/ops/ that no row names.
 *
 * ```ts
 * export const rows: Row[] = [1, 63, 64, 65].map((n) => ({
 *   op: "add",                                 // the exported name; a row may name several: ["add", "scale"]
 *   name: `(${n})`,                            // which case, for the report
 *   inputs: [activation([n]), activation([n])],// or parameter(shape), constant(shape); values are standard normal
 *   gpu: (tape, [x, y]) => add(tape, x, y),
 *   reference: ([x, y]) => x.map((v, i) => v + y[i]),
 * }));
 * ```
 * The harness compares the forward, then the gradients of every activation and parameter, all wanted at once and each
 * wanted alone, and the bits of two runs. What does not fit (in-place updates, wrong input) is a `check`.
 */
import type { Gpu } from "../../gpu/device.ts";
import type { Tape } from "../../gpu/tape.ts";
import type { Dtype, Tensor } from "../../gpu/tensor.ts";
import type { Random } from "../../core/random.ts";

export interface Input {
  /** An activation's gradient comes off the tape, a parameter's is added to its `grad`, a constant has none. */
  kind: "activation" | "parameter" | "constant";
  shape: readonly number[];
  dtype: Dtype;
  /** The i-th value; the harness rounds it to the dtype, for the reference too. */
  value: (random: Random, i: number) => number;
}

export interface OpRow {
  op: string | readonly string[];
  name: string;
  inputs: readonly Input[];
  gpu: (tape: Tape, inputs: Tensor[]) => Tensor;
  reference: (inputs: Float64Array[]) => Float64Array;
  /** Allowed relative error of the forward, 1e-5 unless told. */
  tolerance?: number;
  /** The op asks `gpu.isCpu` for its kernel: run it both ways. */
  tuned?: boolean;
  /** The op takes the gradient of its result to be 1 (losses). */
  unitDy?: boolean;
}

export interface CheckRow {
  op: string | readonly string[];
  name: string;
  /** Gets a device inside an open scope of its pool; throws what is wrong. */
  check: (gpu: Gpu) => Promise<void> | void;
  tuned?: boolean;
}

export type Row = OpRow | CheckRow;

type Options = Partial<Pick<Input, "dtype" | "value">>;

/** An input whose gradient is returned by the tape. */
export function activation(shape: readonly number[], options: Options = {}): Input {
  return { kind: "activation", shape, dtype: "f32", value: (random) => random.normal(), ...options };
}

/** An input whose gradient is added to its `grad`. */
export function parameter(shape: readonly number[], options: Options = {}): Input {
  return { ...activation(shape, options), kind: "parameter" };
}

/** An input without a gradient. */
export function constant(shape: readonly number[], options: Options = {}): Input {
  return { ...activation(shape, options), kind: "constant" };
}
