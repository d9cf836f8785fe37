/**
 * The published way to probe: rows are split, not people, so those whom the probe is tested on were also fitted.
 * It measures whether the sets can be told apart, not whether one was seen in training; refuses splits with an empty part.
 */
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import {
  checkDesign,
  type Design,
  type FeatureMatrix,
  type HeldOut,
  type PreparedRows,
  prepareRows,
  type ProbeOptions,
} from "./design.ts";
import { meanRates, type Rates, rates } from "./metrics.ts";
import { fitLikeSklearn } from "./sklearn_fit.ts";
import { type Split, splitByImage, splitByScene } from "./splits.ts";

export interface FaithfulOptions extends ProbeOptions {
  /** "image": stratified by label, to the index what scikit-learn draws; "scene": whole scenes are tested. "image" unless told. */
  split?: "image" | "scene";
  /** Share of the rows or scenes that is tested; 0.2 unless told. */
  testSize?: number;
  /** Of the first split, the next ones count up from it; 42 unless told. */
  seed?: number;
  /** How many splits are averaged; 1 for "image" and 10 for "scene" unless told. */
  partitions?: number;
  /** Where scikit-learn's solver stops; 1e-4 unless told, as published fits do, up to a percent short of the optimum. */
  tol?: number;
}

export interface FaithfulResult extends HeldOut {
  split: "image" | "scene";
}

/** Fits and tests with people on both sides. @throws InputError naming the row, class or part that is wrong */
export function faithful(x: FeatureMatrix, design: Design, options: FaithfulOptions = {}): FaithfulResult {
  checkDesign(x, design);
  const { split = "image", testSize = 0.2, seed = 42, partitions = split === "image" ? 1 : 10 } = options;
  if (!(Number.isInteger(partitions) && partitions >= 1)) {
    throw new InputError(`Cannot fit a probe on ${partitions} partitions: expected at least 1`);
  }
  const rows = prepareRows(x, design.scene, options);
  const parts = Array.from({ length: partitions }, (_, k) =>
    heldOutRates(
      rows,
      design.labels,
      split === "image"
        ? splitByImage(design.labels, testSize, seed + k)
        : splitByScene(design.scene, testSize, new Random(seed, `scenes/${k}`)),
      options,
    ));
  return { ...meanRates(parts), partitions, split };
}

function heldOutRates(
  { dim, data }: PreparedRows,
  labels: Uint8Array,
  { train, test }: Split,
  { c, tol }: Pick<FaithfulOptions, "c" | "tol">,
): Rates {
  const fitted = new Float64Array(train.length * dim);
  train.forEach((row, i) => fitted.set(data.subarray(row * dim, (row + 1) * dim), i * dim));
  const { coef, intercept } = fitLikeSklearn(fitted, dim, Uint8Array.from(train, (row) => labels[row]), {
    c,
    tol,
  });
  const scores = Float64Array.from(test, (row) => {
    let score = intercept;
    for (let j = 0; j < dim; j++) score += coef[j] * data[row * dim + j];
    return score;
  });
  return rates(Uint8Array.from(test, (row) => labels[row]), scores);
}
