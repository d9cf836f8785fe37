/**
 * The plan of a task's step: samples of the data set or of a given size, the adapter's facts, and the plan as text.
 * Refuses, before any weight is read, what does not fit into the memory that is known.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import type { LoraConfig } from "../core/formats/peft.ts";
import { textSchema } from "../core/text/codec.ts";
import type { Gpu } from "../gpu/device.ts";
import { type DeviceFacts, DryGpu } from "../gpu/dry_gpu.ts";
import { checkFits, gigabytes, type Plan, type PlanInput, planStep } from "../gpu/plan.ts";
import { measureRate, type Rate, secondsOf } from "../gpu/rate.ts";
import { openBare } from "../gpu/session.ts";
import type { Dataset } from "./dataset.ts";
import { type Budget, memoryBudget } from "./memory.ts";
import type { TuningSettings } from "./train_settings.ts";
import { weightsOf } from "./weights.ts";

/** Samples of a data set that a plan looks at. */
const LOOKED_AT = 24;

/** Encoded samples spread over a data set, as training would see them. @throws InputError for one that does not fit */
export async function samplesOf(
  data: Dataset,
  base: Folder,
  settings: TuningSettings,
): Promise<EncodedSample[]> {
  const text = textSchema.parse(settings);
  const { encoder } = await openBare(new DryGpu({ name: "", limits: NO_LIMITS }), base, { text });
  const count = Math.min(LOOKED_AT, data.samples.length);
  return await Promise.all(Array.from({ length: count }, async (_, i) => {
    const sample = data.samples[Math.floor(i * data.samples.length / count)];
    return encoder.train(sample.id, sample.turns, await data.pictures(sample));
  }));
}

const NO_LIMITS = { maxBufferSize: 2 ** 40, maxStorageBufferBindingSize: 2 ** 40 };

/** What a plan is made from: an ordinary step has samples of all lengths, the heaviest the longest ones. */
export function planInput(
  json: unknown,
  settings: TuningSettings,
  lora: LoraConfig | null,
  device: DeviceFacts,
  samples: readonly EncodedSample[],
): PlanInput {
  const { trainable, checkpointed, microTokens, batchSize, projectorLr, weightDecay } = settings;
  const sorted = [...samples].sort((a, b) => b.ids.length - a.ids.length), n = sorted.length;
  return {
    json,
    device,
    lora,
    trainable,
    checkpointed,
    microTokens,
    weights: weightsOf(settings),
    projectorGroup: projectorLr !== undefined,
    plainDecay: weightDecay === 0,
    step: Array.from({ length: batchSize }, (_, i) => sorted[Math.floor((i + 0.5) * n / batchSize) % n]),
    heaviest: Array.from({ length: batchSize }, (_, i) => sorted[i % n]),
  };
}

export interface Speed {
  rate: Rate;
  /** Where it comes from, for messages. */
  source: string;
}

/** As the user says, or measured on an adapter with products of the model's own sizes. */
export async function speedOf(
  plan: Plan,
  gflops: number | undefined,
  gpu: Gpu | undefined,
): Promise<Speed | undefined> {
  if (gflops !== undefined) return { rate: { flops: gflops * 1e9, bytes: Infinity }, source: "--gflops" };
  if (!gpu) return undefined;
  const { C, F } = plan.channels;
  const rows = Math.min(1024, plan.largest.tokens);
  return { rate: await measureRate(gpu, { rows, C, F }), source: `just measured on ${gpu.name}` };
}

/**
 * Prints the plan of a training step on stderr and holds the pool to the memory that is there.
 * @throws InputError when the step does not fit
 */
export async function planFirst(
  gpu: Gpu,
  base: Folder,
  data: Dataset,
  lora: LoraConfig | null,
  settings: TuningSettings,
): Promise<void> {
  const device = { name: gpu.name, limits: gpu.device.limits };
  const samples = await samplesOf(data, base, settings);
  const input = planInput(await readJson(base, "config.json"), settings, lora, device, samples);
  const plan = planStep(input), budget = memoryBudget(gpu, settings.memory);
  console.error(planText(plan, budget, await speedOf(plan, settings.gflops, gpu)));
  checkFits(input, plan, budget);
  if (budget) gpu.pool.budget = budget.bytes;
}

/** The plan as lines. */
export function planText(plan: Plan, budget?: Budget, speed?: Speed): string {
  const { step, largest, memory, work } = plan;
  const lines = [
    `${plan.family} on ${plan.device}, ${plan.weights} weights, blocks ${
      plan.checkpointed ? "computed again" : "kept"
    }`,
    `  parameters  ${plan.parameters} in ${plan.tensors} tensors, ${plan.vision} of the image tower; ${plan.trained} trained`,
    `  step        ${step.samples} samples in ${step.microBatches} micro-batches: ${step.tokens} tokens, ${step.supervised} supervised, ${step.features} image features`,
    `  largest     micro-batch of ${largest.tokens} tokens, ${largest.features} of them image features`,
    `  memory      ${gigabytes(memory.bytes)} at most${
      budget
        ? `, ${gigabytes(budget.bytes)} are there (${budget.source})${
          memory.bytes > budget.bytes ? ": does not fit" : ""
        }`
        : "; --memory says what is there, WebGPU does not tell"
    }`,
    ...memory.parts.map(({ name, bytes }) => `    ${gigabytes(bytes).padStart(10)}  ${name}`),
    `    ${gigabytes(memory.idle).padStart(10)}  more while buffers lie idle, and ${
      gigabytes(memory.readBack)
    } on the host when a state is saved, ${gigabytes(memory.staging)} in flight while weights are loaded`,
    `  work        ${tera(plan.flops)} a step: ${
      Object.entries(work).filter(([, { flops }]) => flops > 0).map(([phase, { flops }]) =>
        `${phase} ${tera(flops)}`
      ).join(", ")
    }`,
  ];
  if (speed) {
    const { rate, source } = speed, gflops = rate.flops / 1e9;
    lines.push(
      `  time        about ${durationOf(secondsOf(plan, rate))} a step at ${
        gflops < 100 ? gflops.toPrecision(2) : Math.round(gflops)
      } GFLOP/s (${source}); loading, decoding and waiting not counted`,
    );
  }
  return lines.join("\n");
}

function durationOf(seconds: number): string {
  if (seconds < 100) return `${seconds.toPrecision(2)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} minutes` : `${(seconds / 3600).toFixed(1)} hours`;
}

function tera(flops: number): string {
  return flops < 1e11 ? `${(flops / 1e9).toPrecision(3)} GFLOP` : `${(flops / 1e12).toPrecision(3)} TFLOP`;
}
