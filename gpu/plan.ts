/**
 * What a training step would take, without weights and without a device: the step runs over a device that computes
 * nothing and counts (dry_gpu.ts). Refuses nothing by itself; `checkFits` refuses what an adapter or a budget cannot hold.
 */
import { type EncodedSample, type PackedBatch } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import type { LoraConfig } from "../core/formats/peft.ts";
import { type DeviceFacts, DryGpu, type Holding, type Largest, type Work } from "./dry_gpu.ts";
import { PANEL_BYTES } from "./kernel.ts";
import { createModel } from "./models/create.ts";
import type { Model } from "./models/model.ts";
import {
  frozenDtype,
  isWanted,
  linearWeights,
  PENDING_BYTES,
  placeFrozen,
  type WeightType,
} from "./models/weights.ts";
import { optimizerStep, zeroGrad } from "./nn/optimizer.ts";
import type { Registry, Slab } from "./nn/params.ts";
import { declareTrained } from "./session.ts";
import { accumulateGradients, microBatches } from "./train.ts";

export interface PlanInput {
  /** A parsed config.json. */
  json: unknown;
  device: DeviceFacts;
  /** How frozen matrices lie on the device. */
  weights: WeightType;
  lora: LoraConfig | null;
  /** Regular expressions on parameters trained directly. */
  trainable: readonly string[];
  /** As a session takes them. */
  projectorGroup?: boolean;
  plainDecay?: boolean;
  checkpointed: boolean;
  microTokens: number;
  /** Of an ordinary step, and those whose first micro-batch is the largest to come. */
  step: readonly EncodedSample[];
  heaviest: readonly EncodedSample[];
}

export interface Part {
  name: string;
  bytes: number;
}

export interface Plan {
  family: string;
  device: string;
  weights: PlanInput["weights"];
  checkpointed: boolean;
  /** Channels of the decoder and of its MLP. */
  channels: { C: number; F: number };
  /** All values, those of the image tower, those trained; tensors of the checkpoint. */
  parameters: number;
  vision: number;
  trained: number;
  tensors: number;
  /** Name and shape of every tensor; of numbered layers those whose shape no earlier one has, and how many have it. */
  shapes: Record<string, { shape: readonly number[]; count: number }>;
  step: { samples: number; tokens: number; supervised: number; features: number; microBatches: number };
  /** Tokens and image features of the largest micro-batch, which decides the memory. */
  largest: { tokens: number; supervised: number; features: number };
  memory: {
    /** What is held at the worst moment, by part, largest first. */
    parts: Part[];
    /** Their sum. */
    bytes: number;
    /** What the pool keeps beside it for reuse, given up where a budget is set. */
    idle: number;
    /** Host-visible memory for reading a saved state back. */
    readBack: number;
    /** What is on its way to the device at most while weights are loaded. */
    staging: number;
  };
  /** Of an ordinary step, by phase: tower, decoder, loss, backward, optimiser. */
  work: Record<string, Work>;
  /** Their sum of products and attention. */
  flops: number;
  largestBuffer: Largest;
  largestBinding: Largest;
}

/** Operations of a step beyond which the many small dispatches of software Vulkan are not counted one by one. */
const FINE = 5e12;

/**
 * Counts one step. On software Vulkan a large model is counted by a GPU's kernels: the operations are the same, the
 * memory within a few hundredths. @throws InputError for a config, adapters or samples that the model cannot take
 */
export function planStep(input: PlanInput): Plan {
  const coarse = count(input, new DryGpu({ ...input.device, name: "" }));
  const gpu = new DryGpu(input.device);
  return gpu.isCpu && coarse.flops < FINE ? count(input, gpu) : coarse;
}

