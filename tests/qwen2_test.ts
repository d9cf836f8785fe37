/**
 * Qwen2-VL and Qwen2.5-VL beyond their parity cases: positions and windows against transformers, published sizes, configs
 * and names of the older generation, packing. Refuses pictures and configs whose parts do not fit one another.
 */
import assert from "node:assert/strict";
import { type EncodedSample, pack, type PackedBatch } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { MemoryFolder, readJson } from "../core/formats/folder.ts";
import { encodeSafetensors, SafetensorsFile, type TensorData } from "../core/formats/safetensors.ts";
import {
  frameStarts,
  type Grid,
  mropePositions,
  patchPositions,
  windowOrder,
} from "../core/grid_positions.ts";
import type { Processed } from "../core/image/processors.ts";
import { ropeFrequencies } from "../core/positions.ts";
import { sizeOf } from "../core/shape.ts";
import { openGpu } from "../gpu/device.ts";
import { createModel } from "../gpu/models/create.ts";
import { type Model, runModel } from "../gpu/models/model.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { placeTrained } from "../gpu/nn/params.ts";
import { Tape } from "../gpu/tape.ts";
import { accumulateGradients } from "../gpu/train.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { allclose, FIXTURES, relativeError } from "./check.ts";

type Config = Record<string, unknown> & Record<"text_config" | "vision_config", Record<string, unknown>>;

const gpu = await openGpu();
const folder = new DiskFolder(`${FIXTURES}/models/qwen2_5_vl`);
const config = await readJson(folder, "config.json") as Config;
const positions = await readJson(folder, "positions.json") as {
  grids: {
    grids: Grid[];
    merge: number;
    side: number;
    rows: number[];
    columns: number[];
    order: number[];
    starts: number[];
  }[];
  tokens: { isImage: number[]; grids: Grid[]; positions: number[][] }[];
  frequencies: { D: number; theta: number; values: number[] }[];
};

Deno.test("patches get transformers' rows, columns and windows", () => {
  for (const { grids, merge, side, rows, columns, order, starts } of positions.grids) {
    assert.deepEqual(patchPositions(grids, merge), [rows, columns]);
    const windows = windowOrder(grids, merge, side);
    assert.deepEqual([[...windows.order], windows.starts], [order, starts]);
    assert.equal(frameStarts(grids).at(-1), rows.length);
  }
  assert.deepEqual(frameStarts([[2, 2, 4], [1, 2, 2]]), [0, 8, 16, 20]);
});

Deno.test("tokens get transformers' times, heights and widths, in a packed micro-batch sample by sample", () => {
  const isImage = positions.tokens.flatMap((sample) => sample.isImage), starts = [0];
  for (const sample of positions.tokens) starts.push(starts.at(-1)! + sample.isImage.length);
  const expected = [0, 1, 2].map((axis) => positions.tokens.flatMap((sample) => sample.positions[axis]));
  const grids = positions.tokens.flatMap((sample) => sample.grids);
  assert.deepEqual(mropePositions({ starts, isImage }, grids, 2), expected);
  assert.throws(
    () => mropePositions({ starts: [0, 4], isImage: [1, 1, 0, 1] }, [[1, 2, 6]], 2),
    { name: "InputError", message: /picture 1 .* 2 of its 3 image tokens stand together/ },
  );
});

Deno.test("rotary frequencies are torch's, but for the last bit of one of them", () => {
  const different = positions.frequencies.flatMap(({ D, theta, values }) => {
    const ours = ropeFrequencies(D, theta);
    allclose(`frequencies of ${D}`, ours, values, 1e-7);
    return values.filter((value, i) => value !== ours[i]);
  });
  assert(different.length <= 1, `${different} differ`);
});

for (const name of ["Qwen2-VL-2B-Instruct", "Qwen2.5-VL-3B-Instruct"]) {
  Deno.test(`the published config of ${name} gives transformers' tensors, shapes and counts`, async () => {
    const published = await readJson(new DiskFolder(`${FIXTURES}/configs`), `${name}.json`) as {
      config: Record<string, unknown>;
      parameters: number;
      vision: number;
      tensors: number;
      shapes: Record<string, number[]>;
    };
    const { registry, decoder, head, imageToken } = createModel(published.config);
    assert.deepEqual([registry.params.size, registry.count], [published.tensors, published.parameters]);
    for (const [name, shape] of Object.entries(published.shapes)) {
      assert.deepEqual(registry.params.get(name)?.shape, shape, name);
    }
    const vision = [...registry.params.values()].filter(({ name }) => name.startsWith("model.visual."));
    assert.equal(vision.reduce((sum, { shape }) => sum + sizeOf(shape), 0), published.vision);
    assert.equal(head, decoder.embedTokens); // tied
    assert.deepEqual([decoder.config.rope.theta, imageToken], [1e6, 151655]);
  });
}

