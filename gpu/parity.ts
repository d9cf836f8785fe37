/**
 * Parity with transformers + peft on one case folder: a checkpoint, an adapter, and what Python computed on them.
 * It measures and judges nothing: the tests and the reader do.
 */
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { readAdapter, readAdapterConfig } from "../core/formats/peft.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import type { EncodedSample, PackedBatch } from "../core/data/pack.ts";
import { pack } from "../core/data/pack.ts";
import type { Processed } from "../core/image/processors.ts";
import type { Gpu } from "./device.ts";
import { createModel } from "./models/create.ts";
import { type Model, runModel } from "./models/model.ts";
import { loadWeights, type WeightType } from "./models/weights.ts";
import { Forward } from "./nn/forward.ts";
import { attachLora, loadLora } from "./nn/lora.ts";
import { optimizerStep, zeroGrad } from "./nn/optimizer.ts";
import { type Param, placeTrained, type Slab } from "./nn/params.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { matmulNT } from "./ops/matmul.ts";
import { Tape } from "./tape.ts";
import { Taps } from "./taps.ts";

export interface ForwardParity {
  logits_rel: number;
  hidden_max_rel: number;
  loss_abs: number;
}

export interface Parity {
  family: string;
  T: number;
  base: ForwardParity;
  lora: ForwardParity;
  image_features_rel: number | null;
  grad: { count: number; missing: number; min_cosine: number; max_rel: number };
  train: { losses_max_rel: number; adapter_max_rel: number };
}

/** ||ours - theirs|| / ||theirs||. @throws Error when the lengths differ */
export function relative(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  if (ours.length !== theirs.length) {
    throw new Error(`Cannot compare ${ours.length} values with ${theirs.length}`);
  }
  let difference = 0, norm = 0;
  for (let i = 0; i < ours.length; i++) {
    difference += (ours[i] - theirs[i]) ** 2;
    norm += theirs[i] ** 2;
  }
  return Math.sqrt(difference) / (Math.sqrt(norm) || 1);
}

function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / (Math.sqrt(aa * bb) || 1);
}

/** Runs the whole case on the device. @throws InputError for a folder that is not such a case */
export async function runParity(gpu: Gpu, folder: Folder, type: WeightType = "f32"): Promise<Parity> {
  const model = createModel(await readJson(folder, "config.json"));
  const reference = await SafetensorsFile.open(await folder.open("case.safetensors"));
  const weights = await openWeights(folder);
  try {
    await loadWeights(gpu, model, weights, type);
    const batch = await readBatch(model, reference);
    const base = await forwardParity(gpu, model, batch, reference, "base");
    const config = await readAdapterConfig(folder.folder("adapter"));
    const params = attachLora(model.registry, config);
    const slabs = placeTrained(gpu, params);
    const adapter = await readAdapter(folder.folder("adapter"));
    loadLora(gpu, params, adapter);
    const lora = await forwardParity(gpu, model, batch, reference, "lora");
    const grad = await gradientParity(gpu, model, batch, reference, params, slabs);
    loadLora(gpu, params, adapter);
    const train = await trainParity(gpu, model, batch, reference, params, slabs);
    const { image, ...baseOnly } = base, { image: _image, ...loraOnly } = lora;
    return {
      family: model.family,
      T: batch.ids.length,
      base: baseOnly,
      lora: loraOnly,
      image_features_rel: image,
      grad,
      train,
    };
  } finally {
    weights.close();
    reference.source.close();
  }
}

export async function readBatch(model: Model, reference: SafetensorsFile): Promise<PackedBatch> {
  return pack([await readSample(reference)], {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
  });
}

/** Tokens, labels and pictures of a case. */
export async function readSample(reference: SafetensorsFile): Promise<EncodedSample> {
  const ids = await reference.ints("input_ids"), labels = await reference.ints("labels");
  const images = reference.entries.has("pixel_values") ? await readImages(reference) : [];
  return { id: "case", ids, labels, images };
}

/** Pictures (n, 3, H, W) one by one, all tiles (1, n, 3, H, W) together, of patches a stretch of rows for each grid. */
async function readImages(reference: SafetensorsFile): Promise<Processed[]> {
  const pixelValues = await reference.f32("pixel_values"), { shape } = reference.entry("pixel_values");
  if (!reference.entries.has("image_grid_thw")) {
    if (shape.length !== 4) return [{ pixelValues, shape }];
    const [count, ...picture] = shape, size = pixelValues.length / count;
    return Array.from({ length: count }, (_, i) => ({
      pixelValues: pixelValues.subarray(i * size, (i + 1) * size),
      shape: [1, ...picture],
    }));
  }
  const sides = await reference.ints("image_grid_thw"), width = shape[1], images: Processed[] = [];
  for (let i = 0, from = 0; i < sides.length; i += 3) {
    const grid: Processed["grid"] = [sides[i], sides[i + 1], sides[i + 2]],
      rows = grid[0] * grid[1] * grid[2];
    images.push({
      pixelValues: pixelValues.subarray(from, from += rows * width),
      shape: [rows, width],
      grid,
    });
  }
  return images;
}