function count(input: PlanInput, gpu: DryGpu): Plan {
  const { checkpointed, weights } = input;
  gpu.phase = "trained";
  const { model, slabs } = declareTrained(gpu, createModel(input.json), input);
  gpu.phase = "weights";
  const linears = linearWeights(model);
  const frozen = [...model.registry.params.values()].filter((param) => isWanted(param) && !param.trainable);
  for (const param of frozen) placeFrozen(gpu, param, frozenDtype(param, linears, weights));
  const runs = (samples: readonly EncodedSample[]) => microBatches(samples, input.microTokens, model);

  const batches = runs(input.step), work: Record<string, Work> = {};
  for (const { batch, times } of distinct(batches)) {
    gpu.work.clear();
    runDry(gpu, model, [], batch, checkpointed);
    addWork(work, gpu.work, times);
  }
  gpu.work.clear();
  optimise(gpu, slabs);
  addWork(work, gpu.work, 1);

  const worst = runs(input.heaviest).reduce((a, b) => b.ids.length > a.ids.length ? b : a);
  const placed = gpu.pool.usedBytes;
  gpu.pool.trim();
  gpu.pool.peakBytes = placed;
  gpu.forget();
  runDry(gpu, model, slabs, worst, checkpointed);
  const held = gpu.atPeak();
  const windows = gpu.pool.slack * (held.length + frozen.length + 4 * slabs.length);
  const parts = grouped([
    { name: `frozen weights, ${weights}`, bytes: placed - slabBytes(slabs) },
    { name: "trained parameters, their gradients and moments", bytes: slabBytes(slabs) },
    { name: `windows of ${PANEL_BYTES / 1024} KiB behind buffers`, bytes: windows },
    ...held.map((holding) => ({ name: partOf(holding), bytes: holding.bytes })),
  ]);
  const trained = slabs.flatMap(({ params }) => params).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return {
    family: model.family,
    device: input.device.name,
    weights,
    checkpointed,
    channels: { C: model.decoder.config.C, F: model.decoder.config.F },
    parameters: model.registry.count,
    vision: countVision(model.registry),
    trained,
    tensors: model.registry.params.size,
    shapes: shapesOf(model.registry),
    step: {
      samples: input.step.length,
      microBatches: batches.length,
      ...sizesOf(model, batches),
    },
    largest: sizesOf(model, [worst]),
    memory: {
      parts,
      bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
      idle: gpu.pool.peakBytes - gpu.peak,
      staging: Math.min(PENDING_BYTES, 4 * model.registry.count),
      readBack: 2 ** Math.ceil(Math.log2(Math.max(4096, slabBytes(slabs) * 3 / 4))),
    },
    work,
    flops: Object.values(work).reduce((sum, { flops }) => sum + flops, 0),
    largestBuffer: gpu.largestBuffer,
    largestBinding: gpu.largestBinding,
  };
}

/** A change of settings and the bytes that a step takes with it. */
export interface Remedy {
  what: string;
  bytes: number;
}

/** Changes that make the step of `plan` clearly smaller, the best first; each is counted as the plan was. */
export function remedies(input: PlanInput, plan: Plan): Remedy[] {
  const changes: [string, Partial<PlanInput>][] = [];
  if (!input.checkpointed) changes.push(["--checkpointed", { checkpointed: true }]);
  if (input.weights === "f32") changes.push(["--weights bf16", { weights: "bf16" }]);
  if (input.weights !== "nf4") changes.push(["--quant nf4", { weights: "nf4" }]);
  const longest = Math.max(...input.heaviest.map(({ ids }) => ids.length));
  if (plan.largest.tokens > longest) {
    const microTokens = Math.max(longest, Math.floor(plan.largest.tokens / 2));
    changes.push([`--micro-tokens ${microTokens}`, { microTokens }]);
  }
  if (input.lora && input.lora.r > 1) {
    const r = Math.floor(input.lora.r / 2);
    changes.push([`--r ${r}`, { lora: { ...input.lora, r } }]);
  }
  return changes.map(([what, change]) => ({
    what,
    bytes: planStep({ ...input, ...change }).memory.bytes,
  })).filter(({ bytes }) => bytes < 0.98 * plan.memory.bytes).sort((a, b) => a.bytes - b.bytes);
}

/**
 * Refuses a step that does not fit. @param budget bytes and where they are from, undefined where that is not known
 * @throws InputError naming the largest parts and what would help
 */
export function checkFits(
  input: PlanInput,
  plan: Plan,
  budget: { bytes: number; source: string } | undefined,
): void {
  const { limits } = input.device, { largestBuffer: buffer, largestBinding: binding } = plan;
  if (buffer.bytes > limits.maxBufferSize) {
    throw new InputError(
      `Cannot train on "${plan.device}": one buffer of the ${buffer.what} takes ${
        gigabytes(buffer.bytes)
      }, the adapter allows ${gigabytes(limits.maxBufferSize)}`,
    );
  }
  if (binding.bytes > limits.maxStorageBufferBindingSize) {
    throw new InputError(
      `Cannot train on "${plan.device}": a binding of ${binding.what} takes ${
        gigabytes(binding.bytes)
      }, the adapter allows ${gigabytes(limits.maxStorageBufferBindingSize)}`,
    );
  }
  if (!budget || plan.memory.bytes <= budget.bytes) return;
  const largest = plan.memory.parts.slice(0, 3).map(({ name, bytes }) => `${name} ${gigabytes(bytes)}`);
  const help = remedies(input, plan).map(({ what, bytes }) => `${what} (${gigabytes(bytes)})`);
  throw new InputError(
    `Cannot train: a step takes ${gigabytes(plan.memory.bytes)}, there are ${
      gigabytes(budget.bytes)
    } (${budget.source}); ` +
      `the largest parts are ${largest.join(", ")}; ` +
      (help.length ? `what would help: ${help.join(", ")}` : "no setting would make it clearly smaller"),
  );
}

