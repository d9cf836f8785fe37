/**
 * Whether calibrated probabilities mean what they say: the stored probe's whole procedure, calibration included, repeated without the
 * people and scenes on which it is then judged. Refuses so few people that none are left for one of the three roles.
 */
import type { Random } from "../random.ts";
import { calibrate, calibrated, type Calibration, calibrationMethod, reliability } from "./calibration.ts";
import type { Design, FeatureMatrix } from "./design.ts";
import { logisticSolver, narrowRows } from "./logistic.ts";
import { brier } from "./metrics.ts";
import {
  crossedFolds,
  distances,
  heldOutScores,
  momentsOf,
  scaledRows,
  type SingleOptions,
} from "./single.ts";

export interface CalibrationCheck {
  method: Calibration["method"];
  /** Over all judged pictures. */
  ece: number;
  brier: number;
  bins: ReturnType<typeof reliability>["bins"];
  /** Share of the judged pictures whose score or activations lie beyond what was seen. */
  abstained: number;
}

/** Fewer than for the stored probe: every one of these folds holds as many fits again. */
const PARTS = { people: 4, scenes: 3 };

/** Fits on some people, calibrates on others and judges on third ones, all in turn. @throws InputError for too few people */
export function checkCalibration(
  x: FeatureMatrix,
  design: Design,
  options: SingleOptions,
  random: Random,
  signal?: AbortSignal,
): CalibrationCheck {
  const { mean, scale } = options.standardize ? momentsOf(x) : {}, rows = scaledRows(x, mean, scale);
  const away = mean && distances(rows);
  const solver = logisticSolver(narrowRows(rows), Math.ceil(x.n / 2), options.c);
  // As the probe on everybody would be calibrated, though a little fewer remain here.
  const method = calibrationMethod(new Set(design.person).size);
  const labels: number[] = [], probabilities: number[] = [];
  let abstained = 0;
  for (const [k, { train, test }] of crossedFolds(design, random.split("judged"), PARTS).entries()) {
    const rest: Design = {
      labels: Uint8Array.from(train, (row) => design.labels[row]),
      person: Int32Array.from(train, (row) => design.person[row]),
      scene: Int32Array.from(train, (row) => design.scene[row]),
    };
    const folds = crossedFolds(rest, random.split("calibrated", k), PARTS).map((fold) => ({
      train: fold.train.map((at) => train[at]),
      test: fold.test.map((at) => train[at]),
    }));
    const held = heldOutScores(solver, design.labels, folds, signal);
    const calibration = calibrate(
      method,
      held.tested.map((row) => design.labels[row]),
      held.scores,
      new Set(rest.person).size,
    );
    const scores = new Float64Array(test.length);
    const farthest = away ? train.reduce((most, row) => Math.max(most, away[row]), 0) : Infinity;
    solver.fit(train, design.labels);
    solver.scores(test, scores);
    test.forEach((row, i) => {
      const { probability, beyond } = calibrated(calibration, scores[i]);
      labels.push(design.labels[row]);
      probabilities.push(probability);
      if (beyond || (away && away[row] > farthest)) abstained++;
    });
  }
  return {
    method,
    brier: brier(labels, probabilities),
    ...reliability(labels, probabilities),
    abstained: abstained / labels.length,
  };
}
