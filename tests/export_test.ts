/**
 * `deno task export` on the built-in model: the bundle's activations against the engine's own, its measured effects, the
 * encoder as the service opens it from a store, and the bundles and probes that are refused.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { ImageError } from "../core/image/image_error.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { onnxSpecSchema } from "../core/onnx/spec.ts";
import { parseFeature } from "../core/probe/activations.ts";
import { loadBundle } from "../core/probe/bundle.ts";
import { type Facts, saveProbe, scoreProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { onnxEncoder, openOnnx } from "../functions/onnx_encoder.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { modelHash } from "../gpu/session.ts";
import { exportBundle, exportSchema } from "../scripts/export.ts";
import { effectOf } from "../scripts/export_measure.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { modelFolder } from "../scripts/model.ts";

const FEATURES = ["embed@image-mean", "layers.0.resid_post@image-mean", "layers.2.resid_post@last"];
const DIM = 64, EXAMPLE = new URL("../models/example_bundle", import.meta.url).pathname;

function noise(seed: number, width: number, height: number): Picture {
  const random = new Random(seed), picture = blankPicture(width, height);
  for (let i = 0; i < picture.data.length; i++) picture.data[i] = random.int(256);
  return picture;
}

/** A probe of the built-in model with drawn weights. */
async function makeProbe(folder: Folder, changes: Partial<Facts> = {}): Promise<void> {
  const hash = await modelHash(await modelFolder("builtin:tiny")), random = new Random(5);
  const layers = FEATURES.map((feature) => ({
    feature,
    ...parseFeature(feature),
    dim: DIM,
    metrics: {},
    threshold: { fpr01: 0, fpr001: null },
  }));
  const facts: Facts = {
    id: "drawn",
    title: "Drawn weights",
    mode: "sound",
    model: { name: "builtin:tiny", hash, adapter: null },
    content: "made up",
    prompt: "what colour is it",
    primary: FEATURES[1],
    seen: { set: "U1", people: 8 },
    unseen: { set: "U2", people: 8 },
    seed: 5,
    layers,
    ...changes,
  };
  const weights = () => Float64Array.from({ length: DIM }, () => random.normal());
  await saveProbe(
    folder,
    facts,
    Object.fromEntries(FEATURES.map((feature) => [feature, { coef: weights(), intercept: 0 }])),
  );
}

