/**
 * The probe that is stored: fitted on all rows as they are, since a single picture to score comes without its scene.
 * What it is worth there is measured on people and scenes left out together; refuses fewer than two people a side.
 */
import { InputError } from "../errors.ts";
import type { Random } from "../random.ts";
import { calibrationBand } from "./calibration_band.ts";
import { calibrate, type Calibration, calibrationMethod } from "./calibration.ts";
import { type Design, type FeatureMatrix, groupPeople, type HeldOut, type PreparedRows } from "./design.ts";
import { type LogisticSolver, logisticSolver } from "./logistic.ts";
import { rates } from "./metrics.ts";
import type { Split } from "./splits.ts";
import type { ProbeTensors, Support } from "./stored.ts";

export interface SingleOptions {
  c?: number;
  /** Divide each dimension by its standard deviation over all rows, after taking its mean away. */
  standardize?: boolean;
  /** Give the calibration its band, which takes a while. */
  band?: boolean;
}

export interface SingleProbe {
  tensors: ProbeTensors;
  /** On pictures, as they are, whose person and scene were both left out of the fit. */
  heldOut: HeldOut;
  threshold: { fpr01: number | null; fpr001: number | null };
  /** From the held-out scores to probabilities. */
  calibration: Calibration;
  /** Held-out scores of unseen people's pictures. */
  unseen?: { mean: number; deviation: number };
  support?: Support;
}

/** People and scenes are cut into so many parts: a fit for every pair of parts, on about two thirds of the rows. */
const PARTS = { people: 5, scenes: 5 };

/** Fits all rows for use, and the others for each pair of a part of the people and a part of the scenes. */
export function fitSingle(
  x: FeatureMatrix,
  design: Design,
  options: SingleOptions,
  random: Random,
  signal?: AbortSignal,
): SingleProbe {
  const { n } = x, { labels } = design;
  const { mean, scale } = options.standardize ? momentsOf(x) : {};
  const rows = scaledRows(x, mean, scale);
  const solver = logisticSolver(rows, n, options.c), folds = crossedFolds(design, random, PARTS);
  const { tested, scores, fits } = heldOutScores(solver, labels, folds, signal);
  // Pooled, not averaged over folds: within one, seen and unseen share a few scenes, which flatters the probe.
  const truth = tested.map((i) => labels[i]), heldOut = { ...rates(truth, scores), partitions: fits };
  const unseen = scores.filter((_, at) => truth[at] === 0);
  const { coef, intercept } = solver.fit(Int32Array.from({ length: n }, (_, i) => i), labels);
  const people = new Set(design.person).size;
  const calibration = calibrate(calibrationMethod(people), truth, scores, people);
  if (options.band) {
    const person = tested.map((i) => design.person[i]);
    calibration.band = calibrationBand(calibration, truth, scores, { person, random: random.split("band") });
  }
  return {
    tensors: { coef: coef.slice(), intercept, ...(mean && { mean }), ...(scale && { scale }) },
    heldOut,
    threshold: { fpr01: thresholdAt(unseen, 0.01), fpr001: thresholdAt(unseen, 0.001) },
    calibration,
    unseen: spreadOf(unseen),
    ...(mean && { support: { distance: distances(rows).reduce((most, value) => Math.max(most, value)) } }),
  };
}

/** Mean and standard deviation of a sample; undefined where all are alike. */
function spreadOf(values: readonly number[]): SingleProbe["unseen"] {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
  return square > 0 ? { mean, deviation: Math.sqrt(square) } : undefined;
}

/** The rows less `mean`, divided by `scale`. */
export function scaledRows(
  { n, dim, data }: FeatureMatrix,
  mean?: Float64Array,
  scale?: Float64Array,
): PreparedRows {
  return {
    n,
    dim,
    data: Float64Array.from(
      data,
      (value, at) => (value - (mean?.[at % dim] ?? 0)) / (scale?.[at % dim] ?? 1),
    ),
  };
}

/** How far each standardised row lies from their mean: the root of the mean square over its dimensions; (n). */
export function distances({ n, dim, data }: PreparedRows): Float64Array {
  const square = new Float64Array(n);
  data.forEach((value, at) => square[Math.floor(at / dim)] += value ** 2 / dim);
  return square.map(Math.sqrt);
}

export interface HeldOutScores {
  /** Rows, each tested once. */
  tested: number[];
  /** Their log-odds by a fit that met neither their person nor their scene. */
  scores: number[];
  fits: number;
}

/** Fits and tests every fold that can be fitted. @throws InputError when the tested rows are of one class */
export function heldOutScores(
  solver: LogisticSolver,
  labels: Uint8Array,
  folds: readonly Split[],
  signal?: AbortSignal,
): HeldOutScores {
  const tested: number[] = [], scores: number[] = [];
  let fits = 0;
  for (const { train, test } of folds) {
    signal?.throwIfAborted();
    if (!test.length || !hasBoth(train, labels)) continue;
    const out = new Float64Array(test.length);
    solver.fit(train, labels);
    solver.scores(test, out);
    tested.push(...test);
    scores.push(...out);
    fits++;
  }
  if (!hasBoth(tested, labels)) {
    throw new InputError("Cannot test a probe on people and scenes left out: too few rows are left to fit");
  }
  return { tested, scores, fits };
}

const hasBoth = (rows: ArrayLike<number>, labels: Uint8Array): boolean =>
  new Set(Array.from(rows, (i) => labels[i])).size === 2;

/** Every row is tested once, by a fit that met neither its person nor its scene (a set of one scene has no other). */
export function crossedFolds(
  design: Design,
  random: Random,
  parts: { people: number; scenes: number },
): Split[] {
  const { seen, rows } = groupPeople(design), personPart = new Int32Array(design.person.length);
  const sides = [0, 1].map((side) => [...seen.keys()].filter((person) => seen[person] === side));
  const people = Math.min(parts.people, ...sides.map((side) => side.length));
  for (const side of sides) {
    random.shuffle(side).forEach((person, i) => {
      for (const row of rows[person]) personPart[row] = i % people;
    });
  }
  const scenes = random.shuffle([...new Set(design.scene)]), places = Math.min(parts.scenes, scenes.length);
  const placeOf = new Map(scenes.map((scene, i) => [scene, i % places]));
  const scenePart = design.scene.map((scene) => placeOf.get(scene)!);
  const all = Int32Array.from(design.person, (_, i) => i);
  return Array.from({ length: people * places }, (_, k) => {
    const who = k % people, where = Math.floor(k / people);
    return {
      train: all.filter((i) => personPart[i] !== who && (places === 1 || scenePart[i] !== where)),
      test: all.filter((i) => personPart[i] === who && scenePart[i] === where),
    };
  });
}

/** The least score that at most `rate` of the unseen scores exceed; null where not even one may exceed it. */
function thresholdAt(unseen: readonly number[], rate: number): number | null {
  const above = Math.floor(rate * unseen.length);
  return above < 1 ? null : Float64Array.from(unseen).sort()[unseen.length - 1 - above];
}

/** Mean and standard deviation of every column, (dim) each. */
export function momentsOf({ n, dim, data }: FeatureMatrix): { mean: Float64Array; scale: Float64Array } {
  const mean = new Float64Array(dim), square = new Float64Array(dim);
  data.forEach((value, at) => mean[at % dim] += value / n);
  data.forEach((value, at) => square[at % dim] += (value - mean[at % dim]) ** 2 / n);
  // A constant dimension stays as it is but for its mean: there is nothing to scale.
  return { mean, scale: square.map((value) => value > 0 ? Math.sqrt(value) : 1) };
}
