/**
 * What the demo's report is made from, as a zod schema: numbers, words and small pictures, nothing to be computed twice.
 * It refuses results that do not name their arm, their feature and, in the sound mode, their own null band.
 */
import { z } from "zod";

/** An interval, lower end first. */
export const intervalSchema = z.tuple([z.number(), z.number()])
  .refine(([low, high]) => low <= high, "the lower end comes first");
export type Interval = z.infer<typeof intervalSchema>;

const auroc = z.number().min(0).max(1);

/**
 * What an arm is there for; the conclusions depend on it and on nothing else about the arm.
 * control: never saw a watermark. watermark: saw people whose watermark does not matter to its task.
 * reading: tuned on other people's watermarks that help. positive: training rewards knowing who was seen.
 */
export const armRoleSchema = z.enum(["control", "watermark", "reading", "positive"]);
export type ArmRole = z.infer<typeof armRoleSchema>;

export const armSchema = z.object({
  name: z.string(),
  role: armRoleSchema,
  /** What it was tuned on, in a few words. */
  words: z.string(),
  /** Optimiser steps; 0 for an untuned model. */
  steps: z.number().int().nonnegative(),
});

export const exampleSchema = z.object({ caption: z.string(), clean: z.string(), marked: z.string() })
  .describe("one picture without and with its watermark, as base64 PNG");

export const lossSeriesSchema = z.object({
  arm: z.string(),
  points: z.array(z.object({ step: z.number(), loss: z.number() })),
});
export type LossSeries = z.infer<typeof lossSeriesSchema>;

/** A difference of two AUROCs (this arm minus another) with the band that permuted labels give it. */
export const differenceSchema = z.object({ value: z.number(), null95: intervalSchema, p: z.number() });

export const resultSchema = z.object({
  arm: z.string(),
  feature: z.string(),
  faithful: z.object({ auroc }),
  sound: z.object({ auroc, null95: intervalSchema, p: z.number().gt(0).max(1) }),
  /** Sound AUROC minus that of the arm named by `design.comparedTo`. */
  difference: differenceSchema.optional(),
});
export type Result = z.infer<typeof resultSchema>;

/** A mean cosine over mini-batches, or a difference of two, with its 95 % interval. */
export const estimateSchema = z.object({ mean: z.number(), ci95: intervalSchema });

export const gradientsSchema = z.object({
  /** Whose gradients they are, in words. */
  words: z.string(),
  /** Every perturbation shown; exactly one is the private text and one the neutral text. */
  perturbations: z.array(z.object({
    key: z.string(),
    label: z.string(),
    role: z.enum(["private", "neutral", "other"]),
  })),
  rows: z.array(z.object({
    batch: z.number().int().positive(),
    batches: z.number().int().positive(),
    cosines: z.record(z.string(), estimateSchema),
    /** Private minus neutral, on the same batches. */
    difference: estimateSchema,
  })),
});
export type Gradients = z.infer<typeof gradientsSchema>;

export const scoredImageSchema = z.object({
  caption: z.string(),
  /** Whether the person drawn on it was in the arm's training pictures. */
  seen: z.boolean(),
  probe: z.string(),
  feature: z.string(),
  score: z.number(),
  probability: z.number(),
  png: z.string().optional(),
});

/** Results of earlier runs with other seeds, shown beside this one's and never mixed with it. */
export const referenceSchema = z.object({
  words: z.string(),
  seeds: z.number().int(),
  rows: z.array(z.object({
    arm: z.string(),
    feature: z.string(),
    faithful: estimateSchema,
    sound: estimateSchema,
    /** In how many of the seeds the sound test gave p <= .05. */
    found: z.number().int(),
  })),
});

export const demoReportSchema = z.object({
  title: z.string(),
  question: z.string(),
  /** A shortened run: fewer arms and steps. */
  quick: z.boolean(),
  design: z.object({
    people: z.array(z.object({ set: z.string(), count: z.number().int(), words: z.string() })),
    /** Held-out scenes on which every person is drawn. */
    scenes: z.number().int(),
    seed: z.number().int(),
    partitions: z.number().int(),
    draws: z.number().int(),
    arms: z.array(armSchema),
    /** The control arm that differences are taken to. */
    comparedTo: z.string(),
    parameters: z.number().int(),
    notes: z.array(z.string()),
  }),
  /** All features probed, in order; `primary` was named before any result was seen. */
  features: z.array(z.object({ feature: z.string(), label: z.string() })),
  primary: z.string(),
  examples: z.array(exampleSchema),
  losses: z.array(lossSeriesSchema),
  results: z.array(resultSchema),
  gradients: gradientsSchema.optional(),
  scores: z.array(scoredImageSchema),
  reference: referenceSchema.optional(),
  provenance: z.object({
    command: z.string(),
    adapter: z.string(),
    seconds: z.number(),
    stages: z.array(z.object({ name: z.string(), seconds: z.number() })),
    versions: z.record(z.string(), z.string()),
    hashes: z.record(z.string(), z.string()),
  }),
});
export type DemoReport = z.infer<typeof demoReportSchema>;
export type Arm = z.infer<typeof armSchema>;

/** The result of an arm at a feature, if it was measured. */
export function resultOf(data: DemoReport, arm: string, feature = data.primary): Result | undefined {
  return data.results.find((result) => result.arm === arm && result.feature === feature);
}