/** "1.25 GB" or "4.2 MB", decimal. */
export function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** Micro-batches that cost the same, once, and how often. */
function distinct(batches: readonly PackedBatch[]): { batch: PackedBatch; times: number }[] {
  const found = new Map<string, { batch: PackedBatch; times: number }>();
  for (const batch of batches) {
    const pictures = batch.images.map(({ shape }) => shape.join("x"));
    const key = [...batch.starts, batch.rows.length, ...pictures].join();
    const known = found.get(key);
    if (known) known.times++;
    else found.set(key, { batch, times: 1 });
  }
  return [...found.values()];
}

function runDry(
  gpu: DryGpu,
  model: Model,
  slabs: readonly Slab[],
  batch: PackedBatch,
  checkpointed: boolean,
): void {
  using _scope = gpu.pool.scope();
  zeroGrad(gpu, slabs);
  const watched: Model = {
    ...model,
    encodeImages: model.encodeImages && ((...args) => {
      gpu.phase = "tower";
      const features = model.encodeImages!(...args);
      gpu.phase = "decoder";
      return features;
    }),
  };
  accumulateGradients(gpu, watched, [batch], {
    checkpointed,
    dropoutSeed: 1,
    onPhase: (phase) => gpu.phase = phase,
  });
  if (slabs.length) optimise(gpu, slabs);
}

function optimise(gpu: DryGpu, slabs: readonly Slab[]): void {
  using _scope = gpu.pool.scope();
  gpu.phase = "optimiser";
  const plain = { lr: () => 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 };
  optimizerStep(gpu, slabs, { ...plain, step: 1, maxNorm: 1 });
}

function partOf({ phase, writer }: Holding): string {
  if (writer === "upload") return "inputs: pictures, rotary tables, ranges";
  if (writer.startsWith("attention")) return "attention: results, sums and their gradients";
  if (writer.startsWith("pack")) return "packed copies of matrices";
  switch (phase) {
    case "tower":
      return "image tower: activations";
    case "decoder":
      return "decoder: activations";
    case "loss":
      return "logits and their gradients";
    case "backward":
      return "backward: gradients and what is computed again";
    default:
      return "optimiser";
  }
}

function grouped(parts: readonly Part[]): Part[] {
  const sums = new Map<string, number>();
  for (const { name, bytes } of parts) sums.set(name, (sums.get(name) ?? 0) + bytes);
  return [...sums].map(([name, bytes]) => ({ name, bytes })).filter(({ bytes }) => bytes > 0)
    .sort((a, b) => b.bytes - a.bytes);
}

function addWork(total: Record<string, Work>, more: ReadonlyMap<string, Work>, times: number): void {
  for (const [phase, { dispatches, flops, bytes }] of more) {
    const sum = total[phase] ??= { dispatches: 0, flops: 0, bytes: 0 };
    sum.dispatches += times * dispatches;
    sum.flops += times * flops;
    sum.bytes += times * bytes;
  }
}

function slabBytes(slabs: readonly Slab[]): number {
  return slabs.flatMap(({ param, grad, m, v }) => [param, grad, m, v]).reduce(
    (sum, { buffer }) => sum + buffer.bytes,
    0,
  );
}

function sizesOf(model: Model, batches: readonly PackedBatch[]) {
  const sum = (count: (batch: PackedBatch) => number) => batches.reduce((n, batch) => n + count(batch), 0);
  return {
    tokens: sum(({ ids }) => ids.length),
    supervised: sum(({ rows }) => rows.length),
    features: sum(({ images }) => images.reduce((n, image) => n + model.featuresOf(image), 0)),
  };
}

function countVision({ params }: Registry): number {
  return [...params.values()].filter(({ name }) => /(^|\.)(vision_tower|vision_model|visual)\./.test(name))
    .reduce((sum, { shape }) => sum + sizeOf(shape), 0);
}

function shapesOf({ params }: Registry): Plan["shapes"] {
  const shapes: Plan["shapes"] = {}, first = new Map<string, string>();
  for (const { name, shape } of params.values()) {
    const key = `${name.replace(/\.\d+\./g, ".N.")} ${shape}`;
    if (first.has(key)) shapes[first.get(key)!].count++;
    else {
      first.set(key, name);
      shapes[name] = { shape, count: 1 };
    }
  }
  return shapes;
}
