/**
 * The logistic solver against optima that scikit-learn's Newton solver reached at full precision, and the metrics against
 * scikit-learn's (fixtures/probe_logistic, fixtures/probe_metrics); more columns than rows, subsets and saturated fits.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { fitLogistic, logisticSolver } from "../core/probe/logistic.ts";
import { accuracy, auroc, brier, logLoss, sigmoid, tprAtFpr } from "../core/probe/metrics.ts";
import { Random } from "../core/random.ts";
import { allclose, FIXTURES } from "./check.ts";

const json = async (path: string) => JSON.parse(await Deno.readTextFile(`${FIXTURES}/${path}`));
const bits = (text: string) => Uint8Array.from(text, Number);

/** The gradient of C sum log(1 + exp(-y m)) + |w|^2 / 2 at a fit: weights first, the intercept last. */
function gradient(
  data: ArrayLike<number>,
  labels: Uint8Array,
  c: number,
  coef: Float64Array,
  intercept: number,
) {
  const dim = coef.length, out = [...coef, 0];
  labels.forEach((label, i) => {
    let margin = intercept;
    for (let j = 0; j < dim; j++) margin += coef[j] * data[i * dim + j];
    const error = c * (sigmoid(margin) - label);
    for (let j = 0; j < dim; j++) out[j] += error * data[i * dim + j];
    out[dim] += error;
  });
  return Math.max(...out.map(Math.abs));
}

Deno.test("fits reach the optimum, also with more columns than rows and extreme penalties", async () => {
  for (const { n, dim, c, x, labels, coef, intercept } of await json("probe_logistic/optima.json")) {
    const fit = fitLogistic({ n, dim, data: Float64Array.from(x) }, bits(labels), { c });
    allclose(`${n} x ${dim}, C ${c}`, [...fit.coef, fit.intercept], [...coef, intercept], 1e-8);
  }
});

Deno.test("a wide fit equals the narrow one it contains", () => {
  const random = new Random(3), n = 30, dim = 6, wide = 90;
  const x = Float64Array.from({ length: n * dim }, () => random.normal());
  const labels = Uint8Array.from({ length: n }, (_, i) => i % 3 === 0 ? 1 : 0);
  const padded = new Float64Array(n * wide);
  for (let i = 0; i < n; i++) for (let j = 0; j < dim; j++) padded[i * wide + 7 * j] = x[i * dim + j];
  const narrow = fitLogistic({ n, dim, data: x }, labels);
  const far = fitLogistic({ n, dim: wide, data: padded }, labels);
  allclose("weights", Array.from({ length: dim }, (_, j) => far.coef[7 * j]), narrow.coef, 1e-8);
  assert(Math.abs(far.intercept - narrow.intercept) < 1e-8);
  assert(far.coef.every((value, j) => j % 7 === 0 && j < 7 * dim || Math.abs(value) < 1e-9));
});

Deno.test("a solver shared by subsets and labels forgets the fit before, and scores what it fitted", () => {
  const random = new Random(5), n = 48, dim = 5;
  const data = Float64Array.from({ length: n * dim }, () => random.normal());
  const labels = Uint8Array.from({ length: n }, () => random.int(2));
  const solver = logisticSolver({ n, dim, data }, n / 2);
  for (const start of [0, 1]) {
    const train = Int32Array.from({ length: n / 2 }, (_, i) => 2 * i + start);
    const part = new Float64Array(n / 2 * dim);
    train.forEach((row, i) => part.set(data.subarray(row * dim, (row + 1) * dim), i * dim));
    const alone = fitLogistic({ n: n / 2, dim, data: part }, Uint8Array.from(train, (row) => labels[row]));
    const shared = solver.fit(train, labels);
    allclose("shared fit", [...shared.coef, shared.intercept], [...alone.coef, alone.intercept], 1e-8);
    const scores = new Float64Array(2);
    solver.scores(Int32Array.of(7, 20), scores);
    [7, 20].forEach((row, i) => {
      let score = alone.intercept;
      for (let j = 0; j < dim; j++) score += alone.coef[j] * data[row * dim + j];
      assert(Math.abs(scores[i] - score) < 1e-7);
    });
  }
});

Deno.test("separable, badly scaled rows converge to a vanishing gradient", () => {
  const random = new Random(8), n = 120, dim = 10;
  const labels = Uint8Array.from({ length: n }, (_, i) => i % 2);
  const data = Float64Array.from({ length: n * dim }, (_, at) => {
    const j = at % dim, label = labels[Math.floor(at / dim)];
    return 10 ** (j / 3 - 1) * (random.normal() + (label ? 2 : -2) + 5);
  });
  for (const c of [0.1, 1, 1000]) {
    const { coef, intercept } = fitLogistic({ n, dim, data }, labels, { c });
    const before = gradient(data, labels, c, new Float64Array(dim), 0);
    assert(gradient(data, labels, c, coef, intercept) < 1e-8 * before, `C ${c}`);
  }
});

Deno.test("one class and a C that is no penalty are refused", () => {
  const x = { n: 2, dim: 1, data: Float64Array.of(1, 2) };
  assert.throws(() => fitLogistic(x, Uint8Array.of(1, 1)), /2 of 2 rows are seen/);
  for (const c of [0, -1, NaN, Infinity]) {
    assert.throws(() => fitLogistic(x, Uint8Array.of(0, 1), { c }), InputError);
  }
});

Deno.test("metrics are scikit-learn's, with and without ties", async () => {
  for (const want of await json("probe_metrics/cases.json")) {
    const labels = bits(want.labels), scores: number[] = want.scores, p = scores.map(sigmoid);
    const pairs = [
      [auroc(labels, scores), want.auroc],
      [accuracy(labels, scores), want.accuracy],
      [brier(labels, p), want.brier],
      [logLoss(labels, p), want.log_loss],
      ...Object.entries(want.tpr).map(([fpr, tpr]) => [tprAtFpr(labels, scores, Number(fpr)), tpr as number]),
    ];
    for (const [ours, theirs] of pairs) {
      assert(Math.abs(ours - theirs) <= 1e-12, `${ours}, expected ${theirs}`);
    }
  }
  assert.equal(auroc([0, 1], [3, 3]), 0.5);
  assert.throws(() => auroc([1, 1], [0, 1]), RangeError);
  assert.throws(() => auroc([0, 1], [0, 1, 2]), RangeError);
});
