/**
 * LLaVA in its authors' own layouts against transformers' llava with the same weights: a Vicuna, a projector and a
 * CLIP, or a released folder and a CLIP. What does not fit together is refused, naming file and field.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { openWeights, weightFiles } from "../core/formats/checkpoint.ts";
import { type Folder, MemoryFolder, readJson } from "../core/formats/folder.ts";
import { composeLlava, type LlavaParts } from "../core/formats/llava_original.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import { pack } from "../core/data/pack.ts";
import { openGpu } from "../gpu/device.ts";
import { createModel } from "../gpu/models/create.ts";
import { runModel } from "../gpu/models/model.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { relative } from "../gpu/parity.ts";
import { Tape } from "../gpu/tape.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { modelFolder } from "../scripts/model.ts";
import { FIXTURES } from "./check.ts";

const gpu = await openGpu();
const root = new DiskFolder(`${FIXTURES}/llava_original`);
const tower = root.folder("clip"), vicuna = root.folder("vicuna"), release = root.folder("release");
const projector = { path: "mm_projector.bin", open: () => root.open("mm_projector.bin") };

async function logitsOf(folder: Folder): Promise<{ ours: Float32Array; theirs: Float32Array }> {
  const model = createModel(await readJson(folder, "config.json")), source = await openWeights(folder);
  const reference = await SafetensorsFile.open(await root.open("case.safetensors"));
  try {
    await loadWeights(gpu, model, source);
    const ids = await reference.ints("input_ids"), pixels = await reference.f32("pixel_values");
    const sample = { id: "case", ids, labels: ids, images: [{ pixelValues: pixels, shape: [3, 12, 12] }] };
    const { imageToken, featuresOf } = model;
    const batch = pack([sample], { imageToken, featuresOf, supervised: false });
    using _scope = gpu.pool.scope();
    const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, false);
    const logits = gpu.empty([ids.length, model.decoder.config.V]);
    matmulNT(gpu, hidden, model.head.tensor, logits);
    const [ours] = await gpu.read(logits);
    return { ours: ours as Float32Array, theirs: await reference.f32("logits") };
  } finally {
    source.close();
    reference.source.close();
  }
}

const LAYOUTS: Record<string, LlavaParts> = {
  "a Vicuna, a projector and a CLIP": { language: vicuna, tower, projector },
  "a released folder and a CLIP": { language: release, tower },
  "a released folder, its projector replaced by itself": { language: release, tower, projector },
};
for (const [layout, parts] of Object.entries(LAYOUTS)) {
  Deno.test(`${layout} compute the logits of transformers' llava`, async () => {
    const { ours, theirs } = await logitsOf(await composeLlava(parts));
    const difference = relative(ours, theirs);
    assert(difference <= 1e-4, `logits differ by ${difference}`);
  });
}

/** A folder with some files of another and some changed. */
async function changed(folder: Folder, files: Record<string, unknown>): Promise<MemoryFolder> {
  const copy = new MemoryFolder(folder.path.split("/").at(-1)!);
  for (const name of await folder.list()) await copy.write(name, await folder.read(name));
  for (const [name, json] of Object.entries(files)) await copy.write(name, JSON.stringify(json));
  return copy;
}
const configOf = async (folder: Folder) => await readJson(folder, "config.json") as Record<string, unknown>;

Deno.test("the image token is the first id that nothing else has", async () => {
  const tokens = { "added_tokens.json": { "[PAD]": 96 }, "tokenizer_config.json": { bos_token: "<s>" } };
  const folder = await composeLlava({ language: await changed(vicuna, tokens), tower, projector });
  assert.equal((await configOf(folder)).image_token_index, 97);
  const settings = await readJson(folder, "tokenizer_config.json") as Record<string, Record<string, unknown>>;
  assert.equal(settings.bos_token, "<s>");
  assert.equal((settings.added_tokens_decoder["97"] as { content: string }).content, "<image>");
  assert.equal(
    (await configOf(await composeLlava({ language: vicuna, tower, projector }))).image_token_index,
    96,
  );
});

Deno.test("pictures are padded to a square unless the config says otherwise", async () => {
  const processor = async (language: Folder) => {
    const folder = await composeLlava({ language, tower, projector });
    return await readJson(folder, "preprocessor_config.json") as Record<string, unknown>;
  };
  const { do_pad, image_processor_type, crop_size } = await processor(release);
  assert.deepEqual([do_pad, image_processor_type, crop_size], [true, "LlavaImageProcessor", 12]);
  const square = { "config.json": { ...await configOf(release), image_aspect_ratio: "square" } };
  assert.equal((await processor(await changed(release, square))).do_pad, false);
  assert.equal((await processor(vicuna)).do_pad, true);
});

