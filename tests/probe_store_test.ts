/**
 * Activation sets and stored probes on disk: what is written is read back to the bit, whatever does not fit together
 * is refused by name, and scores are worked out by hand.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { bytesSource, MemoryFolder, readJson } from "../core/formats/folder.ts";
import { MANIFEST, readManifest, sha256 } from "../core/formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import {
  type FeatureData,
  parseFeature,
  readActivations,
  type SampleRow,
  SAMPLES,
  writeActivations,
} from "../core/probe/activations.ts";
import { type Facts, loadProbe, saveProbe, scoreProbe } from "../core/probe/stored.ts";

const RESIDUAL = "layers.1.resid_post@last", IMAGE = "layers.0.resid_post@image-mean";
const rows: SampleRow[] = Array.from({ length: 7 }, (_, i) => ({
  id: `s${i}`,
  image: `${i}.png`,
  person: i === 6 ? null : `p${i % 3}`,
  set: i === 6 ? "none" : ["U1", "U2"][i % 2],
  scene: `scene-${i >> 1}`,
}));
const features = new Map<string, FeatureData>([
  [RESIDUAL, { dim: 3, data: Float32Array.from({ length: 21 }, (_, i) => Math.fround(Math.sin(i) * 1e-3)) }],
  [IMAGE, { dim: 2, data: Float32Array.from({ length: 14 }, (_, i) => i - 0.1) }],
]);

const rejects = (work: Promise<unknown>, message: RegExp) =>
  assert.rejects(work, (error: Error) => error instanceof InputError && message.test(error.message));

/** Replaces a file of an artifact and puts the new hash into its manifest: the damage is inside, not on the way. */
async function replace(folder: MemoryFolder, name: string, data: Uint8Array<ArrayBuffer> | string) {
  await folder.write(name, data);
  const { manifest } = await readManifest(folder);
  manifest.files[name] = { bytes: 0, sha256: await sha256(await folder.read(name)) };
  await folder.write(MANIFEST, JSON.stringify(manifest));
}

async function written(rowsPerShard?: number): Promise<MemoryFolder> {
  const folder = new MemoryFolder("set");
  await writeActivations(folder, rows, features, { seed: 4, config: { prompt: "who" } }, rowsPerShard);
  return folder;
}

Deno.test("activation sets come back to the bit, however they are sharded", async () => {
  for (const rowsPerShard of [1, 3, 7, 100]) {
    const folder = await written(rowsPerShard), set = await readActivations(folder);
    assert.deepEqual(set.samples, rows);
    assert.deepEqual(set.features, features);
    const shards = (await folder.list()).filter((name) => name.startsWith("activations-"));
    assert.equal(shards.length, Math.ceil(7 / rowsPerShard));
    assert.equal(shards[0], `activations-00001-of-0000${shards.length}.safetensors`);
    assert.equal(set.hash, await sha256(await folder.read(MANIFEST)));
    const { manifest } = await readManifest(folder, "activations", { verify: true });
    assert.deepEqual(manifest.facts, { samples: 7, features: { [RESIDUAL]: 3, [IMAGE]: 2 } });
    assert.deepEqual([manifest.seed, manifest.config], [4, { prompt: "who" }]);
  }
});

Deno.test("an activation set written over another leaves no old shard", async () => {
  const folder = await written(2);
  await writeActivations(folder, rows, features, {}, 5);
  assert.deepEqual(await folder.list(), [
    "activations-00001-of-00002.safetensors",
    "activations-00002-of-00002.safetensors",
    MANIFEST,
    SAMPLES,
  ]);
  assert.deepEqual((await readActivations(folder)).samples, rows);
});

