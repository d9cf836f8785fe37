/**
 * Sessions around a model: the strict loader, runs written and opened again, and what packing refuses.
 * Every refusal must name the tensor, the pattern or the sample that is wrong.
 */
import assert from "node:assert/strict";
import { type EncodedSample, pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { openGpu } from "../gpu/device.ts";
import { runModel } from "../gpu/models/model.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { openRun, openSession, type Session, writeTrained } from "../gpu/session.ts";
import { Tape } from "../gpu/tape.ts";
import {
  EVERYWHERE,
  randomiseB,
  randomWeights,
  sceneSamples,
  SMALL_CONFIG,
  smallCheckpoint,
} from "./tiny_model.ts";

const gpu = await openGpu();
const checkpoint = await smallCheckpoint();
const session = await openSession(gpu, checkpoint);
const { model } = session;
const samples = sceneSamples(session, 3);
const packOptions = { imageToken: model.imageToken, featuresOf: model.featuresOf };
const batch = pack(samples, packOptions);
const T = batch.ids.length;

async function logitsOf({ model }: Session): Promise<Float32Array> {
  using _scope = gpu.pool.scope();
  const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, false);
  const logits = gpu.empty([T, model.decoder.config.V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  return (await gpu.read(logits))[0] as Float32Array;
}

// --- the strict loader ---

type Weights = ReturnType<typeof randomWeights>;

/** Opens the small checkpoint with its tensors, or its config, changed. */
async function openChanged(change: (weights: Weights) => void, config: unknown = SMALL_CONFIG) {
  const folder = new MemoryFolder("changed", new Map(checkpoint.files)),
    weights = randomWeights(SMALL_CONFIG, 1);
  change(weights);
  await folder.write("config.json", JSON.stringify(config));
  await folder.write("model.safetensors", encodeSafetensors(weights));
  return await openSession(gpu, folder, { lora: EVERYWHERE });
}

const norm = "model.language_model.norm.weight";
const untied = {
  ...SMALL_CONFIG,
  tie_word_embeddings: false,
  text_config: { ...SMALL_CONFIG.text_config, tie_word_embeddings: false },
};

Deno.test("a checkpoint whose tensors do not fit is refused with a list", async () => {
  const table = "model.language_model.embed_tokens.weight";
  const cases: [string, (weights: Weights) => void, unknown?][] = [
    [`missing "${norm}"`, (weights) => delete weights[norm]],
    ['unexpected "model.extra.weight"', (weights) => weights["model.extra.weight"] = weights[norm]],
    [`tensor "${norm}" is (31), expected (32)`, (weights) => {
      weights[norm] = { shape: [31], data: new Float32Array(31) };
    }],
    [`tensor "${norm}" is (4, 8), expected (32)`, (weights) => weights[norm].shape = [4, 8]],
    [`"model.${norm.slice(6)}" and "language_model.model.norm.weight" are the same parameter`, (weights) => {
      weights["language_model.model.norm.weight"] = weights[norm];
    }],
    ['missing "lm_head.weight"', () => {}, untied],
    [
      `unexpected "a"; missing "${norm}"; missing "${table}"`,
      (weights) => {
        weights.a = weights[norm];
        delete weights[norm];
        delete weights[table];
      },
    ],
  ];
  const used = gpu.pool.usedBytes;
  for (const [what, change, config] of cases) {
    await assert.rejects(openChanged(change, config), (error) => {
      assert(error instanceof InputError, `${what}: ${error}`);
      const listed = error.message.replace('Cannot load "changed": ', "").split("; ");
      assert.deepEqual(listed.sort(), what.split("; ").sort());
      return true;
    });
  }
  assert.equal(gpu.pool.usedBytes, used, "a refused checkpoint leaves buffers behind");
});

Deno.test("a tied head is the embeddings, whether or not the checkpoint holds it again", async () => {
  const stored = await openChanged((weights) => {
    const { shape, data } = weights["model.language_model.embed_tokens.weight"];
    weights["lm_head.weight"] = { shape, data };
  });
  assert.equal(stored.model.head, stored.model.decoder.embedTokens);
  assert.deepEqual(await logitsOf(stored), await logitsOf(session));
  stored.close();
});

Deno.test("the older prefixes name the same parameters", async () => {
  const older = await openChanged((weights) => {
    for (const name of Object.keys(weights)) {
      const old = name.replace(/^model\.language_model\./, "language_model.model.")
        .replace(/^model\.vision_tower\./, "vision_tower.vision_model.").replace(/^model\.multi/, "multi");
      weights[old] = weights[name];
      delete weights[name];
    }
  });
  assert.deepEqual(await logitsOf(older), await logitsOf(session));
  older.close();
});

// --- runs ---

Deno.test("a run written and opened again gives the same logits; another base model is refused", async () => {
  const trainable = ["multi_modal_projector"];
  const tuned = await openSession(gpu, checkpoint, { lora: EVERYWHERE, trainable });
  randomiseB(tuned);
  for (const { name, shape, tensor } of tuned.fullParams) {
    const random = new Random(4, name);
    gpu.write(
      tensor,
      Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 0.1 * random.normal()),
    );
  }
  const run = new MemoryFolder("run");
  await writeTrained(tuned, run, "small");
  const config = { lora: EVERYWHERE, trainable };
  await writeManifest(run, { kind: "run", parents: { model: tuned.hash }, config });
  const opened = await openRun(gpu, checkpoint, run), logits = await logitsOf(opened);
  assert.deepEqual(logits, await logitsOf(tuned));
  assert.notDeepEqual(logits, await logitsOf(session));
  opened.close();
  tuned.close();
  const other = await smallCheckpoint(SMALL_CONFIG, 2);
  await assert.rejects(
    openRun(gpu, other, run),
    /^InputError: Cannot use "run": it was trained from the model/,
  );
});

Deno.test("what cannot be trained is refused by its pattern", async () => {
  await assert.rejects(
    openSession(gpu, checkpoint, { trainable: ["resampler"] }),
    /"resampler": it matches no param/,
  );
  const lora = { ...EVERYWHERE, target_modules: ["c_attn"] };
  await assert.rejects(
    openSession(gpu, checkpoint, { lora }),
    /target_modules \["c_attn"\] matches no linear layer/,
  );
});

// --- packing ---

Deno.test("a sample that does not fit is refused by its name", () => {
  const [good] = samples;
  const cases: [Partial<EncodedSample>, RegExp][] = [
    [{ images: [] }, /^Cannot pack sample "odd": 4 image tokens for 0 pictures with 0 features$/],
    [
      { images: [...good.images, ...good.images] },
      /^Cannot pack sample "odd": 4 image tokens for 2 pictures with 8/,
    ],
    [
      { labels: good.labels.slice(1) },
      new RegExp(`"odd": ${good.ids.length} tokens, ${good.ids.length - 1} labels$`),
    ],
    [{ labels: good.labels.map(() => -100) }, /^Cannot train on sample "odd": no token of it is supervised$/],
    // The first token has nothing before it that could predict it.
    [{ labels: good.labels.map((_, i) => i === 0 ? 7 : -100) }, /^Cannot train on sample "odd"/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => pack([good, { ...good, id: "odd", ...change }], packOptions), (error) => {
      assert(error instanceof InputError);
      assert.match(error.message, message);
      return true;
    });
  }
  const unlearnt = { ...good, labels: good.labels.map(() => -100) };
  assert.equal(pack([unlearnt], { ...packOptions, supervised: false }).rows.length, 0);
});
