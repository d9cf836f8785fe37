/**
 * Calibration against scikit-learn's Platt and isotonic fits and curves, on known probabilities, and of whole probes on simulated people;
 * calibrated stored probes and their warnings.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import {
  calibrate,
  calibrated,
  calibrationMethod,
  fitIsotonic,
  fitPlatt,
  ISOTONIC_PEOPLE,
  reliability,
} from "../core/probe/calibration.ts";
import { checkCalibration } from "../core/probe/calibration_check.ts";
import { brier, sigmoid } from "../core/probe/metrics.ts";
import { fitSingle } from "../core/probe/single.ts";
import { scoreProbe, type StoredProbe } from "../core/probe/stored.ts";
import { Random } from "../core/random.ts";
import { simulate } from "./simulated_people.ts";
import cases from "./fixtures/probe_calibration/cases.json" with { type: "json" };

const near = (a: number, b: number, error: number, what = "") =>
  assert(Math.abs(a - b) <= error, `${what} ${a}, expected ${b}`);

Deno.test("sigmoid, isotonic fit, reliability and Brier score are scikit-learn's", () => {
  for (const [at, known] of cases.entries()) {
    const { labels, scores, asked } = known, unit = Math.max(...scores.map(Math.abs));
    const platt = fitPlatt(labels, scores, 10), isotonic = fitIsotonic(labels, scores, 10);
    assert(platt.method === "platt" && isotonic.method === "isotonic");
    near(platt.slope * unit, known.platt[0] * unit, 1e-6, `slope of case ${at}`);
    near(platt.offset, known.platt[1], 1e-6, `offset of case ${at}`);
    asked.forEach((score, i) => near(calibrated(isotonic, score).probability, known.isotonic[i], 1e-12));
    // Its own probabilities, so that a bin's edge cannot depend on where its optimiser stopped.
    const { bins } = reliability(labels, known.probabilities);
    assert.equal(bins.length, known.observed.length);
    bins.forEach(({ observed, predicted }, k) => {
      near(observed, known.observed[k], 1e-12);
      near(predicted, known.predicted[k], 1e-12);
    });
    near(brier(labels, known.probabilities), known.brier, 1e-12);
  }
});

Deno.test("both methods recover probabilities that are known", () => {
  const random = new Random(5), truth = (score: number) => sigmoid(0.7 * score - 0.4);
  const scores = Array.from({ length: 20_000 }, () => 2 * random.normal());
  const labels = scores.map((score) => Number(random.float() < truth(score)));
  for (const method of ["platt", "isotonic"] as const) {
    const calibration = calibrate(method, labels, scores, 20_000);
    const asked = Array.from({ length: 2000 }, () => 2 * random.normal());
    const answers = asked.map((score) => calibrated(calibration, score).probability);
    const error = answers.reduce((sum, p, i) => sum + Math.abs(p - truth(asked[i])), 0) / asked.length;
    assert(error < 0.02, `${method}: ${error}`);
    const seen = asked.map((score) => Number(random.float() < truth(score)));
    assert(reliability(seen, answers).ece <= 0.03, method);
    // The scores themselves, taken for log-odds, are overconfident: the measure must notice.
    assert(reliability(seen, asked.map((score) => sigmoid(2 * score))).ece > 0.08);
  }
});

Deno.test("with enough people and scenes a probe's probabilities mean what they say: ECE at most 0.03", () => {
  const worlds = 3;
  for (const { people, method } of [{ people: 49, method: "platt" }, { people: 100, method: "isotonic" }]) {
    let ece = 0, abstained = 0;
    for (let k = 0; k < worlds; k++) {
      const { x, design } = simulate(new Random(9, `people/${k}`), { people, scenes: 24, dim: 4, shared: 1 });
      const check = checkCalibration(x, design, { standardize: true }, new Random(k));
      assert.equal(check.method, method);
      assert.equal(check.bins.reduce((sum, { n }) => sum + n, 0), x.n);
      ece += check.ece / worlds;
      abstained += check.abstained / worlds;
    }
    assert(ece <= 0.03, `${people} people: ${ece}`);
    assert(abstained < 0.01, `${abstained}`);
  }
});

Deno.test("scenes that are too few to know are abstained from", () => {
  let many = 0, few = 0;
  for (let k = 0; k < 6; k++) {
    const share = (scenes: number) => {
      const { x, design } = simulate(new Random(9, `few/${k}`), { people: 30, scenes, dim: 4, shared: 1 });
      return checkCalibration(x, design, { standardize: true }, new Random(k)).abstained / 6;
    };
    many += share(24);
    few += share(3);
  }
  assert(few > 4 * many, `${few} of three scenes, ${many} of 24`);
});

Deno.test("the number of people chooses the method; a sigmoid never descends; ends are flagged", () => {
  assert.deepEqual([ISOTONIC_PEOPLE - 1, ISOTONIC_PEOPLE].map(calibrationMethod), ["platt", "isotonic"]);
  const against = fitPlatt([1, 1, 0, 0], [-2, -1, 1, 2], 4);
  assert(against.method === "platt" && against.slope === 0);
  assert.equal(calibrated(against, 1).probability, 0.5);
  const steps = fitIsotonic([0, 1, 0, 1], [0, 1, 2, 3], 4);
  // The middle two violate the order and are pooled.
  assert(steps.method === "isotonic");
  assert.deepEqual(steps.knots, [[0, 0], [1, 0.5], [2, 0.5], [3, 1]]);
  assert.deepEqual(calibrated(steps, 0.5), { probability: 0.25, beyond: false });
  assert.deepEqual(calibrated(steps, 9), { probability: 1, beyond: true });
  assert.deepEqual(calibrated(steps, -1), { probability: 0, beyond: true });
  assert.throws(() => fitPlatt([1, 1], [0, 1], 2), InputError);
  const { bins, ece } = reliability([1, 0, 1], [1, 0.05, 0.55]);
  assert.deepEqual(bins.map(({ low, n, observed }) => [low, n, observed]), [[0, 1, 0], [0.5, 1, 1], [
    0.9,
    1,
    1,
  ]]);
  near(ece, (0.05 + 0.45) / 3, 1e-15);
});

Deno.test("a stored calibration gives the probability, and pictures beyond what was seen are flagged", () => {
  const { x, design } = simulate(new Random(4), { people: 12, scenes: 8, shared: 2 });
  const { tensors, calibration, support, threshold } = fitSingle(
    x,
    design,
    { standardize: true },
    new Random(1),
  );
  assert(calibration.method === "platt" && calibration.people === 24 && support);
  const feature = "layers.0.resid_post@last";
  const layer = {
    feature,
    site: "layers.0.resid_post",
    reduction: "last",
    dim: x.dim,
    metrics: {},
    threshold,
  };
  const facts = {
    id: "p",
    title: "",
    mode: "sound" as const,
    model: { name: "m", hash: "h", adapter: null },
    content: "",
    prompt: "",
    primary: feature,
    seen: { set: "U1", people: 12 },
    unseen: { set: "U2", people: 12 },
    seed: 0,
    tensors: { [feature]: tensors },
  };
  const probe: StoredProbe = { ...facts, layers: [{ ...layer, calibration, support }] };
  const ask = (of: StoredProbe, values: Float32Array) => scoreProbe(of, { [feature]: values })[0];
  for (let i = 0; i < 5; i++) {
    const row = Float32Array.from(x.data.subarray(i * x.dim, (i + 1) * x.dim));
    const plain = ask({ ...facts, layers: [layer] }, row), answer = ask(probe, row);
    assert.deepEqual(plain, {
      ...plain,
      probability: sigmoid(plain.score),
      calibrated: false,
      beyond: false,
    });
    const { probability } = calibrated(calibration, plain.score);
    assert.deepEqual([answer.score, answer.probability, answer.calibrated], [plain.score, probability, true]);
    // Every fitted picture is within the support; its score may lie beyond those of people left out.
    assert.equal(answer.beyond, calibrated(calibration, plain.score).beyond);
  }
  // Far away along a direction that the score does not heed, and far along the one it does.
  const { coef, mean, scale } = tensors, [a, b] = coef;
  const sideways = Float32Array.from(
    mean!,
    (value, j) => value + scale![j] * (j === 0 ? 30 * b : j === 1 ? -30 * a : 0),
  );
  const off = ask(probe, sideways);
  assert(off.beyond && !calibrated(calibration, off.score).beyond);
  assert(ask(probe, Float32Array.from(mean!, (value, j) => value + 50 * scale![j] * coef[j])).beyond);
});
