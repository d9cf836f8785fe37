/**
 * What the cells of a study leave behind, as JSON beside their tensors: the seam between those who measure and the
 * report, which computes nothing else from them than summaries. Refuses a file of another form.
 */
import { z } from "zod";

const share = z.number().min(0).max(1);
const interval = z.tuple([z.number(), z.number()]);
export type Interval = z.infer<typeof interval>;

/** A number with its 95 % interval. */
export const estimateSchema = z.object({ value: z.number(), ci95: interval });
export type Estimate = z.infer<typeof estimateSchema>;

/** Answers on held-out pictures: exact match, the VQA challenge's soft score, yes/no questions alone. */
export const vqaSchema = z.object({
  samples: z.number().int(),
  answers: z.number().int(),
  loss: z.number(),
  exact: share,
  vqa_soft: share,
  yes_no: share.nullable(),
  /** Share of the most frequent answer. */
  majority: share,
});
export type Vqa = z.infer<typeof vqaSchema>;

/** `tune.json` of a cell that tunes an arm; base has no steps. */
export const tuneSchema = z.object({
  arm: z.string(),
  steps: z.number().int(),
  images: z.number().int(),
  marked: z.number().int(),
  losses: z.array(z.object({ step: z.number(), loss: z.number() })),
  vqa: z.object({ before: vqaSchema, after: vqaSchema }).nullable(),
  parameters: z.number().int(),
  trained: z.number().int(),
  run: z.string().nullable(),
  /** Kept in times.json beside the result, whose bytes hold no time. */
  seconds: z.number().default(0),
});
export type TuneResult = z.infer<typeof tuneSchema>;

const rateShape = {
  auroc: share,
  accuracy: share,
  tpr_at_1pct_fpr: share,
  tpr_at_01pct_fpr: share,
};

/** One feature of one arm, "site@reduction" under one prompt. */
export const featureResultSchema = z.object({
  feature: z.string(),
  site: z.string(),
  reduction: z.string(),
  dim: z.number().int(),
  faithful: z.object({ ...rateShape, split: z.enum(["image", "scene"]), partitions: z.number().int() }),
  /** Split by person; `plain` is the same without centring scenes. */
  sound: z.object({
    ...rateShape,
    partitions: z.number().int(),
    draws: z.number().int(),
    null95: interval,
    p: share,
    /** 95 % interval of the AUROC that other people of the same kind would give. */
    ci95: interval,
    /** AUROC of every permutation, draw by draw the same for all features and arms over the same people. */
    null: z.array(z.number()),
    /** C chosen by people left out within the fitted ones, how often. */
    chosen_c: z.record(z.string(), z.number()).optional(),
  }),
  plain: z.object({ auroc: share, null95: interval, p: share, null: z.array(z.number()) }),
  /** Hewitt & Liang 2019: accuracy on the sets less accuracy on randomly labelled people, both split by image. */
  selectivity: z.object({ task: share, control: share, value: z.number(), ci95: interval }),
  /** Voita & Titov 2020, prequential, in bits over all rows, people kept together: the labels' own and the control's. */
  description: z.object({
    bits: z.number(),
    control: z.number(),
    uniform: z.number(),
    compression: z.number(),
  }),
});
export type FeatureResult = z.infer<typeof featureResultSchema>;

export const reliabilityBinSchema = z.object({
  low: share,
  high: share,
  n: z.number(),
  predicted: share,
  observed: share,
});

/** `probe.json` of a cell that probes one arm under one prompt. */
export const probeResultSchema = z.object({
  arm: z.string(),
  prompt: z.object({ id: z.string(), text: z.string() }),
  people: z.object({ seen: z.number().int(), unseen: z.number().int() }),
  scenes: z.number().int(),
  seed: z.number().int(),
  /** Of permutations: equal where draws may be compared one by one. */
  plan: z.number(),
  features: z.array(featureResultSchema).min(1),
  /** Downscaled pixels instead of activations: what the pictures alone give away. */
  blind: z.object({ auroc: share, null95: interval, p: share }),
  /** At the primary feature, on people left out of fit and calibration. */
  calibration: z.object({
    feature: z.string(),
    method: z.enum(["isotonic", "platt"]),
    ece: share,
    brier: share,
    bins: z.array(reliabilityBinSchema),
    /** Share of held-out pictures beyond the scores that calibration has seen. */
    abstained: share,
  }),
  /** At the primary feature. */
  power: z.array(z.object({
    people: z.number().int(),
    scenes: z.number().int(),
    /** The smallest expected AUROC found in 80 % of studies at the level .05. */
    detectable: share,
  })),
  /** Kept in times.json beside the result, whose bytes hold no time. */
  seconds: z.number().default(0),
});
export type ProbeResult = z.infer<typeof probeResultSchema>;

