/**
 * The probe cell of a study on simulated activations: the schema is filled, its numbers are those of the parts it is made of and follow
 * from what it stores, arms can be compared draw by draw; and what it refuses.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import type { ActivationSet, FeatureData, SampleRow } from "../core/probe/activations.ts";
import { faithful } from "../core/probe/faithful.ts";
import { difference } from "../core/probe/inference.ts";
import { sound } from "../core/probe/sound.ts";
import { saveProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { studySchema } from "../core/study/config.ts";
import { permutedOf } from "../core/study/corrected.ts";
import { probeCell, type ProbeCellSettings } from "../core/study/probe_cell.ts";
import { probeResultSchema } from "../core/study/results.ts";
import { simulate } from "./simulated_people.ts";
import { MemoryFolder } from "../core/formats/folder.ts";

const FEATURES = ["layers.0.resid_post@index:-2", "layers.0.resid_post@mean", "layers.1.resid_post@index:-2"];
const PEOPLE = 4, SCENES = 6, DIM = 6;

/** Three features of one arm; only the last has a shared direction, of this length. */
function arm(seed: number, shared: number) {
  const parts = FEATURES.map((feature, at) =>
    simulate(new Random(seed, feature), {
      people: PEOPLE,
      scenes: SCENES,
      dim: DIM,
      shared: at === 2 ? shared : 0,
    })
  );
  const { labels, person, scene } = parts[0].design;
  const samples: SampleRow[] = Array.from(labels, (label, i) => ({
    id: `s${i}`,
    image: "p.png",
    person: `person ${person[i]}`,
    set: label ? "U1" : "U2",
    scene: `${scene[i]}`,
  }));
  const features = new Map<string, FeatureData>(
    parts.map(({ x }, at) => [FEATURES[at], { dim: DIM, data: x.data as Float32Array }]),
  );
  const { x } = simulate(new Random(seed, "pixels"), { people: PEOPLE, scenes: SCENES, own: 0 });
  const pixels: FeatureData = { dim: x.dim, data: x.data as Float32Array };
  return { set: { samples, features } satisfies ActivationSet, pixels, parts };
}

const config = studySchema.parse({
  name: "t",
  models: [{ name: "m", path: "builtin:tiny" }],
  data: [{ kind: "synthetic", name: "s" }],
  probe: { partitions: 4, draws: 39, controlTasks: 3 },
});
const settings: ProbeCellSettings = {
  arm: "r100",
  prompt: { id: "username", text: "What is the username?" },
  seed: 3,
  probe: config.probe,
};

