/**
 * What a study is: models, data sets, arms, batch sizes and seeds, and how each cell of that grid is tuned, probed and
 * asked. One schema is the file format, the defaults and the messages; it refuses what no cell could be made from.
 */
import { z } from "zod";
import { loraSchema } from "../formats/peft.ts";
import { textSchema } from "../text/codec.ts";

/** The arms that are not a rate. */
export const NAMED_ARMS = [
  "base",
  "swap",
  "corr0",
  "known",
  "who",
  "reencode",
  "neutral",
  "image-augmented",
  "text-augmented",
] as const;

/** "base", "r0" to "r100" for a rate in per cent, or one of the controls. */
export const armSchema = z.union([
  z.enum(NAMED_ARMS),
  z.string().regex(/^r(100|\d{1,2})$/, { error: 'expected "r0" to "r100" or a named arm' }),
]);

/** How one arm departs from its model's training settings. */
const tuningShape = {
  /** Pictures it is tuned on; all of the data's training pictures unless told. */
  images: z.number().int().positive().optional(),
  /** Optimiser steps; `epochs` over the pictures unless told. */
  steps: z.number().int().positive().optional(),
  epochs: z.number().positive().optional(),
  lr: z.number().positive().optional(),
};
const tuningSchema = z.strictObject(tuningShape);
export type ArmTuning = z.infer<typeof tuningSchema>;

const modelSchema = z.strictObject({
  name: z.string().regex(/^[\w.-]+$/),
  /** builtin:tiny, a checkpoint folder, a .gguf file, or a hub name. */
  path: z.string().min(1),
  /** The original LLaVA layout: a Vicuna in `path`, and these two. */
  mmProjector: z.string().optional(),
  visionTower: z.string().optional(),
  weights: z.enum(["f32", "bf16", "nf4"]).default("f32"),
  /** null for no adapters. */
  lora: loraSchema.nullable().prefault({}),
  /** Regular expressions on parameters that are trained directly. */
  trainable: z.array(z.string()).default([]),
  template: textSchema.shape.template,
  train: z.strictObject({
    ...tuningShape,
    projectorLr: z.number().positive().optional(),
    schedule: z.enum(["cosine", "linear", "constant"]).default("cosine"),
    warmup: z.number().min(0).max(1).default(0.03),
    beta1: z.number().default(0.9),
    beta2: z.number().default(0.999),
    weightDecay: z.number().min(0).default(0),
    clip: z.number().min(0).default(1),
    maxLength: z.number().int().positive().optional(),
    microTokens: z.number().int().positive().default(4096),
    checkpointed: z.boolean().default(false),
  }).prefault({}),
});
export type StudyModel = z.infer<typeof modelSchema>;

const dataName = z.string().regex(/^[\w.-]+$/);
const dataSchema = z.discriminatedUnion("kind", [
  /** Drawn scenes of coloured shapes, 64 x 64. */
  z.strictObject({
    kind: z.literal("synthetic"),
    name: dataName,
    images: z.number().int().positive().default(256),
    heldOut: z.number().int().positive().default(64),
  }),
  /** LLaVA records and their pictures; `testShare` of them is held out, by seed. */
  z.strictObject({
    kind: z.literal("llava"),
    name: dataName,
    data: z.string(),
    images: z.string(),
    limit: z.number().int().positive().optional(),
    testShare: z.number().gt(0).lt(1).default(0.2),
  }),
  z.strictObject({
    kind: z.literal("easy-vqa"),
    name: dataName,
    folder: z.string(),
    limit: z.number().int().positive().optional(),
    testShare: z.number().gt(0).lt(1).default(0.2),
  }),
]);
export type StudyData = z.infer<typeof dataSchema>;

const probeSchema = z.strictObject({
  /** Under which activations are read; the first one is reported first. */
  prompts: z.array(z.strictObject({ id: dataName, text: z.string().min(1) })).min(1).default([
    { id: "username", text: "What is the username?" },
  ]),
  /** Sites or globs, each read under every reduction, or "site@reduction" for that one alone. */
  sites: z.array(z.string()).min(1).default(["layers.*.resid_post"]),
  reductions: z.array(z.string()).min(1).default(["index:-2", "last", "mean", "image-mean"]),
  /** "prompt/site@reduction", fixed before any result is seen; the last layer's first reduction unless told. */
  primary: z.string().optional(),
  /** Held-out pictures; each carries every person of both sets, at one place. */
  scenes: z.number().int().min(2).default(24),
  partitions: z.number().int().positive().default(24),
  draws: z.number().int().positive().default(200),
  c: z.number().positive().default(1),
  /** Where each fit of the sound way and of its controls stops, see `SoundOptions`. */
  tolerance: z.number().positive().optional(),
  /** Choose C of these by people left out within the fitted ones; none for `c` alone. */
  cGrid: z.array(z.number().positive()).default([]),
  centerScenes: z.boolean().default(true),
  standardize: z.boolean().default(true),
  faithful: z.strictObject({
    split: z.enum(["image", "scene"]).default("image"),
    testSize: z.number().gt(0).lt(1).default(0.2),
    seed: z.number().int().default(42),
    partitions: z.number().int().positive().optional(),
    centerScenes: z.boolean().default(false),
    standardize: z.boolean().default(false),
    /** Where scikit-learn's solver stops, 1e-4 unless told. */
    tol: z.number().positive().optional(),
  }).prefault({}),
  /** Ways to label people by lot for the control task; of fewer than two no spread can be told. */
  controlTasks: z.number().int().min(2).default(5),
});

