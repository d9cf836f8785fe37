/**
 * A text-only llama put behind a small tower: transformers' own reading of the folder, ids and logits; what is read, what
 * is drawn and from which seed; parts that do not fit are refused. Python's numbers: fixtures/compose/make.py.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { MemoryFolder, readJson } from "../core/formats/folder.ts";
import { readManifest } from "../core/formats/manifest.ts";
import type { Picture } from "../core/image/picture.ts";
import { withImageToken } from "../core/text/image_token.ts";
import { compositionOf } from "../gpu/compose.ts";
import { openGpu } from "../gpu/device.ts";
import { logitsOf } from "../gpu/logits.ts";
import { openBare, openSession } from "../gpu/session.ts";
import { compose } from "../scripts/compose.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { modelFolder } from "../scripts/model.ts";
import { allclose, FIXTURES } from "./check.ts";

const DECODER = `${FIXTURES}/gguf/mixed.gguf`, PROJECTOR = "model.multi_modal_projector.";
const expected = JSON.parse(await Deno.readTextFile(`${FIXTURES}/compose/expected.json`));

type Settings = Partial<Parameters<typeof compose>[0]>;

/** Composes into a folder of its own and takes it away afterwards. */
async function composed(settings: Settings, look: (folder: DiskFolder) => Promise<void>): Promise<void> {
  const out = await Deno.makeTempDir();
  try {
    const plain = { decoder: DECODER, vision: "builtin:tiny", freshTower: false, seed: 5 };
    await compose({ ...plain, ...settings, out });
    await look(new DiskFolder(out));
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

/** Every tensor by name. */
async function tensorsOf(folder: Parameters<typeof openWeights>[0]): Promise<Map<string, Float32Array>> {
  const source = await openWeights(folder), tensors = new Map<string, Float32Array>();
  for (const name of source.names()) tensors.set(name, await source.f32(name));
  source.close();
  return tensors;
}

Deno.test("transformers reads the folder: the same weights, ids and logits", async () => {
  await composed({ merge: 1 }, async (folder) => {
    const { manifest } = await readManifest(folder, "model", { verify: true });
    assert.equal(manifest.files["model.safetensors"].sha256, expected.sha256);
    const gpu = await openGpu(), session = await openSession(gpu, folder, { lora: null });
    const data = new Uint8Array(48 * 80 * 3), picture: Picture = { width: 80, height: 48, data };
    for (let i = 0; i < data.length; i++) {
      const y = Math.floor(i / 240), x = Math.floor(i / 3) % 80;
      data[i] = (x * 7 + y * 31 + (i % 3) * 53) % 256;
    }
    const turns = expected.turns.map(([question, answer]: string[]) => ({ question, answer }));
    const sample = session.encoder.train("case", turns, [picture]);
    assert.deepEqual(sample.ids, expected.ids);
    const { text } = session.encoder, learnt = sample.labels.filter((label) => label !== -100);
    assert.equal(text.tokenizer.decode(learnt, { special: true }), " yes<|im_end|> blue<|im_end|>");
    const { imageToken, featuresOf } = session.model;
    const batch = pack([sample], { imageToken, featuresOf, supervised: false });
    const logits = await logitsOf(session, batch), theirs = expected.logits.flat();
    allclose("logits", logits.slice(-theirs.length), theirs, 1e-5);
    session.close();
    gpu.close();
  });
});

Deno.test("decoder and tower are copied, rows are added as means, the projector follows the seed", async () => {
  const decoder = await tensorsOf(await modelFolder(DECODER));
  const tower = await tensorsOf(await modelFolder("builtin:tiny"));
  await composed({}, async (folder) => {
    const ours = await tensorsOf(folder), width = 32, rows = 300;
    for (const [name, values] of decoder) {
      const own = ours.get(name.replace(/^model\./, "model.language_model."))!;
      assert.deepEqual(own.subarray(0, values.length), values, name);
      if (own.length === values.length) continue;
      assert.equal(own.length, 320 * width);
      for (let c = 0; c < width; c++) {
        let sum = 0;
        for (let row = 0; row < rows; row++) sum += values[row * width + c];
        for (const row of [rows, 319]) assert(Math.abs(own[row * width + c] - sum / rows) < 1e-8);
      }
    }
    for (const [name, values] of tower) {
      if (name.startsWith("model.vision_tower.")) assert.deepEqual(ours.get(name), values, name);
    }
    // Image tokens start as large as words: through both layers, inputs of variance one.
    const first = ours.get(`${PROJECTOR}linear_1.weight`)!, second = ours.get(`${PROJECTOR}linear_2.weight`)!;
    const rms = (values: Float32Array) =>
      Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
    assert(Math.abs(rms(first) * 16 - 1) < 0.05); // 2 x 2 patches of 64 values come in
    const words = rms(decoder.get("model.embed_tokens.weight")!);
    assert(Math.abs(rms(second) * Math.sqrt(width * 0.425) / words - 1) < 0.1);

    await composed({ seed: 6, freshTower: true }, async (other) => {
      const differing = [...await tensorsOf(other)].filter(([name, values]) =>
        values.some((value, i) => value !== ours.get(name)![i])
      ).map(([name]) => name);
      const isDrawn = (name: string) =>
        /projector.*weight|vision_tower.*(weight|bias|class_embedding)/.test(name);
      assert(differing.length > 30 && differing.every(isDrawn), differing.join());
    });
  });
});

Deno.test("image tokens: merged patches, a token that is there already, one that lies among spare rows", async () => {
  await composed({}, async (folder) => {
    const session = await openBare(await openGpu(), folder);
    const picture = { width: 64, height: 64, data: new Uint8Array(64 * 64 * 3) };
    const { ids } = session.encoder.train("x", [{ question: "a", answer: "b" }], [picture]);
    assert.equal(ids.filter((id) => id === 300).length, 16);
    const again = await withImageToken(folder);
    assert.equal(again.id, 300);
    session.close();
    session.gpu.close();
  });
  const part = {
    name: "config.json",
    json: { model_type: "llama", vocab_size: 320, hidden_size: 32, num_hidden_layers: 2 },
  };
  const tiny = { name: "tower", json: await readJson(await modelFolder("builtin:tiny"), "config.json") };
  assert.equal(compositionOf(part, tiny, 300).vocabulary, 320);
  assert.equal(compositionOf(part, tiny, 320).vocabulary, 384);
});

Deno.test("a projector that was trained behind the first layers is taken to all of them", async () => {
  await composed({ decoderLayers: 1, seed: 6 }, async (small) => {
    const shallow = await tensorsOf(small);
    await composed({ projector: small.path }, async (folder) => {
      const { manifest } = await readManifest(folder, "model"), whole = await tensorsOf(folder);
      assert.equal(manifest.parents.projector, (await readManifest(small)).hash);
      for (const [name, values] of shallow) assert.deepEqual(whole.get(name), values, name);
      const beyond = [...whole.keys()].filter((name) => !shallow.has(name));
      assert.equal(beyond.length, 9);
      assert(beyond.every((name) => name.startsWith("model.language_model.layers.1.")), beyond.join());
    });
  });
});

Deno.test("what does not fit is refused before anything is written", async () => {
  const refused = async (settings: Settings, message: RegExp) => {
    await assert.rejects(composed(settings, () => Promise.reject(new Error("composed"))), (error) => {
      assert(error instanceof InputError);
      assert.match(error.message, message);
      return true;
    });
  };
  await refused({ decoder: "builtin:tiny" }, /tiny\/config\.json" as a part of a llava: field "model_type"/);
  await refused({ vision: DECODER }, /"model_type"/);
  await refused({ decoderLayers: 3 }, /Cannot use 3 layers of .*: its num_hidden_layers is 2/);
  await refused(
    { merge: 1, projector: "builtin:tiny" },
    /"model.multi_modal_projector.linear_1.weight" of .* is \(64, 256\), expected \(32, 64\)/,
  );
  await refused({ merge: 3 }, /vision_feature_merge 3 needs 8 x 8 patches/);
  await composed({}, async (folder) => {
    await assert.rejects(
      compose({ decoder: DECODER, vision: "builtin:tiny", freshTower: false, seed: 0, out: folder.path }),
      {
        message: `Cannot compose into "${folder.path}": it is not empty`,
      },
    );
  });
  // Whole or not at all: what stops it, or was killed before, leaves nothing.
  const folder = await Deno.makeTempDir();
  try {
    const settings = {
      decoder: DECODER,
      vision: "builtin:tiny",
      freshTower: false,
      seed: 0,
      out: `${folder}/out`,
    };
    await Deno.mkdir(`${folder}/out.partial`);
    await Deno.writeTextFile(`${folder}/out.partial/config.json`, "{");
    await assert.rejects(compose(settings, AbortSignal.abort()), Interrupted);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    await compose(settings);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["out"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const noEnd = new MemoryFolder("no-end"), gguf = await modelFolder(DECODER);
  await noEnd.write("tokenizer.json", await gguf.read("tokenizer.json"));
  await assert.rejects(withImageToken(noEnd), {
    message: /"no-end": its tokenizer has no token that ends an answer/,
  });
});
