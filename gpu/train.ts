/**
 * Fine-tuning: packed micro-batches, accumulation weighted by tokens, AdamW with a schedule, and a state file from
 * which a run goes on to the same bits. Refuses to resume a state of other settings.
 */
import { z } from "zod";
import { type EncodedSample, pack, type PackedBatch } from "../core/data/pack.ts";
import { InputError, Interrupted, messageOf } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import { hash32, Random } from "../core/random.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { optimizerStep, zeroGrad } from "./nn/optimizer.ts";
import type { Slab } from "./nn/params.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

export const trainSchema = z.object({
  steps: z.number().int().positive().default(200).describe("optimiser steps"),
  batchSize: z.number().int().positive().default(8).describe("samples a step"),
  microTokens: z.number().int().positive().default(4096).describe(
    "tokens that one pass over the model packs at most",
  ),
  lr: z.number().positive().default(1e-3).describe("peak learning rate of the adapters"),
  fullLr: z.number().positive().optional().describe(
    "peak learning rate of what is trained directly (default: lr)",
  ),
  projectorLr: z.number().positive().optional().describe(
    "peak learning rate of the projector where it is trained whole (default: full-lr)",
  ),
  schedule: z.enum(["cosine", "linear", "constant"]).default("cosine").describe("after the warm-up"),
  warmup: z.number().min(0).max(1).default(0.03).describe("share of the steps with a rising learning rate"),
  beta1: z.number().default(0.9).describe("AdamW"),
  beta2: z.number().default(0.999).describe("AdamW"),
  eps: z.number().positive().default(1e-8).describe("AdamW"),
  weightDecay: z.number().min(0).default(0).describe("AdamW, decoupled"),
  clip: z.number().min(0).default(1).describe("largest global norm of the gradients; 0 does not clip"),
  checkpointed: z.boolean().default(false).describe(
    "compute blocks again in backward instead of keeping them",
  ),
  saveEvery: z.number().int().positive().default(100).describe("steps between two saved states"),
  seed: z.number().int().default(0).describe("order of the data, adapters, dropout"),
});
export type TrainConfig = z.infer<typeof trainSchema>;

export interface StepMetrics {
  step: number;
  loss: number;
  lr: number;
  grad_norm: number;
  tokens: number;
  /** Of the held-out samples after this step, where they were looked at: mean -log p a token, share of whole answers. */
  eval_loss?: number;
  eval_accuracy?: number;
}

export interface TrainRun {
  gpu: Gpu;
  model: Model;
  slabs: readonly Slab[];
  config: TrainConfig;
  /** Number of samples, and one of them, encoded; called anew for every use. */
  count: number;
  sample(index: number): EncodedSample | Promise<EncodedSample>;
  /** Keeps state.safetensors and metrics.jsonl; without it nothing is saved and a stop loses the run. */
  folder?: Folder;
  /** What else must be equal for a state to be resumed: model and data hashes. */
  identity?: Record<string, unknown>;
  signal?: AbortSignal;
  /** Looks at held-out samples after every so many steps and after the last; it must not change the model. */
  evaluation?: { every: number; run(): Promise<{ loss: number; accuracy: number }> };
  /** Told once what a saved state had done already. */
  onResume?(metrics: readonly StepMetrics[]): Promise<void> | void;
  onStep?(metrics: StepMetrics): void;
  /** Told after held-out samples were looked at, with the metrics of that step. */
  onEvaluation?(metrics: StepMetrics): void;
  /** Told after a state was saved. */
  onSave?(step: number): Promise<void> | void;
}

const STATE = "state.safetensors";
const METRICS = "metrics.jsonl";

/** Learning-rate factor at a step counted from 0, as transformers' schedules give it. */
export function scheduleFactor(step: number, { steps, warmup, schedule }: TrainConfig): number {
  const rise = Math.ceil(steps * warmup);
  if (step < rise) return step / Math.max(1, rise);
  if (schedule === "constant") return 1;
  const progress = (step - rise) / Math.max(1, steps - rise);
  return schedule === "linear"
    ? Math.max(0, 1 - progress)
    : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
}

/** Peak learning rate of a group of slabs. */
function peakRate(group: string, { lr, fullLr = lr, projectorLr = fullLr }: TrainConfig): number {
  return group === "lora" ? lr : group === "projector" ? projectorLr : fullLr;
}

/** Which samples a step sees: every epoch is a permutation of its own, so no state is needed to know it. */
export function samplesOfStep(
  step: number,
  batchSize: number,
  count: number,
  order: (epoch: number) => number[],
): number[] {
  return Array.from({ length: batchSize }, (_, i) => {
    const at = step * batchSize + i;
    return order(Math.floor(at / count))[at % count];
  });
}