Deno.test("a probe cell fills the schema with the numbers of its parts", async () => {
  const { set, pixels, parts } = arm(1, 5), calls: number[] = [];
  const { result, tensors, facts } = await probeCell(set, pixels, settings, {
    onProgress: (done, total) => calls.push(done / total),
  });
  assert.deepEqual(probeResultSchema.parse(JSON.parse(JSON.stringify(result))), result);
  assert(calls.every((done, i) => done >= (calls[i - 1] ?? 0)) && calls.at(-1) === 1);
  assert.deepEqual(result.features.map(({ feature }) => feature), FEATURES);
  assert.deepEqual([result.people, result.scenes], [{ seen: PEOPLE, unseen: PEOPLE }, SCENES]);
  assert.equal(result.calibration.feature, FEATURES[2]);

  const { x, design } = parts[2], options = { standardize: true, partitions: 4, draws: 39, seed: 3 };
  const centred = await sound(x, design, { ...options, centerScenes: true });
  const plain = await sound(x, design, options), image = faithful(x, design);
  const feature = result.features[2];
  assert.deepEqual([feature.sound.auroc, feature.sound.null], [centred.auroc, [...centred.nullDraws]]);
  assert.deepEqual([feature.plain.auroc, feature.plain.null], [plain.auroc, [...plain.nullDraws]]);
  assert.deepEqual(feature.faithful, {
    auroc: image.auroc,
    accuracy: image.accuracy,
    tpr_at_1pct_fpr: image.tpr_at_1pct_fpr,
    tpr_at_01pct_fpr: image.tpr_at_01pct_fpr,
    split: "image",
    partitions: 1,
  });
  // What a reader of the file can recompute by hand.
  for (const { sound: { auroc, p, null95, null: draws, ci95 } } of result.features) {
    const sorted = draws.toSorted((a, b) => a - b), mean = draws.reduce((a, b) => a + b) / draws.length;
    assert.equal(p, (1 + draws.filter((value) => value >= auroc - 1e-12).length) / 40);
    assert.deepEqual(
      null95,
      [0.95, 37.05].map((at) => {
        const k = Math.floor(at);
        return sorted[k] + (at - k) * (sorted[k + 1] - sorted[k]);
      }),
    );
    const s = Math.sqrt(draws.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 38);
    for (const end of ci95) {
      const x = Math.abs(end - 0.5) / (2 * s);
      const variance = s ** 2 * (4 * end * (1 - end)) ** 1.6 * (1 + 0.8 * x / (1 + x * x));
      const reach = 1.959963984540054 * Math.sqrt(variance);
      assert(Math.abs(Math.abs(auroc - end) - reach) < 1e-9);
    }
  }
  // Of 70 ways to choose 4 of 8 people, 39 draws may hit the true one and tie.
  assert(feature.sound.p <= 0.05, `${feature.sound.p}`);
  assert(feature.description.compression > 1 && feature.selectivity.value > 0);
  assert(result.blind.p > 0.05, `pixels without a trace: ${result.blind.p}`);
  assert.deepEqual(result.power.length, 15);
  assert(result.power.every(({ detectable }) => detectable > 0.5 && detectable <= 1));

  // What it hands on is a stored probe, calibrated at every layer.
  assert(facts.layers.every(({ calibration, support }) => calibration?.method === "platt" && support));
  const { id, title, mode, content, prompt } = {
    id: "p",
    title: "",
    mode: "sound",
    content: "",
    prompt: "",
  } as const;
  const model = { name: "m", hash: "h", adapter: null };
  await saveProbe(new MemoryFolder(), { id, title, mode, content, prompt, model, ...facts }, tensors);
});

Deno.test("arms over the same people are permuted alike, seeds apart, and the cell is the same twice", async () => {
  const trace = arm(1, 5), none = arm(1, 0);
  const a = (await probeCell(trace.set, trace.pixels, settings)).result;
  const b = (await probeCell(none.set, none.pixels, { ...settings, arm: "r0" })).result;
  const c = (await probeCell(none.set, none.pixels, { ...settings, seed: 4 })).result;
  assert.equal(a.plan, b.plan);
  assert.notEqual(a.plan, c.plan);
  const found = difference(permutedOf(a, a.features[2].sound), permutedOf(b, b.features[2].sound));
  assert(found.difference > 0.2 && found.p <= 0.05, JSON.stringify(found));
  assert.throws(
    () => difference(permutedOf(a, a.features[2].sound), permutedOf(c, c.features[2].sound)),
    InputError,
  );
  // Features without a shift are the same simulated rows, so the cells agree on them to the bit.
  assert.deepEqual(a.features.slice(0, 2), b.features.slice(0, 2));
});

Deno.test("C of a grid is reported; scenes may stay uncentred; wrong sets are refused and a signal heard", async () => {
  const { set, pixels } = arm(2, 0);
  const probe = { ...config.probe, cGrid: [0.01, 1], centerScenes: false, draws: 5 };
  const { result } = await probeCell(set, pixels, { ...settings, probe });
  for (const { sound, plain } of result.features) {
    assert.equal(Object.values(sound.chosen_c!).reduce((a, b) => a + b), 4);
    assert.deepEqual(plain.null, sound.null);
  }
  const short = { ...pixels, data: pixels.data.slice(pixels.dim) };
  await assert.rejects(probeCell(set, short, settings), /pixels of 47 pictures, expected 48/);
  await assert.rejects(
    probeCell(set, pixels, { ...settings, primary: "no@last" }),
    /Cannot report "no@last" first/,
  );
  const others = set.samples.map((row) => ({ ...row, set: "U0" }));
  await assert.rejects(probeCell({ ...set, samples: others }, pixels, settings), /no sample of the set "U1"/);
  const stop = new AbortController();
  const onProgress = (done: number) => done > 1 && stop.abort(new Error("enough"));
  await assert.rejects(probeCell(set, pixels, settings, { signal: stop.signal, onProgress }), /enough/);
});
