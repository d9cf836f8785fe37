/**
 * The band of a calibrated probability: how often it holds the truth on simulated people, and that people are redrawn
 * and not their pictures; the scores of unseen people that stored probes keep.
 */
import assert from "node:assert/strict";
import { calibrate, calibrated } from "../core/probe/calibration.ts";
import { calibrationBand } from "../core/probe/calibration_band.ts";
import { decideLayers } from "../core/probe/decide.ts";
import { fitSingle } from "../core/probe/single.ts";
import type { FeatureScore, StoredProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { simulate } from "./simulated_people.ts";

const PICTURES = 10;

/** Scores of people of two classes: a person's own level, and a little noise a picture. */
function draw(random: Random, people: number) {
  const labels: number[] = [], scores: number[] = [], person: number[] = [];
  for (let who = 0; who < 2 * people; who++) {
    const seen = who % 2, level = random.normal() + (seen ? 0.7 : -0.7);
    for (let i = 0; i < PICTURES; i++) {
      labels.push(seen);
      scores.push(level + 0.3 * random.normal());
      person.push(who);
    }
  }
  return { labels, scores, person };
}

Deno.test("the band holds the probability that many people give, and redraws people, not pictures", () => {
  const random = new Random(12), many = draw(random.split("truth"), 4000), studies = 40;
  const truth = calibrated(calibrate("platt", many.labels, many.scores, 8000), 0.8).probability;
  let held = 0, width = 0, narrow = 0;
  for (let study = 0; study < studies; study++) {
    const { labels, scores, person } = draw(random.split("study", study), 20);
    const calibration = calibrate("platt", labels, scores, 40);
    const at = (who: ArrayLike<number>) => {
      const options = { person: who, random: random.split("band", study), draws: 100 };
      const band = calibrationBand(calibration, labels, scores, options);
      const next = band.findIndex(([score]) => score >= 0.8), [, low, high] = band[next];
      return { low, high, band };
    };
    const { low, high, band } = at(person), single = at(scores.keys().toArray());
    band.forEach(([score, low, high], k) => {
      const { probability } = calibrated(calibration, score);
      assert(low <= probability && probability <= high && (k === 0 || score > band[k - 1][0]));
    });
    if (low <= truth && truth <= high) held++;
    width += high - low;
    narrow += single.high - single.low;
  }
  assert(held >= 0.8 * studies, `${held} of ${studies} bands hold ${truth}`);
  assert(narrow < 0.6 * width, `pictures give a width of ${narrow / studies}, people ${width / studies}`);
});

Deno.test("a stored probe gives its answers an interval and a z against unseen people", () => {
  const { x, design } = simulate(new Random(4), { people: 12, scenes: 8, shared: 2 });
  const options = { standardize: true };
  const plain = fitSingle(x, design, options, new Random(1));
  const { calibration, unseen, ...rest } = fitSingle(x, design, { ...options, band: true }, new Random(1));
  assert.equal(plain.calibration.band, undefined);
  const { band: _, ...bare } = calibration;
  assert.deepEqual(plain, { ...rest, unseen, calibration: bare });
  const [first, last] = [calibration.band![0], calibration.band!.at(-1)!];
  assert.deepEqual([first[0], last[0]], calibration.scores);

  const layer = { feature: "norm@last", dim: x.dim, threshold: rest.threshold, calibration, unseen };
  const probe = { primary: "norm@last", layers: [layer] } as unknown as StoredProbe;
  const score = unseen!.mean + 2 * unseen!.deviation, { probability } = calibrated(calibration, score);
  const asked: FeatureScore = { feature: "norm@last", score, probability, calibrated: true, beyond: false };
  const [{ z, interval }] = decideLayers(probe, [asked], 0.01);
  assert(Math.abs(z! - 2) < 1e-9);
  assert(interval!.low < interval!.high && interval!.low <= probability && probability <= interval!.high);
});
