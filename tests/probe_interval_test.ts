/**
 * Intervals and choices of the sound probe on simulated people: how often they cover the truth and raise false alarms, C chosen without a
 * look at those tested, and corrections over arms and seeds.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import type { Permuted } from "../core/probe/inference.ts";
import { differenceInterval, nullDeviation, scoreInterval } from "../core/probe/interval.ts";
import { sound } from "../core/probe/sound.ts";
import { Random } from "../core/random.ts";
import { armDifference, combineSeeds, corrected, pFloor } from "../core/study/corrected.ts";
import { simulate } from "./simulated_people.ts";

const OPTIONS = { centerScenes: true, standardize: true, partitions: 4 };

/** Three standard errors of a share of `worlds`. */
const slack = (share: number, worlds: number) => 3 * Math.sqrt(share * (1 - share) / worlds);

Deno.test("95 % intervals cover the truth, and controls without a trace are rejected at the level", async () => {
  // The truth is the mean over all worlds; draws are lent, as docs/probes.md says why they may be.
  const worlds = 600, lenders = 40, draws = 49;
  let alarms = 0, arms = 0;
  for (const kind of [{ shared: 0 }, { shared: 1.5 }, { shared: 3 }, { shared: 1.5, alike: 0.97 }]) {
    const pairs: [Permuted, Permuted][] = [], name = JSON.stringify(kind);
    for (let k = 0; k < worlds; k++) {
      const { x, other, design } = simulate(new Random(7, `${name}/${k}`), kind);
      const how = { ...OPTIONS, draws: k < lenders ? draws : 1, seed: k };
      const a = await sound(x, design, how), b = await sound(other, design, how);
      pairs.push([a, b]);
      if (k >= lenders) continue;
      // The other arm never has a trace.
      if (b.p <= 0.05) alarms++;
      arms++;
    }
    const mean = (of: (pair: [Permuted, Permuted]) => number) =>
      pairs.reduce((sum, pair) => sum + of(pair) / worlds, 0);
    const truth = mean(([a]) => a.observed), gap = truth - mean(([, b]) => b.observed);
    const held = { AUROC: 0, difference: 0, byNull: 0 };
    for (const [k, pair] of pairs.entries()) {
      const [a, b] = pair.map(({ observed }, i) => permuted(observed, [...pairs[k % lenders][i].nullDraws]));
      const [low, high] = scoreInterval(a.observed, a.nullDraws), [less, more] = differenceInterval(a, b);
      if (low <= truth && truth <= high) held.AUROC += 1 / worlds;
      if (less <= gap && gap <= more) held.difference += 1 / worlds;
      const half = 1.959963984540054 * nullDeviation(a.nullDraws.map((value, i) => value - b.nullDraws[i]));
      if (Math.abs(a.observed - b.observed - gap) <= half) held.byNull += 1 / worlds;
    }
    for (const what of ["AUROC", "difference"] as const) {
      const off = Math.abs(held[what] - 0.95);
      assert(off <= 0.02 + slack(0.95, worlds), `${what} at ${name}: ${held[what]}`);
    }
    // The paired null's deviation, of arms that are alike and of which one has found something, would have failed.
    if ("alike" in kind) assert(held.byNull < 0.93 - slack(0.95, worlds), `${held.byNull}`);
  }
  assert(alarms / arms <= 0.06 + slack(0.05, arms), `${alarms} of ${arms} controls`);
});

/** The formula of docs/probes.md, in another form: x is half the distance from 1/2 in deviations. */
function variance(t: number, s: number): number {
  const x = Math.abs(t - 0.5) / (2 * s);
  return s ** 2 * Math.pow(4 * t - 4 * t ** 2, 1.6) * (1 + 0.8 * x / (1 + x ** 2));
}