/** Splits a step's samples into packed passes of at most `microTokens` tokens, in order. */
export function microBatches(
  samples: readonly EncodedSample[],
  microTokens: number,
  model: Model,
): PackedBatch[] {
  const batches: PackedBatch[] = [];
  let group: EncodedSample[] = [], tokens = 0;
  const close = () => {
    if (group.length) {
      batches.push(
        pack(group, { imageToken: model.imageToken, featuresOf: (image) => model.featuresOf(image) }),
      );
    }
    [group, tokens] = [[], 0];
  };
  for (const sample of samples) {
    if (tokens + sample.ids.length > microTokens) close();
    group.push(sample);
    tokens += sample.ids.length;
  }
  close();
  return batches;
}

/** The parts of a pass over a micro-batch in order; the image tower lies inside "decoder". */
export type Phase = "decoder" | "loss" | "backward";

/**
 * Adds the gradients of the mean loss over all supervised tokens of `batches` to the slabs, which must be cleared.
 * Returns one loss (1) a batch; their sum is the mean loss. Equal to the gradient of the batches packed as one.
 */
export function accumulateGradients(
  gpu: Gpu,
  model: Model,
  batches: readonly PackedBatch[],
  options: {
    checkpointed: boolean;
    dropoutSeed: number;
    /** How often losses and gradients count, 1 unless told: -1 takes gradients away. */
    weight?: number;
    onPhase?: (phase: Phase) => void;
  },
): Tensor[] {
  const { onPhase, weight = 1 } = options;
  const scale = weight / batches.reduce((sum, { rows }) => sum + rows.length, 0);
  return batches.map((batch, i) => {
    using scope = gpu.pool.scope();
    const tape = new Tape(gpu);
    const seed = options.dropoutSeed && (hash32(options.dropoutSeed, i) || 1);
    onPhase?.("decoder");
    const hidden = runModel(new Forward(tape, undefined, seed), model, batch, options.checkpointed);
    onPhase?.("loss");
    const { loss } = crossEntropy(tape, hidden, model.head.tensor, { ...batch, scale });
    onPhase?.("backward");
    tape.backward(loss, gpu.upload(new Float32Array([1])));
    return scope.keep(loss);
  });
}

/** Which samples each step of a run sees, in order. */
export function samplesBySteps(
  { seed, batchSize }: Pick<TrainConfig, "seed" | "batchSize">,
  count: number,
): (step: number) => number[] {
  const order = orders(seed, count);
  return (step) => samplesOfStep(step, batchSize, count, order);
}

/**
 * One step, counted from 0: gradients of these samples, which stay in the slabs as they were before clipping, and an
 * update. Returns the gradients' norm (1) and the losses (1), on the device, in a scope that the caller opened.
 */
export function trainStep(
  { gpu, model, slabs, config }: Pick<TrainRun, "gpu" | "model" | "slabs" | "config">,
  step: number,
  samples: readonly EncodedSample[],
): { norm: Tensor; losses: Tensor[]; tokens: number; factor: number } {
  zeroGrad(gpu, slabs);
  const batches = microBatches(samples, config.microTokens, model);
  const losses = accumulateGradients(gpu, model, batches, {
    checkpointed: config.checkpointed,
    dropoutSeed: hash32(config.seed, step + 1) || 1,
  });
  const factor = scheduleFactor(step, config);
  const norm = optimizerStep(gpu, slabs, {
    ...config,
    lr: (group) => factor * peakRate(group, config),
    step: step + 1,
    maxNorm: config.clip,
  });
  const tokens = batches.reduce((sum, { rows }) => sum + rows.length, 0);
  return { norm, losses, tokens, factor };
}

/**
 * Trains to the last step, going on from a saved state where there is one. Returns the metrics of every step.
 * @throws Interrupted after saving, when the signal fires; InputError for a state of other settings
 */