Deno.test("missing fields of a config take transformers' defaults", () => {
  const shapeOf = ({ registry }: Model, name: string) => registry.params.get(name)?.shape;
  const two = createModel({ model_type: "qwen2_vl", vision_config: { hidden_size: 8192 } });
  assert.deepEqual(shapeOf(two, "model.language_model.layers.79.self_attn.k_proj.weight"), [1024, 8192]);
  assert.deepEqual(shapeOf(two, "model.visual.blocks.31.mlp.fc1.weight"), [5120, 1280]);
  assert.deepEqual(shapeOf(two, "lm_head.weight"), [152064, 8192]);
  assert.equal(two.decoder.config.eps, 1e-5);
  const later = createModel({ model_type: "qwen2_5_vl", vision_config: { out_hidden_size: 8192 } });
  assert.deepEqual(shapeOf(later, "model.visual.blocks.0.mlp.gate_proj.weight"), [3420, 3584]);
});

Deno.test("parts of a config that do not fit are refused by name", () => {
  const withText = (fields: object) => ({ ...config, text_config: { ...config.text_config, ...fields } });
  const withVision = (fields: object) => ({
    ...config,
    vision_config: { ...config.vision_config, ...fields },
  });
  const yarn = { rope_type: "yarn", factor: 4, rope_theta: 1e6, mrope_section: [4, 2, 2] };
  const cases: [object, RegExp][] = [
    [withText({ use_sliding_window: true }), /use_sliding_window/],
    [withText({ rope_parameters: yarn }), /rope_type/],
    [withText({ rope_parameters: { mrope_section: [4, 2, 4] } }), /mrope_section adds up to 10, expected 8/],
    [withVision({ out_hidden_size: 48 }), /features of 48 channels, the text has 64/],
    [withVision({ window_size: 20 }), /window_size 20 is below/],
    [withVision({ num_heads: 5 }), /48 vision channels in 5 heads/],
  ];
  for (const [json, message] of cases) {
    assert.throws(
      () => createModel(json),
      (error) => error instanceof InputError && message.test(error.message),
    );
  }
});

async function loaded(json: unknown, weights = folder as MemoryFolder | DiskFolder): Promise<Model> {
  const model = createModel(json), source = await openWeights(weights);
  await loadWeights(gpu, model, source);
  source.close();
  return model;
}

async function hiddenStates(model: Model, batch: PackedBatch): Promise<Float32Array> {
  using _scope = gpu.pool.scope();
  const [values] = await gpu.read(runModel(new Forward(new Tape(gpu, false)), model, batch, false));
  return values as Float32Array;
}

/** The case: its tokens and its two pictures. */
async function wholeCase(): Promise<{ ids: number[]; labels: number[]; images: Processed[] }> {
  const file = await SafetensorsFile.open(await folder.open("case.safetensors"));
  const ids = await file.ints("input_ids"), labels = await file.ints("labels");
  const pixels = await file.f32("pixel_values"), width = file.entry("pixel_values").shape[1];
  const [, height1, width1, , height2, width2] = await file.ints("image_grid_thw"), cut = height1 * width1;
  file.source.close();
  const first: Processed = {
    pixelValues: pixels.subarray(0, cut * width),
    shape: [cut, width],
    grid: [1, height1, width1],
  };
  const second: Processed = {
    pixelValues: pixels.subarray(cut * width),
    shape: [height2 * width2, width],
    grid: [1, height2, width2],
  };
  return { ids, labels, images: [first, second] };
}

/** The case cut before its second picture, a text, and that picture with what follows. */
async function threeSamples(): Promise<EncodedSample[]> {
  const { ids, images: [first, second] } = await wholeCase();
  const cut = ids.lastIndexOf(ids[5]); // what opens a picture
  const sample = (id: string, ids: number[], images: Processed[]) => ({ id, ids, labels: ids, images });
  return [
    sample("first", ids.slice(0, cut), [first]),
    sample("text", ids.slice(0, 5), []),
    sample("second", ids.slice(cut), [second]),
  ];
}

