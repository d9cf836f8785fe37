/**
 * Merged checkpoints: the logits of base and adapter from plain weights, whatever is tied, renamed or cut into slices.
 * A result that computes something else is not kept, and a stopped merge goes on after its last whole file.
 */
import assert from "node:assert/strict";
import { openWeights } from "../core/formats/checkpoint.ts";
import { type Folder, MemoryFolder, readJson } from "../core/formats/folder.ts";
import { readManifest, writeManifest } from "../core/formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import {
  encodeFloats,
  type FloatDtype,
  planShards,
  shardChunks,
  shardIndex,
  type StreamedTensor,
} from "../core/formats/shards.ts";
import { Random } from "../core/random.ts";
import { openGpu } from "../gpu/device.ts";
import { logitsOf } from "../gpu/logits.ts";
import { addProduct, changeOfPeft, changeOfRun, mergedConfig, mergeTensors } from "../gpu/merge.ts";
import { checkBatch } from "../gpu/merge_check.ts";
import { readBatch, relative } from "../gpu/parity.ts";
import { openSession, openTuned, openTunedRun, writeTrained } from "../gpu/session.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { merge, mergeSchema } from "../scripts/merge.ts";
import { FIXTURES } from "./check.ts";
import { EVERYWHERE, randomiseB, SMALL_CONFIG, smallCheckpoint } from "./tiny_model.ts";

const gpu = await openGpu();
const modelAt = (family: string) => new DiskFolder(`${FIXTURES}/models/${family}`);
const adapterAt = (name: string) => new DiskFolder(`${FIXTURES}/adapters/${name}`);

/** Merges an adapter of peft, or a run, into a folder in memory, in shards of at most `limit` bytes. */
async function mergeInto(
  base: Folder,
  tuned: { peft?: Folder; run?: Folder },
  options: { dtype?: FloatDtype; limit?: number; slice?: number } = {},
): Promise<MemoryFolder> {
  const { dtype = "keep", limit = 2 ** 30, slice } = options, out = new MemoryFolder("merged");
  const json = await readJson(base, "config.json"), source = await openWeights(base);
  const change = await (tuned.run ? changeOfRun(json, tuned.run) : changeOfPeft(json, tuned.peft!));
  const shards = planShards(mergeTensors(source, change, dtype, slice), limit), index = shardIndex(shards);
  for (const shard of shards) {
    await out.write(
      shard.file,
      new Uint8Array(await new Blob(await Array.fromAsync(shardChunks(shard))).arrayBuffer()),
    );
  }
  if (index) await out.write("model.safetensors.index.json", index);
  await out.write("config.json", await mergedConfig(base, change, dtype));
  source.close();
  change.source.close();
  return out;
}

async function caseLogits(folder: Folder, family: string): Promise<Float32Array> {
  const tuned = await openTuned(gpu, folder);
  const file = await SafetensorsFile.open(await modelAt(family).open("case.safetensors"));
  const logits = await logitsOf(tuned, await readBatch(tuned.model, file));
  file.source.close();
  tuned.close();
  return logits;
}

for (
  const name of ["llama_patterns", "llama_tied", "llava_projector", "qwen2_vl_older", "smolvlm_connector"]
) {
  Deno.test(`${name} merged: the logits that peft gives with the adapter`, async () => {
    const family = name.replace(/_[a-z]+$/, ""), base = modelAt(family);
    const file = await SafetensorsFile.open(await adapterAt(name).open("logits.safetensors"));
    const expected = await file.f32("logits");
    file.source.close();
    const merged = await mergeInto(base, { peft: adapterAt(name) }, { limit: 300_000 });
    const difference = relative(await caseLogits(merged, family), expected);
    assert(difference <= 1e-5, `logits differ by ${difference}`);
    assert(await merged.exists("model.safetensors.index.json"));
    const source = await openWeights(base), target = await openWeights(merged);
    const added = name === "llama_tied" ? ["lm_head.weight"] : [];
    assert.deepEqual(target.names().sort(), [...source.names(), ...added].sort());
    source.close();
  });
}