export async function train(run: TrainRun): Promise<StepMetrics[]> {
  const { gpu, config, folder, signal, evaluation } = run;
  const samplesAt = samplesBySteps(config, run.count);
  const identity = await sha256(JSON.stringify({ config, count: run.count, ...run.identity }));
  let { step, metrics } = folder ? await restore(run, identity) : { step: 0, metrics: [] };
  await run.onResume?.(metrics);
  let saved = step;
  const keep = async (step: number) => {
    if (!folder) return;
    await save(run, identity, step, metrics);
    saved = step;
    await run.onSave?.(step);
  };
  let waiting: Promise<void> = Promise.resolve();
  try {
    for (; step < config.steps; step++) {
      if (signal?.aborted) {
        await waiting;
        await keep(step);
        throw new Interrupted(
          `Stopped after step ${step} of ${config.steps}${
            folder ? `; the same command goes on from there` : ""
          }`,
        );
      }
      const samples = await Promise.all(samplesAt(step).map((i) => run.sample(i)));
      using _scope = gpu.pool.scope();
      const { norm, losses, tokens, factor } = trainStep(run, step, samples);
      // The wait for step s happens while the device already works on step s + 1.
      const reading = gpu.read(norm, ...losses), number = step + 1;
      reading.catch(() => {}); // awaited below, unless the step before failed as well
      await waiting;
      waiting = reading.then(([grad, ...parts]) => {
        const entry: StepMetrics = {
          step: number,
          loss: parts.reduce((sum, part) => sum + part[0], 0),
          lr: factor * config.lr,
          grad_norm: grad[0],
          tokens,
        };
        if (!Number.isFinite(entry.loss)) {
          throw new Error(`Cannot go on: the loss of step ${number} is ${entry.loss}`);
        }
        metrics.push(entry);
        run.onStep?.(entry);
      });
      waiting.catch(() => {}); // awaited in the next turn
      const last = number === config.steps;
      if (evaluation && (last || number % evaluation.every === 0)) {
        await waiting;
        const { loss, accuracy } = await evaluation.run(), entry = metrics.at(-1)!;
        Object.assign(entry, { eval_loss: loss, eval_accuracy: accuracy });
        run.onEvaluation?.(entry);
      }
      if (folder && (last || number % config.saveEvery === 0)) {
        await waiting;
        await keep(number);
      }
    }
    await waiting;
    return metrics;
  } catch (thrown) {
    if (folder && !(thrown instanceof InputError || thrown instanceof Interrupted)) {
      throw new Error(`${messageOf(thrown)} (the last saved state is step ${saved})`, { cause: thrown });
    }
    throw thrown;
  }
}

/** The step with the smallest loss on held-out samples, the first of equal ones; undefined where none was looked at. */
export function bestStep(metrics: readonly StepMetrics[]): StepMetrics | undefined {
  const seen = metrics.filter(({ eval_loss }) => eval_loss !== undefined);
  return seen.length ? seen.reduce((a, b) => b.eval_loss! < a.eval_loss! ? b : a) : undefined;
}

/** Permutations by epoch, the last two remembered. */
function orders(seed: number, count: number): (epoch: number) => number[] {
  const cache = new Map<number, number[]>();
  return (epoch) => {
    let order = cache.get(epoch);
    if (!order) {
      cache.delete(epoch - 2);
      order = new Random(seed, `order/${epoch}`).shuffle(Array.from({ length: count }, (_, i) => i));
      cache.set(epoch, order);
    }
    return order;
  };
}

async function save(
  { gpu, slabs, folder }: TrainRun,
  identity: string,
  step: number,
  metrics: StepMetrics[],
): Promise<void> {
  const tensors = slabs.flatMap(({ param, m, v }, i) =>
    [[`${i}.param`, param], [`${i}.m`, m], [`${i}.v`, v]] as [string, Tensor][]
  );
  const values = await gpu.read(...tensors.map(([, tensor]) => tensor));
  const entries = tensors.map(([name, { shape }], i) => [name, { shape: [...shape], data: values[i] }]);
  await folder!.write(METRICS, metrics.map((entry) => JSON.stringify(entry) + "\n").join(""));
  await folder!.write(
    STATE,
    encodeSafetensors(Object.fromEntries(entries), { identity, step: String(step) }),
  );
}

async function restore(
  { gpu, slabs, folder, config }: TrainRun,
  identity: string,
): Promise<{ step: number; metrics: StepMetrics[] }> {
  if (!await folder!.exists(STATE)) return { step: 0, metrics: [] };
  const file = await SafetensorsFile.open(await folder!.open(STATE));
  try {
    if (file.metadata.identity !== identity) {
      throw new InputError(
        `Cannot resume in "${
          folder!.path
        }": its ${STATE} belongs to other settings, data or another model; choose another folder`,
      );
    }
    for (const [i, slab] of slabs.entries()) {
      for (const key of ["param", "m", "v"] as const) gpu.write(slab[key], await file.f32(`${i}.${key}`));
    }
    const step = Math.min(Number(file.metadata.step), config.steps);
    const lines = new TextDecoder().decode(await folder!.read(METRICS)).split("\n").filter(Boolean);
    return { step, metrics: lines.slice(0, step).map((line) => JSON.parse(line)) };
  } finally {
    file.source.close();
  }
}