async function inTemporary(test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await test(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

Deno.test("export: a bundle of the built-in model scores pictures as the engine does", () =>
  inTemporary(async (path) => {
    const root = new DiskFolder(path);
    await makeProbe(root.folder("probe"));
    for (const seed of [1, 2, 3]) {
      const png = await encodeImage(noise(seed, 40 + 20 * seed, 70), "png");
      await root.write(`images/${seed}.png`, png);
    }
    const config = exportSchema.parse({
      probe: `${path}/probe`,
      out: `${path}/store/drawn`,
      dtype: ["f32", "int8"],
      images: `${path}/images`,
    });
    const { hash, variants } = await exportBundle(config);
    const bundle = await loadBundle(root.folder("store").folder("drawn"), { verifyEncoder: true });
    assert.equal(bundle.hash, hash);
    assert.equal(bundle.probe.prompt, "what colour is it");
    const spec = onnxSpecSchema.parse(bundle.encoder);
    assert.deepEqual(spec.variants, variants);
    assert.deepEqual([spec.file, spec.dtype, spec.outputs], ["encoder.f32.onnx", "f32", FEATURES]);
    assert.deepEqual([spec.input.shape, spec.input.fixed], [[1, 3, 64, 64], true]);

    // The engine ran on the GPU, the graph in WebAssembly.
    const [f32, int8] = variants.map(({ effect }) => effect!);
    assert.equal(f32.pictures, 3);
    assert(f32.activations_rel < 1e-5, `f32 activations differ by ${f32.activations_rel}`);
    assert(f32.log_odds.max < 1e-4, `f32 scores differ by ${f32.log_odds.max}`);
    assert(int8.activations_rel > f32.activations_rel && int8.activations_rel < 0.05);
    assert.deepEqual([f32.flips, int8.flips.fpr001], [{ fpr01: 0, fpr001: null }, null]);

    const store = folderStore(root.folder("store")), served = (await store.get("drawn"))!;
    const picture = noise(1, 60, 70), signal = new AbortController().signal;
    const image = { ...picture, format: "png" as const, bytes: new Uint8Array() };
    const encoder = onnxEncoder(), found = await encoder.activations(served, image, signal);
    assert.deepEqual(Object.keys(found), FEATURES);
    const files = root.folder("store").folder("drawn");
    const other = await openOnnx((name) => files.read(name), { ...spec, file: "encoder.int8.onnx" });
    const scores = [found, await other.encode(picture, FEATURES)].map((row) =>
      scoreProbe(served, row)[1].score
    );
    assert(Math.abs(scores[0] - scores[1]) <= int8.primary.max + f32.primary.max + 1e-6);
    const wide = { ...spec, input: { ...spec.input, shape: [1, 3, 64, 96] } };
    const narrow = await openOnnx((name) => files.read(name), wide);
    await assert.rejects(
      () => narrow.encode(picture, FEATURES),
      (error) =>
        error instanceof ImageError &&
        /become \(1, 3, 64, 64\), .* takes \(1, 3, 64, 96\)/.test(error.message),
    );

    const bytes = await files.read(spec.file);
    bytes[bytes.length - 1] ^= 1;
    await files.write(spec.file, bytes);
    await assert.rejects(
      () => onnxEncoder().activations(served, image, signal),
      (error) => error instanceof InputError && /its sha256 is .*, the manifest says/.test(error.message),
    );
    await assert.rejects(
      () => onnxEncoder().activations({ ...served, encoder: { kind: "upstream" } } as never, image, signal),
      /has no encoder in its bundle/,
    );
  }));

Deno.test("export: the committed example bundle is whole, calibrated, and scores as the model that it was made from", async () => {
  const { probe, encoder } = await loadBundle(new DiskFolder(EXAMPLE), { verifyEncoder: true });
  const { variants: [{ dtype, bytes, effect }] } = onnxSpecSchema.parse(encoder);
  assert.deepEqual([dtype, effect!.flips], ["f32", { fpr01: 0, fpr001: 0 }]);
  assert(effect!.pictures >= 64 && effect!.activations_rel < 1e-5 && effect!.log_odds.max < 1e-3);
  assert(bytes < 2_000_000, `${bytes} bytes`);
  for (const { feature, calibration, support, threshold, metrics: { sound } } of probe.layers) {
    assert(calibration && support && threshold?.fpr01 && threshold.fpr001 && sound?.interval95, feature);
  }
});

Deno.test("export: an upstream bundle holds the probe alone; another model or training is refused", () =>
  inTemporary(async (path) => {
    const root = new DiskFolder(path);
    await makeProbe(root.folder("probe"));
    const upstream = exportSchema.parse({
      probe: `${path}/probe`,
      out: `${path}/bundle`,
      encoder: "upstream",
    });
    await exportBundle(upstream);
    const { encoder, manifest } = await loadBundle(root.folder("bundle"));
    assert.deepEqual(encoder, { kind: "upstream" });
    assert.deepEqual(Object.keys(manifest.files), ["bundle.json", "probe.safetensors"]);

    const refused = async (changes: Partial<Facts>, message: RegExp) => {
      await makeProbe(root.folder("other"), changes);
      const config = exportSchema.parse({ probe: `${path}/other`, out: `${path}/none` });
      await assert.rejects(
        () => exportBundle(config),
        (error) => error instanceof InputError && message.test(error.message),
      );
      assert(!await root.exists("none/manifest.json"));
    };
    const name = "builtin:tiny";
    await refused(
      { model: { name, hash: "00", adapter: null } },
      /the model ".*" is [0-9a-f]{64}, expected 00/,
    );
    await refused({ model: { name, hash: "00", adapter: "ab" } }, /--run is missing, expected ab/);
  }));

Deno.test("export: effects are counted layer by layer, flips at the primary feature's threshold", () => {
  const layer = (feature: string, fpr01: number | null) => ({
    feature,
    ...parseFeature(feature),
    dim: 1,
    metrics: {},
    threshold: { fpr01, fpr001: null },
  });
  const probe = {
    primary: "b@last",
    layers: [layer("a@last", null), layer("b@last", 1)],
    tensors: {
      "a@last": { coef: Float64Array.of(2), intercept: 0 },
      "b@last": { coef: Float64Array.of(1), intercept: 0 },
    },
  } as unknown as Parameters<typeof effectOf>[0];
  const row = (a: number, b: number) => ({ "a@last": Float32Array.of(a), "b@last": Float32Array.of(b) });
  const effect = effectOf(probe, [
    { own: row(1, 0.5), theirs: row(1.5, 1.5) },
    { own: row(4, 2), theirs: row(4, 2) },
  ]);
  assert.deepEqual(effect, {
    pictures: 2,
    activations_rel: 2,
    log_odds: { max: 1, mean: 0.5 },
    primary: { max: 1, mean: 0.5 },
    flips: { fpr01: 1, fpr001: null },
  });
});