Deno.test("the score interval is where its own inequality says, narrow near 0 and 1", () => {
  const draws = [0.4, 0.45, 0.5, 0.55, 0.6], s = nullDeviation(draws), z = 1.959963984540054;
  assert(Math.abs(s - Math.sqrt(0.00625)) < 1e-15);
  for (const observed of [0, 0.3, 0.5, 0.8, 0.97, 1]) {
    const ends = scoreInterval(observed, draws);
    assert(ends[0] >= 0 && ends[0] <= observed && observed <= ends[1] && ends[1] <= 1);
    for (const t of ends) {
      const gap = Math.abs(observed - t) - z * Math.sqrt(variance(t, s));
      // At 0 and 1 the interval ends with the scale.
      assert(Math.abs(gap) < 1e-12, `${observed} ${t}`);
    }
  }
  assert(scoreInterval(0.97, draws)[0] > 0.97 - z * s);
  assert.throws(() => scoreInterval(0.5, [0.5]), /there are 1 null draws, expected at least 2/);
});

Deno.test("a difference's interval ends where its own inequality does, beyond any hole at no difference", () => {
  const z = 1.959963984540054, a = permuted(0.7, [0.4, 0.5, 0.62]), b = permuted(0.55, [0.45, 0.44, 0.6]);
  /** How far a gap lies beyond what is left, worked out anew. */
  const beyond = (one: Permuted, two: Permuted, gap: number) => {
    const [s, t] = [one, two].map(({ nullDraws }) => nullDeviation(nullDraws));
    const means = [one, two].map(({ nullDraws }) =>
      nullDraws.reduce((sum, v) => sum + v, 0) / nullDraws.length
    );
    const covariance = one.nullDraws.reduce(
      (sum, v, i) => sum + (v - means[0]) * (two.nullDraws[i] - means[1]) / (one.nullDraws.length - 1),
      0,
    );
    const inside = (t: number) => Math.min(1, Math.max(0, t)), middle = (one.observed + two.observed) / 2;
    const x = variance(inside(middle + gap / 2), s), y = variance(inside(middle - gap / 2), t);
    const r = covariance / (s * t) / (1 + Math.abs(gap) / Math.sqrt(x + y) / 2);
    return Math.abs(one.observed - two.observed - gap) - z * Math.sqrt(x + y - 2 * r * Math.sqrt(x * y));
  };
  const ends = differenceInterval(a, b);
  assert(ends[0] < 0.15 && 0.15 < ends[1]);
  for (const end of ends) assert(Math.abs(beyond(a, b, end)) < 1e-9, `${ends}`);
  // Arms that read alike, a little apart: no gap at all is less likely than a small one the other way.
  const noise = [0.36, 0.41, 0.47, 0.5, 0.55, 0.58, 0.63],
    like = noise.map((v, i) => v + (i % 2 ? 0.004 : -0.004));
  const first = permuted(0.54, noise), second = permuted(0.5, like);
  assert(beyond(first, second, 0) > 0 && beyond(first, second, -0.05) < 0);
  const [low, high] = differenceInterval(first, second);
  assert(
    low < -0.05 && Math.abs(beyond(first, second, low)) < 1e-9 &&
      Math.abs(beyond(first, second, high)) < 1e-9,
  );
  for (let gap = low - 0.001; gap > -1; gap -= 0.001) assert(beyond(first, second, gap) > 0, `${gap}`);
  // One arm twice: nothing but 0 is observed, and the interval is as wide to either side.
  const [less, more] = differenceInterval(first, first);
  assert(Math.abs(less + more) < 1e-9 && more > 0);
  assert.throws(() => differenceInterval(a, permuted(0.6, [0.4, 0.5, 0.6], 2)), InputError);
});