Deno.test("names stay those of the checkpoint, a head that parts gets the name it would have there", async () => {
  const older = new MemoryFolder("older"), base = await smallCheckpoint();
  for (const [name, bytes] of base.files) older.files.set(name, bytes);
  const source = await openWeights(base),
    spell = (name: string) =>
      name.replace(/^model\.language_model\./, "language_model.model.").replace(
        /^model\.(vision|multi)/,
        "$1",
      );
  const tensors = await Promise.all(
    source.names().map(async (name) =>
      [spell(name), { shape: source.shape(name), data: await source.f32(name) }] as const
    ),
  );
  await older.write("model.safetensors", encodeSafetensors(Object.fromEntries(tensors)));
  const lora = { ...EVERYWHERE, modules_to_save: ["embed_tokens"] };
  const tuned = await openSession(gpu, older, { lora });
  randomiseB(tuned);
  const run = new MemoryFolder("run");
  await writeTrained(tuned, run, "older");
  await writeManifest(run, { kind: "run", parents: { model: tuned.hash }, config: { lora } });
  const batch = await checkBatch(tuned.model, older), logits = await logitsOf(tuned, batch);
  assert.equal(batch.images.length, 1, "the check sees no picture");
  tuned.close();
  const merged = await mergeInto(older, { run });
  const names = (await openWeights(merged)).names();
  assert.deepEqual(names.sort(), [...tensors.map(([name]) => name), "language_model.lm_head.weight"].sort());
  const plain = await openTuned(gpu, merged);
  assert(relative(await logitsOf(plain, batch), logits) <= 1e-5);
  plain.close();
});

Deno.test("what was trained directly is merged with the adapters beside it", async () => {
  const base = await smallCheckpoint(), trainable = ["multi_modal_projector", "embed_tokens"];
  const tuned = await openSession(gpu, base, { lora: EVERYWHERE, trainable });
  randomiseB(tuned);
  for (const { name, shape, tensor } of tuned.fullParams) {
    const random = new Random(4, name), size = shape.reduce((a, b) => a * b);
    gpu.write(tensor, Float32Array.from({ length: size }, () => 0.1 * random.normal()));
  }
  const run = new MemoryFolder("run");
  await writeTrained(tuned, run, "small");
  await writeManifest(run, {
    kind: "run",
    parents: { model: tuned.hash },
    config: { lora: EVERYWHERE, trainable },
  });
  const batch = await checkBatch(tuned.model, base), expected = await logitsOf(tuned, batch);
  tuned.close();
  const plain = await openTuned(gpu, await mergeInto(base, { run }));
  assert(relative(await logitsOf(plain, batch), expected) <= 1e-5);
  plain.close();
  const again = await openTunedRun(gpu, base, run);
  assert.deepEqual(await logitsOf(again, batch), expected);
  again.close();
});

Deno.test("slices give the same bytes, types their own sizes", async () => {
  const peft = adapterAt("smolvlm_connector"), base = modelAt("smolvlm");
  const bytes = async (options: { dtype?: FloatDtype; slice?: number }) =>
    (await mergeInto(base, { peft }, options)).files.get("model.safetensors")!;
  const whole = await bytes({});
  assert.deepEqual(await bytes({ slice: 100 }), whole);
  for (const [dtype, limit] of [["BF16", 0.02], ["F16", 0.003]] as const) {
    const merged = await mergeInto(base, { peft }, { dtype });
    const difference = relative(
      await caseLogits(merged, "smolvlm"),
      await caseLogits(await mergeInto(base, { peft }), "smolvlm"),
    );
    assert(difference > 1e-4 && difference < limit, `${dtype}: logits differ by ${difference}`);
    assert(Math.abs(merged.files.get("model.safetensors")!.length / whole.length - 0.5) < 0.01);
    const names = { BF16: "bfloat16", F16: "float16" };
    const { dtype: written } = await readJson(merged, "config.json") as { dtype: string };
    assert.equal(written, names[dtype]);
  }
});

Deno.test("the product is that of f64, rounded once", () => {
  const random = new Random(1, "product"),
    draw = (n: number) => Float32Array.from({ length: n }, () => random.normal());
  const [n, K, R, scaling] = [5, 7, 3, 1.5],
    w = draw(n * K),
    b = draw(n * R),
    a = draw(R * K),
    out = w.slice();
  addProduct(out, b, a, { K, scaling });
  for (let i = 0; i < n * K; i++) {
    const row = Math.floor(i / K), column = i % K;
    const dot = [0, 1, 2].reduce((sum, r) => sum + b[row * R + r] * a[r * K + column], 0);
    assert.equal(out[i], Math.fround(w[i] + scaling * dot));
  }
});