Deno.test("writing refuses what would not be an activation set", async () => {
  const folder = new MemoryFolder("set");
  const write = (some: SampleRow[], data: [string, FeatureData][]) =>
    writeActivations(folder, some, new Map(data));
  const one: FeatureData = { dim: 1, data: Float32Array.of(1) };
  await rejects(write([], [[RESIDUAL, { dim: 1, data: new Float32Array() }]]), /there is no sample/);
  await rejects(write([rows[0]], []), /there is no feature/);
  await rejects(write([rows[0]], [["resid_post", one]]), /the feature "resid_post": expected a name such as/);
  await rejects(write([rows[0], rows[0]], [[RESIDUAL, one]]), /the sample id "s0" occurs twice/);
  await rejects(write([{ ...rows[0], scene: "" }], [[RESIDUAL, one]]), /row 1, field "scene"/);
  await rejects(
    write(rows.slice(0, 2), [[RESIDUAL, one]]),
    /"layers.1.resid_post@last" has 1 values, expected 2 x 1/,
  );
  await rejects(
    write(rows.slice(0, 2), [[RESIDUAL, { dim: 2, data: Float32Array.of(0, 0, 0, NaN) }]]),
    /"layers.1.resid_post@last" of sample "s1" holds NaN at index 1/,
  );
  assert.deepEqual(await folder.list(), []);
});

Deno.test("reading refuses damage, naming the file, the line or the feature", async () => {
  const SHARD = "activations-00002-of-00002.safetensors";
  const damage = async (name: string, data: Uint8Array<ArrayBuffer> | string, message: RegExp) => {
    const folder = await written(4);
    await replace(folder, name, data);
    await rejects(readActivations(folder), message);
  };
  const tensor = (shape: number[]) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b)) });
  const shard = (tensors: Record<string, number[]>) =>
    encodeSafetensors(Object.fromEntries(Object.entries(tensors).map(([k, v]) => [k, tensor(v)])));

  await damage(SHARD, shard({ [IMAGE]: [3, 2] }), /00002-of-00002.*has no tensor "layers.1.resid_post@last"/);
  await damage(SHARD, shard({ [IMAGE]: [3, 2], [RESIDUAL]: [3, 4] }), /is 4 wide, 3 in the first shard/);
  await damage(
    SHARD,
    shard({ [IMAGE]: [3, 2], [RESIDUAL]: [2, 3] }),
    /is F32 \(2,3\), expected F32 \(3, D\)/,
  );
  await damage(
    SHARD,
    shard({ [IMAGE]: [4, 2], [RESIDUAL]: [4, 3] }),
    /it ends at row 8, "samples.jsonl" has 7/,
  );
  await damage(
    SHARD,
    shard({ [IMAGE]: [2, 2], [RESIDUAL]: [2, 3] }),
    /its shards hold 6 rows, "samples.jsonl" has 7/,
  );
  await damage(
    SHARD,
    shard({ [IMAGE]: [3, 2], [RESIDUAL]: [3, 3], "x@last": [3, 1] }),
    /"x@last" is 1 wide, absent/,
  );
  const lines = rows.map((row) => JSON.stringify(row));
  await damage(SAMPLES, [...lines.slice(0, 6), "{"].join("\n"), /samples.jsonl": line 7 is no JSON/);
  await damage(SAMPLES, lines.with(2, `{"id":"x"}`).join("\n"), /line 3, field "image"/);
  await damage(SAMPLES, lines.with(2, lines[1]).join("\n"), /the sample id "s1" occurs twice/);

  const changed = await written();
  await changed.write(SAMPLES, "{}");
  await rejects(readActivations(changed), /samples.jsonl": its sha256 is/);
  const unfinished = await written();
  await unfinished.remove(MANIFEST);
  await rejects(readActivations(unfinished), /is not a finished artifact/);
});

Deno.test("a feature's name has a site and a reduction", () => {
  assert.deepEqual(parseFeature("vision.3.mlp@index:-2"), { site: "vision.3.mlp", reduction: "index:-2" });
  for (const name of ["", "@last", "layers.1@", "a@b@c", "a b@last"]) {
    assert.throws(() => parseFeature(name), InputError);
  }
});

