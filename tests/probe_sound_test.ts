/**
 * The two modes on simulated activations whose truth is known: what each finds and must not find, how often the sound one
 * errs when there is nothing, how results are compared; and the designs they refuse.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { type Design, type FeatureMatrix, prepareRows } from "../core/probe/design.ts";
import { faithful } from "../core/probe/faithful.ts";
import { difference, familywise, infer, type Permuted } from "../core/probe/inference.ts";
import { sound } from "../core/probe/sound.ts";
import { Random } from "../core/random.ts";

interface World {
  /** People of either side. */
  people?: number;
  scenes?: number;
  /** How far all seen people lie from all unseen ones, along one direction. */
  shared?: number;
  /** Standard deviation of each person's own direction. */
  own?: number;
}

const DIM = 6;

/** Rows of every person in every scene: person + scene + noise of unit deviation, plus the shared shift of the seen. */
function world(random: Random, { people = 6, scenes = 6, shared = 0, own = 0.8 }: World = {}) {
  const n = 2 * people * scenes, data = new Float32Array(n * DIM);
  const normals = (count: number) => Float64Array.from({ length: count }, () => random.normal());
  const persons = normals(2 * people * DIM), pictures = normals(scenes * DIM);
  const person = Int32Array.from({ length: n }, (_, i) => i % (2 * people));
  const scene = Int32Array.from({ length: n }, (_, i) => Math.floor(i / (2 * people)));
  const labels = Uint8Array.from(person, (id) => id < people ? 1 : 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < DIM; j++) {
      data[i * DIM + j] = own * persons[person[i] * DIM + j] + pictures[scene[i] * DIM + j] +
        random.normal() +
        (j === 0 && labels[i] ? shared : 0);
    }
  }
  const x: FeatureMatrix = { n, dim: DIM, data }, design: Design = { labels, person, scene };
  return { x, design };
}

Deno.test("where nothing is shared, p-values are uniform: few false alarms, at any level", async () => {
  const worlds = 300, ps: number[] = [];
  for (let k = 0; k < worlds; k++) {
    const { x, design } = world(new Random(11, `null/${k}`), { people: 4, scenes: 4 });
    const result = await sound(x, design, { centerScenes: true, partitions: 2, draws: 39, seed: k });
    ps.push(result.p);
  }
  const rate = (level: number) => ps.filter((p) => p <= level).length / worlds;
  // The exact rates are 0.05, 0.25, ...; the bounds are three standard errors of 300 worlds.
  for (const level of [0.05, 0.25, 0.5, 0.75]) {
    const error = Math.sqrt(level * (1 - level) / worlds);
    assert(Math.abs(rate(level) - level) <= 3 * error, `${rate(level)} of the p-values are at most ${level}`);
  }
});

Deno.test("a direction shared by the seen people is found by both modes", async () => {
  const { x, design } = world(new Random(1), { people: 8, shared: 3 });
  const result = await sound(x, design, { centerScenes: true, partitions: 8, draws: 99 });
  assert.equal(result.p, 0.01);
  assert(result.auroc > 0.85 && result.auroc > result.null95[1], `${result.auroc} in ${result.null95}`);
  assert(faithful(x, design, { centerScenes: true, split: "scene" }).auroc > 0.85);
});

Deno.test("people's own directions raise the faithful AUROC, never the sound one", async () => {
  let faithfulMean = 0, soundMean = 0, alarms = 0;
  const worlds = 20;
  for (let k = 0; k < worlds; k++) {
    const { x, design } = world(new Random(2, `names/${k}`), { people: 3, own: 3 });
    faithfulMean += faithful(x, design, { centerScenes: true, split: "scene" }).auroc / worlds;
    const result = await sound(x, design, { centerScenes: true, partitions: 4, draws: 19, seed: k });
    soundMean += result.auroc / worlds;
    if (result.p <= 0.05) alarms++;
  }
  assert(faithfulMean > 0.9, `faithful ${faithfulMean}`);
  assert(soundMean > 0.3 && soundMean < 0.6, `sound ${soundMean}`);
  assert(alarms <= 4, `${alarms} of ${worlds}`); // 1 expected; 5 or more has a chance of 0.3 %
});