Deno.test("C is chosen within the fitted people, and the choice costs no validity", async () => {
  const worlds = 120, ps: number[] = [];
  for (let k = 0; k < worlds; k++) {
    const { x, design } = simulate(new Random(12, `grid/${k}`), { people: 4 });
    const result = await sound(x, design, {
      ...OPTIONS,
      partitions: 2,
      draws: 19,
      seed: k,
      cGrid: [0.01, 1],
    });
    ps.push(result.p);
  }
  for (const level of [0.05, 0.25, 0.5]) {
    const share = ps.filter((p) => p <= level).length / worlds;
    assert(Math.abs(share - level) <= slack(level, worlds), `${share} of the p-values are at most ${level}`);
  }
  const { x, design } = simulate(new Random(2), { people: 8, shared: 1.5, dim: 24 });
  const result = await sound(x, design, { ...OPTIONS, draws: 5, cGrid: [1e-3, 1, 1e3] });
  assert.equal(Object.values(result.chosenC!).reduce((a, b) => a + b), OPTIONS.partitions);
  // With 24 dimensions and 8 fitted people, a penalty so weak that people are learnt by heart loses to others.
  assert(!("1000" in result.chosenC!), JSON.stringify(result.chosenC));
  // One candidate is that C alone, and the tested people's labels cannot be seen in the choice.
  const alone = await sound(x, design, { ...OPTIONS, draws: 5, cGrid: [0.1] });
  assert.deepEqual(alone.nullDraws, (await sound(x, design, { ...OPTIONS, draws: 5, c: 0.1 })).nullDraws);
});

const permuted = (observed: number, draws: number[], plan = 1): Permuted => ({
  observed,
  nullDraws: Float64Array.from(draws),
  plan,
});

Deno.test("corrections over arms and seeds as worked out by hand", () => {
  // The second arm's values are the first one's times ten: on their own scales both say the same.
  const narrow = permuted(0.6, [0.5, 0.4, 0.5]), wide = permuted(6, [4, 5, 5]);
  assert.deepEqual(corrected([narrow]), [1 / 4]);
  assert.deepEqual(corrected([narrow, wide]), [1 / 4, 1 / 4]);
  const none = permuted(0.45, [0.5, 0.4, 0.5]);
  // .45 lies .26 deviations below its mean of .4625; the first and third draw have an arm that lies higher, the second has none.
  assert.deepEqual(corrected([narrow, none]), [1 / 4, 3 / 4]);
  assert.throws(() => corrected([narrow, permuted(0, [0, 0, 0], 2)]), InputError);

  const difference = armDifference(permuted(0.8, [0.5, 0.6, 0.4]), permuted(0.5, [0.5, 0.5, 0.5]));
  assert(Math.abs(difference.difference - 0.3) < 1e-15);
  assert.equal(difference.p, 1 / 4);
  // The second arm's null has no width, the first one's deviates by .1; both are taken half a gap from .65.
  for (const gap of difference.ci95) {
    const reach = 1.959963984540054 * Math.sqrt(variance(0.65 + gap / 2, 0.1));
    assert(Math.abs(Math.abs(0.3 - gap) - reach) < 1e-12, `${gap}`);
  }

  const seeds = combineSeeds([permuted(0.7, [0.5, 0.9]), permuted(0.5, [0.3, 0.5], 2)]);
  assert(Math.abs(seeds.permuted.observed - 0.6) < 1e-15);
  assert(seeds.permuted.nullDraws.every((value, i) => Math.abs(value - [0.4, 0.7][i]) < 1e-15));
  assert.equal(seeds.p, 2 / 3);
  assert.throws(() => combineSeeds([permuted(0.7, [0.5]), permuted(0.5, [0.3, 0.5])]), InputError);
  assert.deepEqual([pFloor(200, 8, 8), pFloor(999, 4, 4), pFloor(99, 2, 3)], [1 / 201, 1 / 70, 1 / 10]);
});

Deno.test("together corrected arms raise a false alarm no more often than one does", async () => {
  const worlds = 150;
  let any = 0, uncorrected = 0;
  for (let k = 0; k < worlds; k++) {
    const { x, other, design } = simulate(new Random(13, `arms/${k}`), { people: 4 });
    const options = { ...OPTIONS, partitions: 2, draws: 19, seed: k };
    const arms = [await sound(x, design, options), await sound(other, design, options)];
    arms.push(await sound(simulate(new Random(14, `third/${k}`), { people: 4, own: 3 }).x, design, options));
    if (Math.min(...corrected(arms)) <= 0.05) any++;
    if (arms.some(({ p }) => p <= 0.05)) uncorrected++;
  }
  assert(any / worlds <= 0.05 + slack(0.05, worlds), `${any} of ${worlds}`);
  assert(uncorrected > any, `${uncorrected} without the correction`);
});
