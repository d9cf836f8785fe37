/**
 * The faithful mode's split and fit against scikit-learn 1.9 (fixtures/probe_sklearn): indices to the last, coefficients
 * where its solver stops, over sizes, penalties and scales that take the line search through all its cases.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { lineSearch } from "../core/probe/line_search.ts";
import { fitLogistic } from "../core/probe/logistic.ts";
import { randomState } from "../core/probe/numpy_random.ts";
import { fitLikeSklearn } from "../core/probe/sklearn_fit.ts";
import { personPartitions, splitByImage, splitByScene } from "../core/probe/splits.ts";
import { Random } from "../core/random.ts";
import { openFile } from "../scripts/folder.ts";
import { allclose, FIXTURES } from "./check.ts";

const folder = `${FIXTURES}/probe_sklearn`;
const json = async (name: string) => JSON.parse(await Deno.readTextFile(`${folder}/${name}`));

Deno.test("MT19937 gives the words of its authors' test vector and of numpy", () => {
  const { uint32 } = randomState(5489);
  let word = 0;
  for (let i = 0; i < 10_000; i++) word = uint32();
  assert.equal(word, 4123659995); // the 10,000th word, as the C++ standard demands of std::mt19937
  assert.throws(() => randomState(-1), RangeError);
});

Deno.test("the split by image is scikit-learn's train_test_split, index by index", async () => {
  for (const { labels, share, seed, train, train_head, test } of await json("splits.json")) {
    const split = splitByImage(Array.from(labels as string, Number), share, seed);
    assert.deepEqual(Array.from(split.test), test, `test part of ${labels.length} rows`);
    assert.deepEqual(
      Array.from(split.train.subarray(0, train_head.length)),
      train_head.slice(0, split.train.length),
    );
    if (train) assert.deepEqual(Array.from(split.train), train);
    assert.equal(new Set([...split.train, ...split.test]).size, labels.length);
  }
  assert.throws(() => splitByImage([0, 0, 0, 0, 1]), InputError);
  assert.throws(() => splitByImage([0, 1, 0, 1], 1), InputError);
});

// Badly scaled columns take over a hundred steps, and each few steps cost a digit of agreement between any two orders of
// summation; there the steps are compared up to the 40th.
Deno.test("fits stop where scikit-learn's stop", async () => {
  const file = await SafetensorsFile.open(await openFile(`${folder}/fits.safetensors`));
  for (const [k, { c, iterations, max_iterations }] of (await json("fits.json")).entries()) {
    const dim = file.entry(`${k}.x`).shape[1];
    const labels = Uint8Array.from(await file.ints(`${k}.y`));
    const fit = fitLikeSklearn(await file.f64(`${k}.x`), dim, labels, { c, maxIterations: max_iterations });
    const theirs = [...await file.f64(`${k}.coef`), ...await file.f64(`${k}.intercept`)];
    assert.equal(fit.iterations, iterations, `iterations of case ${k}`);
    allclose(`case ${k}`, [...fit.coef, fit.intercept], theirs, 1e-6);
  }
  file.source.close();
  assert.throws(() => fitLikeSklearn(new Float64Array(4), 2, Uint8Array.of(1, 1)), InputError);
});

Deno.test("a step along a line decreases enough and flattens enough, wherever the search starts", () => {
  // Values and slopes of functions whose minimum is known; a first guess far too short, about right and far too long.
  const lines: [string, (t: number) => { value: number; slope: number }][] = [
    ["quadratic", (t) => ({ value: (t - 3) ** 2, slope: 2 * (t - 3) })],
    [
      "softplus",
      (t) => ({ value: Math.log1p(Math.exp(t - 5)) - 0.9 * t, slope: 1 / (1 + Math.exp(5 - t)) - 0.9 }),
    ],
    ["quartic", (t) => ({ value: (t - 1) ** 4, slope: 4 * (t - 1) ** 3 })],
    [
      "wavy",
      (t) => ({ value: (t - 2) ** 2 + Math.sin(5 * t) / 2, slope: 2 * (t - 2) + 2.5 * Math.cos(5 * t) }),
    ],
  ];
  for (const [name, at] of lines) {
    for (const first of [1e-3, 1, 50]) {
      const start = at(0), step = lineSearch(start, first, at)!, end = at(step);
      assert(
        end.value <= start.value + 1e-3 * step * start.slope,
        `${name} from ${first}: no decrease at ${step}`,
      );
      assert(Math.abs(end.slope) <= 0.9 * Math.abs(start.slope), `${name} from ${first}: steep at ${step}`);
    }
  }
  assert.throws(
    () => lineSearch({ value: 0, slope: 1 }, 1, (t) => ({ value: t, slope: 1 })),
    /does not descend/,
  );
});

Deno.test("splits by scene and by person keep scenes and people on one side", () => {
  const scene = Int32Array.from({ length: 120 }, (_, i) => i % 24);
  const split = splitByScene(scene, 0.2, new Random(3));
  const tested = new Set(Array.from(split.test, (row) => scene[row]));
  assert.equal(tested.size, 5);
  assert(split.train.every((row) => !tested.has(scene[row])));
  assert.equal(split.train.length + split.test.length, 120);
  assert.throws(() => splitByScene(Int32Array.of(1, 1), 0.5, new Random(0)), InputError);

  const partitions = personPartitions(8, 6, 10, new Random(1));
  for (const half of partitions) {
    assert.equal(half.subarray(0, 8).reduce((a, b) => a + b), 4);
    assert.equal(half.subarray(8).reduce((a, b) => a + b), 3);
  }
  for (let slot = 0; slot < 14; slot++) {
    assert.equal(
      partitions.reduce((sum, half) => sum + half[slot], 0),
      5,
      `slot ${slot} is fitted on half of the time`,
    );
  }
  assert.notDeepEqual(partitions[0], partitions[2]);
  assert.throws(() => personPartitions(1, 8, 2, new Random(0)), InputError);
});

Deno.test("a fit that is asked for more than rounding allows ends at the optimum instead of failing", () => {
  const n = 16, dim = 16, labels = Uint8Array.from({ length: n }, (_, i) => i < n / 2 ? 1 : 0);
  // Worlds in which no step is found: two pictures of eight people each, who hardly differ.
  for (const world of [230, 2431, 3607]) {
    const random = new Random(world, "rounding");
    const scenes = Float64Array.from({ length: 2 * dim }, () => 0.5 * random.normal());
    const x = Float64Array.from(
      { length: n * dim },
      (_, k) => scenes[k % (2 * dim)] + 0.01 * random.normal(),
    );
    const ours = fitLikeSklearn(x, dim, labels, { tol: 1e-10 });
    const { coef, intercept } = fitLogistic({ n, dim, data: x }, labels);
    allclose(`world ${world}`, [...ours.coef, ours.intercept], [...coef, intercept], 1e-5);
  }
});
