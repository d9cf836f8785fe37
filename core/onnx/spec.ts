/**
 * What `bundle.json` says of an ONNX encoder beyond where it lies: the types its weights were written in, and what each
 * changes of the scores, as measured when it was exported. Refuses an encoder without its input or its outputs.
 */
import { z } from "zod";
import { WEIGHT_DTYPES } from "./graph.ts";

export const PROCESSOR_FILE = "preprocessor_config.json";
const count = z.number().int().nonnegative();

/** Most that activations of an encoder with f32 weights may differ: beyond it the graph computes something else. */
export const F32_REL = 1e-3;

/** Scores of the ONNX encoder beside those of Afterimage's own forward pass, both under the bundle's probe. */
export const effectSchema = z.object({
  pictures: count,
  /** ||onnx - own|| / ||own||, the largest over pictures and features. */
  activations_rel: z.number().nonnegative(),
  /** |difference| of log-odds over pictures and layers. */
  log_odds: z.object({ max: z.number().nonnegative(), mean: z.number().nonnegative() }),
  /** The same for the primary feature alone. */
  primary: z.object({ max: z.number().nonnegative(), mean: z.number().nonnegative() }),
  /** Pictures that the primary feature flags in one and not in the other; null where there is no threshold. */
  flips: z.object({ fpr01: count.nullable(), fpr001: count.nullable() }),
});
export type Effect = z.infer<typeof effectSchema>;

export const variantSchema = z.object({
  dtype: z.enum(WEIGHT_DTYPES),
  file: z.string(),
  /** The file of weights beside it, where one message does not hold them. */
  external: z.string().optional(),
  bytes: count,
  /** Null where no pictures were given to measure on. */
  effect: effectSchema.nullable(),
});
export type Variant = z.infer<typeof variantSchema>;

export const onnxSpecSchema = z.object({
  kind: z.literal("onnx"),
  /** The variant that is served. */
  dtype: z.enum(WEIGHT_DTYPES),
  file: z.string().min(1),
  external: z.string().optional(),
  input: z.object({
    name: z.string(),
    /** Of the processor's pixel values: `createProcessor` of this file makes them. */
    shape: z.array(z.number().int().positive()),
    processor: z.literal(PROCESSOR_FILE),
    /** Whether every picture becomes this shape, or only those of some sizes. */
    fixed: z.boolean(),
  }),
  outputs: z.array(z.string()).min(1),
  /** Tokens of the prompt, the picture's included. */
  tokens: count,
  variants: z.array(variantSchema).min(1),
});
export type OnnxSpec = z.infer<typeof onnxSpecSchema>;