async function forwardParity(
  gpu: Gpu,
  model: Model,
  batch: PackedBatch,
  reference: SafetensorsFile,
  tag: string,
): Promise<ForwardParity & { image: number | null }> {
  using _scope = gpu.pool.scope();
  const requests = [
    "embed",
    "layers.*.resid_post",
    "norm",
    ...(batch.images.length ? ["image_features"] : []),
  ]
    .map((site) => ({ site, reduction: "all" }));
  const taps = new Taps(requests, batch);
  const tape = new Tape(gpu, false);
  const hidden = runModel(new Forward(tape, taps), model, batch, false);
  const { T, V } = { T: batch.ids.length, V: model.decoder.config.V };
  const logits = gpu.empty([T, V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  const { loss } = crossEntropy(tape, hidden, model.head.tensor, { ...batch, scale: 1 / batch.rows.length });
  const [ourLogits, ourLoss] = await gpu.read(logits, loss);
  const found = await taps.collect(gpu);
  const layers = model.decoder.config.layers;
  let hiddenMax = 0;
  for (let i = 0; i <= layers; i++) {
    const site = i === 0 ? "embed" : i === layers ? "norm" : `layers.${i - 1}.resid_post`;
    hiddenMax = Math.max(
      hiddenMax,
      relative(found.get(`${site}@all`)!.data, await reference.f32(`${tag}.hidden.${i}`)),
    );
  }
  return {
    logits_rel: relative(ourLogits, await reference.f32(`${tag}.logits`)),
    hidden_max_rel: hiddenMax,
    loss_abs: Math.abs(ourLoss[0] - (await reference.f32(`${tag}.loss`))[0]),
    image: batch.images.length
      ? relative(found.get("image_features@all")!.data, await reference.f32("image_features"))
      : null,
  };
}

/** Loss and gradients of the whole batch, added to the slabs; the loss stays on the device. */
function lossAndGradients(gpu: Gpu, model: Model, batch: PackedBatch, slabs: readonly Slab[]) {
  const tape = new Tape(gpu);
  zeroGrad(gpu, slabs);
  const hidden = runModel(new Forward(tape), model, batch, true);
  const { loss } = crossEntropy(tape, hidden, model.head.tensor, { ...batch, scale: 1 / batch.rows.length });
  tape.backward(loss, gpu.upload(new Float32Array([1])));
  return loss;
}

async function gradientParity(
  gpu: Gpu,
  model: Model,
  batch: PackedBatch,
  reference: SafetensorsFile,
  params: readonly Param[],
  slabs: readonly Slab[],
): Promise<Parity["grad"]> {
  using _scope = gpu.pool.scope();
  lossAndGradients(gpu, model, batch, slabs);
  const ours = await gpu.read(...params.map(({ tensor }) => tensor.grad!));
  const theirs = [...reference.entries.keys()].filter((key) => key.startsWith("grad."));
  const result = { count: 0, missing: 0, min_cosine: 1, max_rel: 0 };
  for (const key of theirs) {
    const index = params.findIndex(({ name }) => `grad.${name}` === key);
    if (index < 0) {
      result.missing++;
      continue;
    }
    const want = await reference.f32(key), have = ours[index];
    result.count++;
    result.min_cosine = Math.min(result.min_cosine, cosine(have, want));
    result.max_rel = Math.max(result.max_rel, relative(have, want));
  }
  return result;
}

/** Ten AdamW steps as the case's script takes them: lr 1e-2, decay 0.01, no clipping. */
async function trainParity(
  gpu: Gpu,
  model: Model,
  batch: PackedBatch,
  reference: SafetensorsFile,
  params: readonly Param[],
  slabs: readonly Slab[],
): Promise<Parity["train"]> {
  for (const { m, v } of slabs) {
    gpu.zero(m);
    gpu.zero(v);
  }
  const losses: number[] = [], theirs = await reference.f32("train.losses");
  for (let step = 1; step <= theirs.length; step++) {
    using _scope = gpu.pool.scope();
    const loss = lossAndGradients(gpu, model, batch, slabs);
    optimizerStep(gpu, slabs, {
      lr: () => 1e-2,
      beta1: 0.9,
      beta2: 0.999,
      eps: 1e-8,
      weightDecay: 0.01,
      step,
      maxNorm: 0,
    });
    losses.push((await gpu.read(loss))[0][0]);
  }
  const values = await gpu.read(...params.map(({ tensor }) => tensor));
  let adapter = 0;
  for (const [i, { name }] of params.entries()) {
    const key = `train.adapter.${name}`;
    if (!reference.entries.has(key)) {
      throw new InputError(`Cannot compare the adapter: the case has no "${key}"`);
    }
    adapter = Math.max(adapter, relative(values[i], await reference.f32(key)));
  }
  return {
    losses_max_rel: Math.max(...losses.map((loss, i) => Math.abs(loss - theirs[i]) / Math.abs(theirs[i]))),
    adapter_max_rel: adapter,
  };
}