Deno.test("same people and seed give the same permutations, whatever the activations", async () => {
  const options = { partitions: 4, draws: 49, centerScenes: true };
  const plain = world(new Random(4), { people: 8 }), shifted = world(new Random(4), { people: 8, shared: 3 });
  const a = await sound(shifted.x, shifted.design, options), b = await sound(plain.x, plain.design, options);
  assert.deepEqual(await sound(plain.x, plain.design, options), b);
  const more = difference(a, b), none = difference(b, b);
  assert.equal(more.difference, a.auroc - b.auroc);
  assert.equal(more.p, 0.02);
  assert.deepEqual([none.difference, none.p, none.null95], [0, 1, [0, 0]]);
  const other = await sound(plain.x, plain.design, { ...options, seed: 1 });
  assert.throws(() => difference(a, other), InputError);
  const corrected = familywise([a, b]);
  assert(corrected[0] >= a.p && corrected[1] >= b.p);
});

Deno.test("p-values, bands and corrections as worked out by hand", () => {
  const result = (observed: number, draws: number[]): Permuted => ({
    observed,
    nullDraws: Float64Array.from(draws),
    plan: 1,
  });
  assert.equal(infer(0.6, Float64Array.of(0.5, 0.6, 0.7, 0.4)).p, 3 / 5);
  assert.deepEqual(infer(0, Float64Array.from({ length: 41 }, (_, i) => 40 - i)).null95, [1, 39]);
  assert.deepEqual(familywise([result(0.6, [0.5, 0.7, 0.2]), result(0.8, [0.6, 0.1, 0.3])]), [3 / 4, 1 / 4]);
  assert.deepEqual(difference(result(3, [1, 2, 5]), result(1, [1, 0, 1])).p, 3 / 4);
  assert.throws(() => infer(1, new Float64Array(0)), InputError);
});

Deno.test("scenes are centred and columns scaled without a look at labels", () => {
  const rows = prepareRows(
    { n: 4, dim: 2, data: Float32Array.of(1, 5, 3, 5, 10, 5, 14, 5) },
    Int32Array.of(7, 7, 3, 3),
    { centerScenes: true, standardize: true },
  );
  const root = Math.sqrt(10) / 2; // deviations -1, 1, -2, 2 have the variance 2.5
  [-1, 0, 1, 0, -2, 0, 2, 0].forEach((value, at) => assert(Math.abs(rows.data[at] - value / root) < 1e-15));
});

Deno.test("wrong designs are refused by name, and a signal stops the draws", async () => {
  const { x, design } = world(new Random(6));
  const both = { ...design, person: design.person.map((id) => id === 7 ? 0 : id) };
  await assert.rejects(sound(x, both), /person 0 is both seen and unseen/);
  const few = { ...design, person: Int32Array.from(design.labels) };
  await assert.rejects(sound(x, few), /1 seen and 1 unseen people, expected at least 2/);
  await assert.rejects(sound(x, { ...design, scene: design.scene.slice(1) }), /"scene" has 71 entries/);
  await assert.rejects(sound(x, design, { draws: 0 }), InputError);
  const broken = { ...x, data: x.data.slice() };
  broken.data[DIM + 2] = NaN;
  assert.throws(() => faithful(broken, design), /row 1 holds NaN at index 2/);
  assert.throws(() => faithful(x, { ...design, labels: new Uint8Array(x.n) }), /no row is seen/);

  const stop = new AbortController();
  let seen = 0;
  const onProgress = (done: number) => {
    seen = done;
    if (done === 3) stop.abort(new Error("enough"));
  };
  await assert.rejects(sound(x, design, { signal: stop.signal, onProgress }), /enough/);
  assert.equal(seen, 3);
});