Deno.test("the parts are one folder: files that identify it, its own config, nothing to write", async () => {
  const folder = await composeLlava({ language: vicuna, tower, projector });
  assert.deepEqual(await weightFiles(folder), [
    "language/pytorch_model-00001-of-00002.bin",
    "language/pytorch_model-00002-of-00002.bin",
    "projector/mm_projector.bin",
    "tower/pytorch_model.bin",
  ]);
  for (const name of await weightFiles(folder)) {
    const file = await folder.open(name);
    assert(file.size > 0);
    file.close();
  }
  assert.equal((await configOf(folder)).model_type, "llava");
  await assert.rejects(folder.write("config.json", "{}"), InputError);
});

Deno.test("a tower that was tuned goes before the CLIP's own", async () => {
  const clip = await openWeights(tower), name = "vision_model.embeddings.class_embedding";
  const folder = await composeLlava({ language: await withTower(release), tower });
  const source = await openWeights(folder);
  assert.deepEqual(source.shape("model.vision_tower.embeddings.class_embedding"), [2]);
  assert.deepEqual(clip.shape(name), [16]);
  for (const opened of [clip, source]) opened.close();
});

/** The released layout with one tensor of a tower beside its language model. */
async function withTower(folder: Folder): Promise<MemoryFolder> {
  const copy = await changed(folder, {
    "pytorch_model.bin.index.json": { weight_map: { a: "language.bin", b: "tower.safetensors" } },
  });
  await copy.write("language.bin", await copy.read("pytorch_model.bin"));
  await copy.remove("pytorch_model.bin");
  const key = "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding";
  await copy.write(
    "tower.safetensors",
    encodeSafetensors({ [key]: { shape: [2], data: new Float32Array(2) } }),
  );
  return copy;
}

Deno.test("parts that do not fit are refused by file and field", async () => {
  const refuse = async (parts: LlavaParts, pattern: RegExp) =>
    await assert.rejects(
      composeLlava(parts),
      (error) => error instanceof InputError && pattern.test(error.message),
      String(pattern),
    );
  const language = async (change: object) =>
    await changed(release, { "config.json": { ...await configOf(release), ...change } });
  await refuse(
    { language: await language({ mm_projector_type: "linear" }), tower },
    /"mm_projector_type" is "linear"/,
  );
  await refuse(
    { language: await language({ mm_use_im_start_end: true }), tower },
    /"mm_use_im_start_end" is true/,
  );
  await refuse(
    { language: await language({ mm_patch_merge_type: "spatial_unpad" }), tower },
    /expected "flat"$/,
  );
  await refuse(
    { language: await language({ model_type: "mistral" }), tower },
    /release\/config\.json.*"model_type"/,
  );
  await refuse(
    { language: vicuna, tower: vicuna, projector },
    /vicuna\/config\.json" as a part of a llava: "model_type"/,
  );
  await refuse({
    language: vicuna,
    tower: await changed(tower, { "config.json": { model_type: "clip" } }),
    projector,
  }, /no "vision_config"/);
  await assert.rejects(
    logitsOf(await composeLlava({ language: vicuna, tower })),
    /missing "model\.multi_modal_projector/,
  );
});

Deno.test("a task's flags name the parts, as folders or files", async () => {
  const at = (name: string) => `${root.path}/${name}`;
  const flags = { visionTower: at("clip"), mmProjector: at("mm_projector.bin") };
  for (const mmProjector of [flags.mmProjector, root.path]) {
    const folder = await modelFolder(at("vicuna"), { ...flags, mmProjector });
    assert.equal((await configOf(folder)).model_type, "llava");
    const source = await openWeights(folder);
    assert.deepEqual(source.shape("model.multi_modal_projector.linear_1.weight"), [32, 16]);
    source.close();
  }
  const missing = modelFolder(at("release"));
  await assert.rejects(
    missing,
    /comes without its vision tower, .* copy of "openai\/clip-tiny" with --vision-tower$/,
  );
  await assert.rejects(
    modelFolder(at("vicuna"), { mmProjector: flags.mmProjector }),
    /--vision-tower is missing$/,
  );
  assert.equal((await configOf(await modelFolder(at("vicuna")))).model_type, "llama");
});