/** One comparison of mini-batch gradients. */
export const gradientRowSchema = z.object({
  batch: z.number().int(),
  version: z.string(),
  /** "all", "layer 3", "A", "B", "projector". */
  parameters: z.string(),
  /** Mini-batches, none of which share a picture. */
  batches: z.number().int(),
  cosine: estimateSchema,
  /** Norm of the version's gradient over the clean one's. */
  norm_ratio: estimateSchema,
  /** Each batch's cosine, for differences. */
  cosines: z.array(z.number()),
});
export const gradientResultSchema = z.object({
  seed: z.number().int(),
  /** That mini-batches are drawn from, in two halves; those of one batch size share none. */
  pictures: z.number().int(),
  rows: z.array(gradientRowSchema),
  /** Parameter sets without a gradient, and why. */
  skipped: z.array(z.object({ parameters: z.string(), why: z.string() })),
  /** Paired by mini-batch: the private version's cosine less the neutral one's. */
  private_minus_neutral: z.array(
    z.object({ batch: z.number().int(), parameters: z.string(), difference: estimateSchema }),
  ),
  /** McCandlish et al. 2018, tr(covariance) / |gradient|^2, in samples; null for more than these batch sizes tell apart. */
  noise_scale: z.array(z.object({
    version: z.string(),
    value: z.number().nullable(),
    ci95: z.tuple([z.number().nullable(), z.number().nullable()]),
  })),
  /**
   * Cosine with the direction that private content adds on average over the other half's pictures: of a version's whole
   * gradient ("clean", "private", "neutral"), and of what it has more than the clean one ("private excess", "neutral excess").
   */
  alignment: z.array(
    z.object({ batch: z.number().int(), version: z.string(), cosine: estimateSchema }),
  ),
  /** Along two trajectories with the same seed and order, before clipping; steps count from 1. */
  trajectory: z.array(z.object({
    arm: z.string(),
    step: z.number().int(),
    parameters: z.string(),
    cosine: z.number(),
    norm_ratio: z.number(),
  })),
  /** Kept in times.json beside the result, whose bytes hold no time. */
  seconds: z.number().default(0),
});
export type GradientResult = z.infer<typeof gradientResultSchema>;

/** What an arm's model says about one person. */
export const personSaysSchema = z.object({
  person: z.string(),
  set: z.string(),
  field: z.enum(["username", "user_id"]),
  /** As it was asked: the general prompt of the field, or for usernames that of the positive control `who`. */
  question: z.string(),
  /** With the person's watermark on the picture, or on the picture alone. */
  shown: z.boolean(),
  /** Greedy answer on the first scene. */
  answer: z.string(),
  exact: z.boolean(),
  /** 1 - edit distance / longer length. */
  fuzzy: share,
  /** Mean log probability of the true text's tokens, in nats. */
  log_prob: z.number(),
  /** Carlini et al. 2019: log2(candidates) - log2(rank), mean over scenes. */
  exposure: z.number(),
});
export const saysResultSchema = z.object({
  arm: z.string(),
  seed: z.number().int(),
  /** Of permutations: equal where draws may be compared one by one. */
  plan: z.number(),
  /** Texts that a true one is ranked among, itself included. */
  candidates: z.number().int(),
  people: z.array(personSaysSchema),
  /** Share of "yes" to having seen the person, with the watermark shown; U1 counts as seen in every arm. */
  says_seen: z.object({ seen: share, unseen: share }),
  /** Attacks on membership that read outputs or gradients, by person; no gradients in an arm without tuning. */
  attacks: z.array(z.object({
    attack: z.string(),
    auroc: share,
    null95: interval,
    p: share,
    null: z.array(z.number()),
  })),
  /** Mean exposure of the seen less that of the unseen, over the same permutations of people. */
  exposure: z.array(z.object({
    field: z.string(),
    question: z.string(),
    shown: z.boolean(),
    seen: z.number(),
    unseen: z.number(),
    difference: z.number(),
    null95: interval,
    p: share,
    null: z.array(z.number()),
  })),
  /** Kept in times.json beside the result, whose bytes hold no time. */
  seconds: z.number().default(0),
});
export type SaysResult = z.infer<typeof saysResultSchema>;