Deno.test("shards hold what fits, a larger tensor stands alone; f16 refuses what it cannot hold", () => {
  const tensor = (name: string, n: number): StreamedTensor => ({
    name,
    dtype: "F32",
    shape: [n],
    chunks: () => (async function* () {})(),
  });
  const shards = planShards([tensor("a", 4), tensor("b", 4), tensor("c", 100), tensor("d", 1)], 40);
  assert.deepEqual(shards.map(({ file, tensors }) => [file, tensors.map(({ name }) => name).join()]), [
    ["model-00001-of-00003.safetensors", "a,b"],
    ["model-00002-of-00003.safetensors", "c"],
    ["model-00003-of-00003.safetensors", "d"],
  ]);
  assert.deepEqual(JSON.parse(shardIndex(shards)!).metadata, { total_size: 436 });
  assert.equal(shardIndex(planShards([tensor("a", 4)], 40)), undefined);
  assert.throws(
    () => encodeFloats(Float32Array.of(1, 70000), "F16", "w"),
    /Cannot write "w" as f16: it holds 70000$/,
  );
});

Deno.test("numbers of the config are written as they stood", async () => {
  const base = await smallCheckpoint(),
    text = '{"initializer_factor": 1.0, "eps": 1e-05, "model_type": "llava"}';
  await base.write("config.json", text);
  const { model } = await changeOfPeft(
    await readJson(modelAt("llama"), "config.json"),
    adapterAt("llama_patterns"),
  );
  assert.match(
    await mergedConfig(base, { model }, "F16"),
    /"initializer_factor": 1\.0,\s+"eps": 1e-05,.*"dtype": "float16"/s,
  );
});

// --- the task ---

async function onDisk(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
const llama = {
  model: `${FIXTURES}/models/llama`,
  peft: `${FIXTURES}/adapters/llama_patterns`,
  shardSize: "300KB",
};

Deno.test("the task compares logits, writes a manifest last, and goes on where it was stopped", async () => {
  await onDisk(async (folder) => {
    const whole = mergeSchema.parse({ ...llama, out: `${folder}/whole` });
    const { kept, checked } = await merge(whole);
    assert(kept && checked!.logits_rel < 1e-5 && checked!.adapter_rel > 0.01, JSON.stringify(checked));
    await readManifest(new DiskFolder(whole.out), "model", { verify: true });
    await assert.rejects(merge(whole), /it is finished already$/);

    const stopped = { ...whole, out: `${folder}/stopped` }, out = new DiskFolder(stopped.out);
    await assert.rejects(merge(stopped, AbortSignal.abort()), /^Interrupted: Stopped/);
    assert.deepEqual(await out.list(), ["config.json", "merge.json", "model.safetensors.index.json"]);
    await assert.rejects(merge({ ...stopped, dtype: "bf16" }), /begun with other settings/);
    const half = `${stopped.out}/model-00001-of-00003.safetensors.1.partial`;
    await Deno.writeTextFile(half, "what a killed process leaves");
    await merge(stopped);
    await assert.rejects(Deno.stat(half), Deno.errors.NotFound);
    for (const name of await out.list()) {
      if (name === "manifest.json") continue;
      assert.deepEqual(await out.read(name), await new DiskFolder(whole.out).read(name), name);
    }
  });
});

Deno.test("a result whose logits differ is removed", async () => {
  await onDisk(async (folder) => {
    const settings = mergeSchema.parse({ ...llama, shardSize: "1GB", out: `${folder}/wrong` });
    await assert.rejects(merge(settings, AbortSignal.abort()));
    const out = new DiskFolder(settings.out),
      state = await readJson(out, "merge.json") as Record<string, unknown>;
    // A file of the right size with the base's weights, as a fault of the disk might leave it.
    const bytes = await modelAt("llama").read("model.safetensors");
    await out.write("model.safetensors", bytes);
    state.files = { "model.safetensors": { bytes: bytes.length, sha256: "" } };
    await out.write("merge.json", JSON.stringify(state));
    const { kept, checked } = await merge(settings);
    assert(!kept && checked!.logits_rel > checked!.tolerance);
    await assert.rejects(Deno.stat(settings.out), Deno.errors.NotFound);
  });
});

Deno.test("what cannot be merged is refused", async () => {
  await onDisk(async (folder) => {
    const settings = mergeSchema.parse({ ...llama, out: folder });
    await assert.rejects(merge({ ...settings, peft: undefined }), /need either --run or --peft/);
    await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
    await assert.rejects(merge(settings), /it is not empty$/);
    assert.equal(await Deno.readTextFile(`${folder}/notes.txt`), "mine");
    const out = `${folder}/new`;
    await assert.rejects(
      merge({ ...settings, out, peft: `${FIXTURES}/adapters/qwen2_vl_older` }),
      /modules_to_save: "merger" matches no module$/,
    );
    const config = { ...SMALL_CONFIG, text_config: { ...SMALL_CONFIG.text_config, hidden_size: 64 } };
    await assert.rejects(
      changeOfPeft(config, adapterAt("llava_projector")).then(({ model }) => model),
      /is \(\d+, \d+\), expected|missing/,
    );
  });
});