const packed = (model: Model, samples: readonly EncodedSample[]) =>
  pack(samples, { imageToken: model.imageToken, featuresOf: (image) => model.featuresOf(image) });

Deno.test("packed samples with pictures of several sizes, and none, compute what each computes alone", async () => {
  const model = await loaded(config), samples = await threeSamples();
  const together = await hiddenStates(model, packed(model, samples));
  const alone: number[] = [];
  for (const sample of samples) alone.push(...await hiddenStates(model, packed(model, [sample])));
  allclose("hidden states", together, alone, 1e-5);
});

Deno.test("trained as a whole, norms, biases and patches of the tower get transformers' gradients", async () => {
  const model = createModel(config), params = [...model.registry.params.values()];
  for (const param of params) param.group = "full";
  placeTrained(gpu, params);
  const weights = await openWeights(folder);
  await loadWeights(gpu, model, weights);
  weights.close();
  const theirs = await SafetensorsFile.open(await folder.open("vision_gradients.safetensors"));
  const { ids, labels, images } = await wholeCase();
  const batch = packed(model, [{ id: "case", ids, labels, images }]);
  using _scope = gpu.pool.scope();
  accumulateGradients(gpu, model, [batch], { checkpointed: true, dropoutSeed: 0 });
  const compared = params.filter(({ name }) => theirs.entries.has(name));
  assert.equal(compared.length, theirs.entries.size);
  const ours = await gpu.read(...compared.map(({ tensor }) => tensor.grad!));
  for (const [i, { name }] of compared.entries()) {
    allclose(name, ours[i] as Float32Array, await theirs.f32(name), 1e-4);
  }
  theirs.source.close();
});

Deno.test("the case would notice attention without windows, and a transposed grid", async () => {
  const model = await loaded(config), samples = await threeSamples();
  const right = await hiddenStates(model, packed(model, samples));
  const everywhere = {
    ...config,
    vision_config: { ...config.vision_config, fullatt_block_indexes: [0, 1, 2] },
  };
  const unwindowed = await loaded(everywhere);
  assert(relativeError(await hiddenStates(unwindowed, packed(unwindowed, samples)), right) > 1e-3);
  const [{ images: [image] }] = samples;
  image.grid = [1, image.grid![2], image.grid![1]];
  assert(relativeError(await hiddenStates(model, packed(model, samples)), right) > 1e-3);
});

Deno.test("a flat config and the older tensor names load to the same bits", async () => {
  const { text_config, ...rest } = config;
  const { rope_parameters, ...text } = text_config as Record<string, unknown> & {
    rope_parameters: { rope_theta: number; mrope_section: number[] };
  };
  const flat = {
    ...rest,
    ...text,
    model_type: rest.model_type,
    rope_theta: rope_parameters.rope_theta,
    rope_scaling: { type: "mrope", mrope_section: rope_parameters.mrope_section },
  };
  const source = await openWeights(folder), older = new MemoryFolder("older");
  const tensors: Record<string, TensorData> = {};
  for (const name of source.names()) {
    const old = name.replace(/^model\.visual\./, "visual.").replace(/^model\.language_model\./, "model.");
    tensors[old] = { shape: source.shape(name), data: await source.f32(name) };
  }
  await older.write("model.safetensors", encodeSafetensors(tensors));
  source.close();
  const model = await loaded(config), same = await loaded(flat, older), samples = await threeSamples();
  assert.deepEqual(
    await hiddenStates(same, packed(same, samples)),
    await hiddenStates(model, packed(model, samples)),
  );
});

Deno.test("pixels that do not fill their grid are refused", () => {
  const { featuresOf } = createModel(config), pixelValues = new Float32Array(0);
  assert.equal(featuresOf({ pixelValues, shape: [48, 1176], grid: [1, 6, 8] }), 12);
  const wrong: [Processed, RegExp][] = [
    [{ pixelValues, shape: [1, 3, 56, 56] }, /on the grid that is missing/],
    [{ pixelValues, shape: [40, 1176], grid: [1, 6, 8] }, /pixels of \(40, 1176\).*expected \(48, 1176\)/],
    [{ pixelValues, shape: [48, 588], grid: [1, 6, 8] }, /expected \(48, 1176\)/],
    [{ pixelValues, shape: [15, 1176], grid: [1, 3, 5] }, /multiples of 2/],
  ];
  for (const [image, message] of wrong) {
    assert.throws(() => featuresOf(image), { name: "InputError", message });
  }
});
