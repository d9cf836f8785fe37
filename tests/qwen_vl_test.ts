/**
 * Qwen-VL of 2023 beyond its parity case: published sizes, the vision tower step by step, every weight trained, and
 * longer contexts, against the published modelling code (fixtures/models/qwen_vl/make.py). Refuses spans that do not fit.
 */
import assert from "node:assert/strict";
import { type EncodedSample, pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { readJson } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { lognScale, ntkAlpha } from "../core/long_context.ts";
import { sizeOf } from "../core/shape.ts";
import { openGpu } from "../gpu/device.ts";
import { type Model, runModel } from "../gpu/models/model.ts";
import { createQwenVl } from "../gpu/models/qwen_vl.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { placeTrained } from "../gpu/nn/params.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { Tape } from "../gpu/tape.ts";
import { Taps } from "../gpu/taps.ts";
import { accumulateGradients } from "../gpu/train.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { allclose, FIXTURES, relativeError } from "./check.ts";

const gpu = await openGpu();
const folder = new DiskFolder(`${FIXTURES}/models/qwen_vl`);
const config = await readJson(folder, "config.json") as Record<string, unknown> & {
  visual: Record<string, number>;
};
const reference = await SafetensorsFile.open(await folder.open("case.safetensors"));
const sample: EncodedSample = {
  id: "case",
  ids: await reference.ints("input_ids"),
  labels: await reference.ints("labels"),
  images: [{
    pixelValues: await reference.f32("pixel_values"),
    shape: reference.entry("pixel_values").shape,
  }],
};
const truths = new Map<string, Float32Array>();
for (const [key, { dtype }] of reference.entries) {
  if (dtype === "F32") truths.set(key, await reference.f32(key));
}
reference.source.close();
const truth = (key: string) => truths.get(key)!;

async function openModel(change: Record<string, unknown> = {}, trained = false): Promise<Model> {
  const model = createQwenVl({ ...config, ...change }), weights = await openWeights(folder);
  if (trained) { for (const param of model.registry.params.values()) param.group = "full"; }
  placeTrained(gpu, trained ? [...model.registry.params.values()] : []);
  await loadWeights(gpu, model, weights);
  weights.close();
  return model;
}

const packed = (model: Model, samples: readonly EncodedSample[] = [sample]) =>
  pack(samples, {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });

/** Logits (T, V) of an evaluation. */
async function logitsOf(model: Model, samples?: readonly EncodedSample[]): Promise<Float32Array> {
  using _scope = gpu.pool.scope();
  const batch = packed(model, samples);
  const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, false);
  const logits = gpu.empty([batch.ids.length, model.decoder.config.V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  return (await gpu.read(logits))[0] as Float32Array;
}

Deno.test("the published config gives the tensors and counts of the published checkpoint", () => {
  const { registry, decoder, imageToken } = createQwenVl({
    model_type: "qwen",
    intermediate_size: 22016,
    visual: {
      heads: 16,
      image_size: 448,
      image_start_id: 151857,
      layers: 48,
      mlp_ratio: 4.9231,
      output_dim: 4096,
      patch_size: 14,
      width: 1664,
    },
  });
  const params = [...registry.params.values()];
  const countOf = (prefix: string) =>
    params.reduce((sum, { name, shape }) => sum + (name.startsWith(prefix) ? sizeOf(shape) : 0), 0);
  assert.equal(params.length, 853);
  assert.equal(registry.count * 2, 19313870336, "bytes in bf16: total_size of the checkpoint's index");
  assert.equal(countOf("transformer.visual."), 1935610624);
  assert.equal(countOf("transformer.visual.attn_pool."), 76054528);
  assert.deepEqual([decoder.config.F, decoder.config.D, decoder.config.V], [11008, 128, 151936]);
  assert.deepEqual(imageToken, { start: 151857, end: 151858, features: 256 });
});

Deno.test("each step of the vision tower is that of the published code", async () => {
  const model = await openModel(), batch = packed(model);
  using _scope = gpu.pool.scope();
  const sites = ["patches", "layers.0.resid_post", "layers.1.resid_post", "resampled"];
  const taps = new Taps(sites.map((site) => ({ site: `vision.${site}`, reduction: "all" })), batch);
  runModel(new Forward(new Tape(gpu, false), taps), model, batch, false);
  const found = await taps.collect(gpu);
  for (const site of sites) {
    allclose(site, found.get(`vision.${site}@all`)!.data, truth(`vision.${site}`), 1e-5);
  }
});

Deno.test("with every weight trained, each has the gradient of the published code", async () => {
  const model = await openModel({}, true), params = [...model.registry.params.values()];
  using _scope = gpu.pool.scope();
  const [loss] = accumulateGradients(gpu, model, [packed(model)], { checkpointed: true, dropoutSeed: 0 });
  const [ours, ...grads] = await gpu.read(loss, ...params.map(({ tensor }) => tensor.grad!));
  allclose("loss", ours, truth("base.loss"), 1e-5);
  // That code keeps its table of sines frozen.
  const known = params.filter(({ name }) => name !== "transformer.visual.attn_pool.pos_embed");
  assert.deepEqual(
    known.map(({ name }) => `full.${name}`).sort(),
    [...truths.keys()].filter((key) => key.startsWith("full.")).sort(),
  );
  for (const param of known) {
    allclose(param.name, grads[params.indexOf(param)], truth(`full.${param.name}`), 1e-4);
  }
});

Deno.test("dynamic NTK and logn change evaluations beyond the training context as published, and no training", async () => {
  const plain = await logitsOf(await openModel());
  const cases: [string, number, boolean, boolean][] = [
    ["ntk", 24, true, false],
    ["logn", 12, false, true],
    ["both", 8, true, true],
  ];
  for (const [name, seq_length, use_dynamic_ntk, use_logn_attn] of cases) {
    const model = await openModel({ seq_length, use_dynamic_ntk, use_logn_attn });
    const theirs = truth(`long.${name}.${seq_length}`), ours = await logitsOf(model);
    allclose(name, ours, theirs, 1e-5);
    assert(relativeError(plain, theirs) > 1e-3, `${name} changes nothing`);

    using _scope = gpu.pool.scope();
    const [loss] = accumulateGradients(gpu, model, [packed(model)], { checkpointed: true, dropoutSeed: 0 });
    allclose(`${name}, training`, (await gpu.read(loss))[0], truth("base.loss"), 1e-5);
  }
});

Deno.test("packed samples beyond the training context each keep their own rotary base and places", async () => {
  const model = await openModel({ seq_length: 8, use_dynamic_ntk: true, use_logn_attn: true });
  const short: EncodedSample = {
    id: "short",
    ids: sample.ids.slice(-14),
    labels: sample.labels.slice(-14),
    images: [],
  };
  const together = await logitsOf(model, [short, sample]);
  const apart = [...await logitsOf(model, [short]), ...await logitsOf(model)];
  allclose("packed", together, apart, 1e-5);
});

Deno.test("factors of dynamic NTK and logn", () => {
  const lengths = [1, 2047, 2048, 2049, 4096, 4097, 8192, 8193];
  assert.deepEqual(lengths.map((n) => ntkAlpha(n, 2048)), [1, 1, 1, 3, 3, 7, 7, 15]);
  assert.deepEqual([0, 2047].map((position) => lognScale(position, 2048)), [1, 1]);
  assert.equal(lognScale(2048 ** 2 - 1, 2048), 2);
});

Deno.test("image spans that do not fit are refused, and so are configs", () => {
  const model = createQwenVl(config), { ids } = sample, start = ids.indexOf(256);
  const wrong = (change: (ids: number[]) => number[], message: RegExp) => {
    const changed = change([...ids]);
    const bad = { ...sample, id: "odd", ids: changed, labels: changed };
    assert.throws(() => packed(model, [bad]), (error: Error) => {
      assert(error instanceof InputError);
      assert.match(error.message, message);
      return true;
    });
  };
  wrong(
    (ids) => ids.slice(0, 18),
    /^Cannot pack sample "odd": 9 image tokens for 1 pictures with 18 features$/,
  );
  wrong(
    (ids) => ids.toSpliced(start + 1, 1),
    /"odd": tag 256 at token 4, expected 256, 9 image tokens and 257$/,
  );
  wrong((ids) => ids.with(start, 5), /"odd": tag 257 at token 14, expected 256/);
  wrong((ids) => ids.with(start + 3, 256), /"odd": tag 256 at token 4, expected 256/);
  wrong((ids) => [...ids, 256], /"odd": tag 256 at token 43, expected 256/);

  const refused = (change: Record<string, unknown>, message: RegExp) =>
    assert.throws(() => createQwenVl({ ...config, ...change }), message);
  refused({ visual: undefined }, /Cannot use the qwen config: field "visual": [^\n]*$/);
  refused({ kv_channels: 8 }, /4 heads of 8 channels, hidden_size 64/);
  refused({ rotary_pct: 0.5 }, /rotary_pct/);
  refused({ visual: { ...config.visual, n_queries: 10 } }, /n_queries 10 is no square/);
  refused({ visual: { ...config.visual, output_dim: 96 } }, /output_dim is 96, expected hidden_size 64/);
  refused(
    { hidden_size: 192, kv_channels: 48, visual: { ...config.visual, output_dim: 192 } },
    /192 channels into 1 heads/,
  );
});
