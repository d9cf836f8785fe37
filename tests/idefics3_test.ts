/**
 * Idefics3 and SmolVLM beyond their parity cases: published sizes, positions of pictures unlike the table, several
 * pictures with all weights trained against transformers, and text alone. Refuses tiles that do not fit the model.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { readJson } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import type { Processed } from "../core/image/processors.ts";
import { sizeOf } from "../core/shape.ts";
import { openGpu } from "../gpu/device.ts";
import { createIdefics3 } from "../gpu/models/idefics3.ts";
import { type Model, runModel } from "../gpu/models/model.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { placeTrained } from "../gpu/nn/params.ts";
import { positionBuckets } from "../gpu/nn/siglip.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { Tape } from "../gpu/tape.ts";
import { Taps } from "../gpu/taps.ts";
import { accumulateGradients } from "../gpu/train.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { allclose, FIXTURES } from "./check.ts";

const gpu = await openGpu();
const folder = new DiskFolder(`${FIXTURES}/models/idefics3_tiles`);
const config = await readJson(folder, "config.json") as Record<string, Record<string, unknown>>;
const published = await readJson(new DiskFolder(`${FIXTURES}/configs`), "SmolVLM-256M-Instruct.json") as {
  config: Record<string, unknown>;
  parameters: number;
  vision: number;
  tensors: number;
  shapes: Record<string, number[]>;
};

Deno.test("a published SmolVLM config gives transformers' tensors, shapes and counts", () => {
  for (const model_type of ["idefics3", "smolvlm"]) {
    const { registry, family } = createIdefics3({ ...published.config, model_type });
    assert.equal(family, model_type);
    assert.equal(registry.params.size, published.tensors);
    assert.equal(registry.count, published.parameters);
    for (const [name, shape] of Object.entries(published.shapes)) {
      assert.deepEqual(registry.params.get(name)?.shape, shape, name);
    }
    const vision = [...registry.params.values()].filter(({ name }) => name.startsWith("model.vision_model."));
    assert.equal(vision.reduce((sum, { shape }) => sum + sizeOf(shape), 0), published.vision);
  }
});

Deno.test("a tied head is the embeddings again, and counted once", () => {
  const { head, decoder, registry } = createIdefics3({ ...published.config, tie_word_embeddings: true });
  assert.equal(head, decoder.embedTokens);
  assert.equal(registry.count, published.parameters - sizeOf(published.shapes["lm_head.weight"]));
});

Deno.test("missing parts of a config take transformers' defaults", () => {
  const { decoder, imageToken, registry } = createIdefics3({ model_type: "idefics3" });
  assert.deepEqual([decoder.config.C, decoder.config.eps, imageToken], [4096, 1e-5, 128257]);
  assert.deepEqual(
    registry.params.get("model.connector.modality_projection.proj.weight")?.shape,
    [4096, 4 * 1152],
  );
  assert.equal(createIdefics3({ model_type: "smolvlm", text_config: {} }).decoder.config.eps, 1e-6);
});

Deno.test("patches take the rows of the position table that transformers gives them", async () => {
  const cases = await readJson(folder, "positions.json") as {
    table: number;
    side: number;
    buckets: number[];
  }[];
  for (const { table, side, buckets } of cases) {
    assert.deepEqual(positionBuckets(table, side), buckets, `${side} patches in a table of ${table}`);
  }
  // The fixture holds sides whose rounding puts a patch one row too low: the plain order would not pass.
  assert(cases.some(({ table, side, buckets }) => table === side && buckets.some((b, i) => b !== i)));
});

async function openCase() {
  const model = createIdefics3(config), params = [...model.registry.params.values()];
  for (const param of params) param.group = "full";
  const slabs = placeTrained(gpu, params), weights = await openWeights(folder);
  await loadWeights(gpu, model, weights);
  weights.close();
  const reference = await SafetensorsFile.open(await folder.open("case.safetensors"));
  const pixels = await reference.f32("pixel_values"), { shape } = reference.entry("pixel_values");
  const tile = sizeOf(shape) / 3,
    tiles = (from: number, to: number): Processed => ({
      pixelValues: pixels.subarray(from * tile, to * tile),
      shape: [1, to - from, ...shape.slice(2)],
    });
  const [ids, labels] = [await reference.ints("input_ids"), await reference.ints("labels")];
  const sample = { id: "case", ids, labels, images: [tiles(0, 2), tiles(2, 3)] };
  return { model, params, slabs, reference, sample };
}

const packed = (model: Model, sample: Parameters<typeof pack>[0][number]) =>
  pack([sample], { imageToken: model.imageToken, featuresOf: (image) => model.featuresOf(image) });

Deno.test("two pictures of other sizes than the table's: every weight has transformers' gradient", async () => {
  const { model, params, reference, sample } = await openCase();
  const batch = packed(model, sample);
  using _scope = gpu.pool.scope();
  const taps = new Taps([{ site: "image_features", reduction: "all" }], batch);
  const hidden = runModel(new Forward(new Tape(gpu, false), taps), model, batch, false);
  const logits = gpu.empty([batch.ids.length, model.decoder.config.V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  const [ours] = await gpu.read(logits);
  const features = (await taps.collect(gpu)).get("image_features@all")!;
  allclose("features", features.data, await reference.f32("features"), 1e-5);
  allclose("logits", ours, await reference.f32("logits"), 1e-5);

  const [loss] = accumulateGradients(gpu, model, [batch], { checkpointed: true, dropoutSeed: 0 });
  const read = await gpu.read(loss, ...params.map(({ tensor }) => tensor.grad!));
  allclose("loss", read[0], await reference.f32("loss"), 1e-5);
  assert.deepEqual(
    params.map(({ name }) => `grad.${name}`).sort(),
    [...reference.entries.keys()].filter((key) => key.startsWith("grad.")).sort(),
  );
  for (const [i, { name }] of params.entries()) {
    const want = await reference.f32(`grad.${name}`);
    // A bias of the keys moves every score of a query alike: its gradient is zero but for rounding.
    if (name.endsWith("k_proj.bias")) {
      const size = Math.hypot(...await reference.f32(`grad.${name.replace("k_proj", "q_proj")}`));
      assert(Math.hypot(...read[i + 1]) <= 1e-4 * size, name);
    } else allclose(name, read[i + 1], want, 1e-4);
  }
  reference.source.close();
});

Deno.test("text alone runs, and a sample short of image tokens is refused", async () => {
  const { model, reference, sample } = await openCase();
  reference.source.close();
  const ids = [3, 4, 5, 6];
  const batch = packed(model, { id: "text", ids, labels: ids, images: [] });
  using _scope = gpu.pool.scope();
  const [hidden] = await gpu.read(runModel(new Forward(new Tape(gpu, false)), model, batch, false));
  assert(hidden.length === 4 * 16 && hidden.every(Number.isFinite));
  assert.throws(
    () => packed(model, { ...sample, images: sample.images.slice(1) }),
    new InputError('Cannot pack sample "case": 27 image tokens for 1 pictures with 9 features'),
  );
});

Deno.test("what the model cannot take is refused by name", () => {
  const model = createIdefics3(config);
  const picture = (height: number, width: number): Processed => ({
    pixelValues: new Float32Array(3 * height * width),
    shape: [1, 1, 3, height, width],
  });
  assert.equal(model.featuresOf(picture(27, 27)), 4);
  for (const [height, width] of [[24, 36], [18, 18], [5, 5]]) {
    assert.throws(
      () => model.featuresOf(picture(height, width)),
      new InputError(
        `Cannot encode a picture of ${height} x ${width} pixels: expected a square whose patches 6 x 6 the scale_factor 2 divides`,
      ),
    );
  }
  for (
    const [change, told] of [
      [{ vision_config: { num_channels: 1 } }, "vision_config.num_channels"],
      [{ text_config: { model_type: "mistral" } }, "text_config.model_type"],
      [{ scale_factor: 0 }, "scale_factor"],
    ] as const
  ) {
    assert.throws(
      () => createIdefics3({ ...config, ...change }),
      (error) => error instanceof InputError && error.message.includes(told),
    );
  }
});
