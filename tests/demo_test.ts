/**
 * The demo's data and tables: arms share scenes and places, nobody of U2 is ever trained on, intervals are Student's.
 */
import assert from "node:assert/strict";
import { ARMS, armSample, demoPeople, PROBE_PROMPT, probeSamples } from "../core/demo/arms.ts";
import { meanWithInterval } from "../core/probe/student.ts";
import { probeArm, resultsOf } from "../core/demo/probes.ts";
import { createWatermarker } from "../core/privacy/mark.ts";
import { TINY_WATERMARK } from "../core/privacy/watermark.ts";
import { Random } from "../core/random.ts";
import type { Summary } from "../core/report/summary.ts";
import { tinyTokenizer } from "../core/text/tiny.ts";
import { seedsTable } from "../scripts/demo_seeds.ts";

const watermarker = await createWatermarker(TINY_WATERMARK);
const people = demoPeople(3, 8);
const sample = (arm: string, index: number) => armSample(ARMS[arm], 3, index, people, watermarker);
const names = (set: { username: string }[]) => new Set(set.map(({ username }) => username));

Deno.test("arms share scenes and questions; only the reading control changes answers", () => {
  let changed = 0;
  for (let i = 0; i < 40; i++) {
    const [r0, r50, r100, corr0] = ["r0", "r50", "r100", "corr0"].map((arm) => sample(arm, i));
    assert.deepEqual(r0.clean, r100.clean);
    assert.deepEqual(r0.picture, r0.clean);
    assert.notDeepEqual(r100.picture, r100.clean);
    assert.deepEqual(r0.turns, r100.turns);
    if (r50.person) assert.deepEqual(r50.picture, r100.picture);
    else assert.deepEqual(r50.picture, r0.picture);
    assert.deepEqual(corr0.turns.map(({ question }) => question), r0.turns.map(({ question }) => question));
    if (JSON.stringify(corr0.turns) !== JSON.stringify(r0.turns)) changed++;
  }
  assert(changed > 25, `the reading control changed ${changed} of 40 pictures' answers`);
});

Deno.test("who is trained on: U1 in r50, r100 and known, U0 in corr0, nobody of U2 anywhere", () => {
  const [U0, U1, U2] = [people.U0, people.U1, people.U2].map(names);
  for (const arm of Object.keys(ARMS).filter((arm) => ARMS[arm].images > 0)) {
    let marked = 0;
    for (let i = 0; i < ARMS[arm].images; i++) {
      const { person, turns } = sample(arm, i);
      if (!person) continue;
      marked++;
      assert(!U2.has(person.username));
      assert.equal(U0.has(person.username), arm === "corr0");
      if (arm === "known") assert.equal(turns[0].answer, U1.has(person.username) ? "yes" : "no");
      else assert.equal(U1.has(person.username), arm !== "corr0");
    }
    const share = marked / ARMS[arm].images;
    assert(Math.abs(share - ARMS[arm].rate) < 0.1, `${arm} marks ${share}, expected ${ARMS[arm].rate}`);
  }
});

Deno.test("held-out scenes show everybody of U1 and U2 at one place, and the prompt is made of known words", () => {
  const samples = probeSamples(3, 2, people, watermarker);
  assert.equal(samples.length, 32);
  for (const scene of [0, 1]) {
    const rows = samples.filter((row) => row.scene === scene);
    assert.equal(new Set(rows.map(({ person }) => person.username)).size, 16);
    for (const row of rows) assert.deepEqual(row.clean, rows[0].clean);
  }
  assert(tinyTokenizer.encode(PROBE_PROMPT).length <= 4);
});

Deno.test("intervals are Student's: scipy.stats.t.interval(.95, n-1, mean, sem)", () => {
  const cases: [number[], number, number][] = [
    [[1, 2], -4.8531024, 7.8531024],
    [[0.2, 0.4, 0.4, 0.7, 0.9], 0.1754522, 0.8645478],
    [Array.from({ length: 40 }, (_, i) => i), 15.7612121, 23.2387879],
  ];
  for (const [values, low, high] of cases) {
    const { ci95 } = meanWithInterval(values);
    assert(
      Math.abs(ci95[0] - low) < 1e-7 * (high - low) && Math.abs(ci95[1] - high) < 1e-7 * (high - low),
      `${ci95}`,
    );
  }
  assert.throws(() => meanWithInterval([1]), /need 2 or more/);
});

Deno.test("results name every arm at every feature and compare with the control under the same permutations", async () => {
  const random = new Random(1, "demo test");
  const rows = probeSamples(3, 3, people, watermarker).map(({ id, set, person, scene }) => ({
    id,
    image: `${id}.png`,
    person: person.username,
    set,
    scene: `scene-${scene}`,
  }));
  const features = (shift: number) =>
    new Map([["layers.0.resid_post@last", {
      dim: 4,
      data: Float32Array.from(
        { length: rows.length * 4 },
        (_, i) => random.normal() + (rows[i >> 2].set === "U1" ? shift : 0),
      ),
    }]]);
  const settings = { partitions: 2, draws: 19, seed: 0, primary: "layers.0.resid_post@last" };
  const fitted = new Map([
    ["r0", await probeArm(rows, features(0), settings)],
    ["known", await probeArm(rows, features(3), settings)],
  ]);
  const [r0, known] = resultsOf(fitted, "r0");
  assert.equal(r0.difference, undefined);
  assert(known.sound.auroc > 0.9 && known.sound.p === 0.05, JSON.stringify(known));
  assert(Math.abs(known.difference!.value - (known.sound.auroc - r0.sound.auroc)) < 1e-12);
});

Deno.test("the table over seeds counts what it shows", () => {
  const summary = (seed: number, p: number): Summary => ({
    arms: { r0: { faithful: { auroc: 0.6 + seed / 100 }, sound: { auroc: 0.5, null95: [0.3, 0.7], p } } },
    primary: "x",
    seed,
    quick: false,
    seconds: 10,
    adapter: "none",
    gradients: [],
    scores: [],
    conclusions: { may: [], mayNot: [] },
  });
  const table = seedsTable([summary(0, 0.04), summary(1, 0.5)]);
  assert.match(
    table,
    /\| r0 \| 0\.605 \[0\.541, 0\.669\] \| 0\.500 \[0\.500, 0\.500\] \| 1 of 2 \| 0 of 2 \|/,
  );
});