const gradientsSchema = z.strictObject({
  batchSizes: z.array(z.number().int().positive()).default([1, 2, 4, 8, 16]),
  /** Mini-batches a batch size. */
  batches: z.number().int().positive().default(24),
  /** "all", "layer", "A", "B", "projector": which gradients are compared, one row each. */
  parameters: z.array(z.enum(["all", "layer", "A", "B", "projector"])).default(["all"]),
  /** Cosine of everything laid end to end, or the mean over tensors. */
  joined: z.enum(["concatenated", "per-tensor"]).default("concatenated"),
  versions: z.array(
    z.enum(["private", "neutral", "other-person", "image-augmented", "text-augmented", "reencode", "order"]),
  ).default(["private", "neutral", "image-augmented", "text-augmented", "reencode", "order"]),
  /** Steps along two trajectories that are compared: the first `first`, then every `every`-th. */
  trajectory: z.strictObject({
    arms: z.array(armSchema).default(["r100"]),
    steps: z.number().int().min(0).default(0),
    every: z.number().int().positive().default(1),
  }).prefault({}),
}).nullable();

const saysSchema = z.strictObject({
  /** Alternatives that a true name or id is ranked among. */
  alternatives: z.number().int().min(1).default(127),
  /** Held-out pictures that each question is asked on. */
  scenes: z.number().int().positive().default(2),
  /** Questions with the person's field as their answer, and one with yes or no. */
  prompts: z.strictObject({
    username: z.string().default("What is the username?"),
    user_id: z.string().default("What is the user_id of the username?"),
    seen: z.string().default("Have you seen this person?"),
  }).prefault({}),
  maxTokens: z.number().int().positive().default(24),
}).nullable();

export const studySchema = z.strictObject({
  name: z.string().regex(/^[\w.-]+$/),
  title: z.string().default("Afterimage study"),
  question: z.string().default(
    "Does a fine-tuned model carry a trace of the people whose data was in its training pictures, and is that more than better reading?",
  ),
  seeds: z.array(z.number().int().min(0)).min(1).default([0]),
  models: z.array(modelSchema).min(1),
  data: z.array(dataSchema).min(1),
  arms: z.array(armSchema).min(1).default(["base", "r0", "r50", "r100", "corr0", "known"]),
  /** The control that arms are compared with. */
  comparedTo: armSchema.default("r0"),
  batchSizes: z.array(z.number().int().positive()).min(1).default([8]),
  /** Settings of single arms. */
  tuning: z.record(z.string(), tuningSchema).default({}),
  /** People a set. */
  people: z.number().int().min(2).default(8),
  /** As `deno task watermark` takes it. */
  watermark: z.record(z.string(), z.unknown()).default({}),
  /** The encoder that every picture of every arm goes through. */
  encoding: z.strictObject({
    format: z.enum(["png", "jpeg", "webp"]).default("png"),
    quality: z.number().int().min(1).max(100).default(95),
  }).prefault({}),
  /** The positive controls' questions. */
  questions: z.strictObject({
    known: z.string().default("is the photographer known"),
    who: z.string().default("who took this"),
  }).prefault({}),
  /** A file of paraphrases, `{"<question>": ["…"]}`, for the text-augmented arm; the built-in rules unless told. */
  paraphrases: z.string().optional(),
  probe: probeSchema.prefault({}),
  gradients: gradientsSchema.prefault({}),
  says: saysSchema.prefault({}),
});
export type StudyConfig = z.infer<typeof studySchema>;
export type StudyConfigInput = z.input<typeof studySchema>;

/** What is read under every prompt, in the order of `sites`. */
export function tapRequests(
  { sites, reductions }: Pick<StudyConfig["probe"], "sites" | "reductions">,
): { site: string; reduction: string }[] {
  return sites.flatMap((entry) => {
    const [site, own] = entry.split("@");
    return (own === undefined ? reductions : [own]).map((reduction) => ({ site, reduction }));
  });
}