const facts: Facts = {
  id: "names",
  title: "Names on pictures",
  mode: "sound",
  model: { name: "builtin:tiny", hash: "00", adapter: null },
  content: "names",
  prompt: "who took this",
  primary: RESIDUAL,
  seen: { set: "U1", people: 8 },
  unseen: { set: "U2", people: 8 },
  seed: 3,
  layers: [
    { feature: IMAGE, ...parseFeature(IMAGE), dim: 2, metrics: {}, threshold: null },
    {
      feature: RESIDUAL,
      ...parseFeature(RESIDUAL),
      dim: 3,
      metrics: {},
      threshold: { fpr01: 1.5, fpr001: null },
    },
  ],
};
const tensors = {
  [IMAGE]: { coef: Float64Array.of(1 / 3, -2), intercept: 0.25 },
  [RESIDUAL]: {
    coef: Float64Array.of(1, 2, 3),
    intercept: -1,
    mean: Float64Array.of(1, 1, 0),
    scale: Float64Array.of(2, 1, 0.5),
  },
};

Deno.test("stored probes come back to the bit and score as worked out by hand", async () => {
  const folder = new MemoryFolder("probe");
  await saveProbe(folder, facts, tensors, { parents: { activations: "ff" } });
  const probe = await loadProbe(folder);
  assert.deepEqual(probe, { ...facts, tensors });
  assert.equal((await readManifest(folder, "probe")).manifest.parents.activations, "ff");
  const file = await SafetensorsFile.open(bytesSource("p", await folder.read("probe.safetensors")));
  assert.deepEqual([...file.entries.values()].map(({ dtype }) => dtype), Array(6).fill("F64"));

  // 0.25 + 3/3 - 2 * 0.5 = 0.25; -1 + 1 * (3-1)/2 + 2 * (2-1)/1 + 3 * 1/0.5 = 8
  const scores = scoreProbe(probe, {
    [IMAGE]: Float32Array.of(3, 0.5),
    [RESIDUAL]: Float32Array.of(3, 2, 1),
  });
  assert.deepEqual(scores.map(({ feature, score }) => [feature, score]), [[IMAGE, 0.25], [RESIDUAL, 8]]);
  assert.equal(scores[0].probability, 1 / (1 + Math.exp(-0.25)));
  assert.throws(
    () => scoreProbe(probe, { [IMAGE]: new Float32Array(2) }),
    /resid_post@last": it has no values/,
  );
  assert.throws(
    () => scoreProbe(probe, { [IMAGE]: new Float32Array(3), [RESIDUAL]: new Float32Array(3) }),
    /image-mean": it has 3 values, expected 2/,
  );
  assert.throws(
    () => scoreProbe(probe, { [IMAGE]: Float32Array.of(NaN, 0), [RESIDUAL]: new Float32Array(3) }),
    /its activations are not finite/,
  );
});

Deno.test("a stored probe whose facts and tensors disagree is refused on both ways", async () => {
  const folder = new MemoryFolder("probe");
  const save = (some: Partial<Facts>, weights: Parameters<typeof saveProbe>[2] = tensors) =>
    saveProbe(folder, { ...facts, ...some }, weights);
  await rejects(save({ primary: "x@last" }), /the primary feature "x@last" is none of/);
  await rejects(save({ layers: [facts.layers[1], facts.layers[1]] }), /occurs twice/);
  await rejects(save({ seen: { set: "U1", people: 0 } }), /field "seen.people"/);
  await rejects(save({}, { [IMAGE]: tensors[IMAGE] }), /resid_post@last" has no coefficients/);
  await rejects(
    save({}, { ...tensors, [IMAGE]: { coef: new Float64Array(3), intercept: 0 } }),
    /image-mean.coef" has 3 values, expected 2/,
  );
  await rejects(
    save({}, { ...tensors, [IMAGE]: { coef: Float64Array.of(1, Infinity), intercept: 0 } }),
    /image-mean.coef" is not finite/,
  );
  assert.deepEqual(await folder.list(), []);

  await save({});
  const stored = await readJson(folder, "probe.json") as Facts;
  stored.layers[0].dim = 4;
  await replace(folder, "probe.json", JSON.stringify(stored));
  await rejects(loadProbe(folder), /image-mean.coef" has 2 values, expected 4/);
  await rejects(readActivations(folder), /is a "probe" artifact, expected "activations"/);
});
