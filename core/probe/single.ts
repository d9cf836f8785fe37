/**
 * The probe that is stored: fitted on all rows as they are, since a single picture to score comes without its scene.
 * What it is worth there is measured on people and scenes left out together; refuses fewer than two people a side.
 */
import { InputError } from "../errors.ts";
import type { Random } from "../random.ts";
import { type Design, type FeatureMatrix, groupPeople, type HeldOut } from "./design.ts";
import { logisticSolver } from "./logistic.ts";
import { rates } from "./metrics.ts";
import type { Split } from "./splits.ts";
import type { ProbeTensors } from "./stored.ts";

export interface SingleOptions {
  c?: number;
  /** Divide each dimension by its standard deviation over all rows, after taking its mean away. */
  standardize?: boolean;
}

export interface SingleProbe {
  tensors: ProbeTensors;
  /** On pictures, as they are, whose person and scene were both left out of the fit. */
  heldOut: HeldOut;
  threshold: { fpr01: number | null; fpr001: number | null };
}

/** People and scenes are cut into so many parts each: a fit for every pair of parts, on about two thirds of the rows. */
const PARTS = 5;

/** Fits all rows for use, and the others for each pair of a part of the people and a part of the scenes. */
export function fitSingle(
  x: FeatureMatrix,
  design: Design,
  options: SingleOptions,
  random: Random,
  signal?: AbortSignal,
): SingleProbe {
  const { n, dim } = x, { labels } = design;
  const { mean, scale } = options.standardize ? momentsOf(x) : {};
  const data = Float64Array.from(
    x.data,
    (value, at) => (value - (mean?.[at % dim] ?? 0)) / (scale?.[at % dim] ?? 1),
  );
  const { fit, scores } = logisticSolver({ n, dim, data }, n, options.c);
  const tested: number[] = [], held: number[] = [];
  let fits = 0;
  for (const { train, test } of crossedFolds(design, random)) {
    signal?.throwIfAborted();
    if (!test.length || !hasBoth(train, labels)) continue;
    const out = new Float64Array(test.length);
    fit(train, labels);
    scores(test, out);
    tested.push(...test);
    held.push(...out);
    fits++;
  }
  if (!hasBoth(tested, labels)) {
    throw new InputError("Cannot test a probe on people and scenes left out: too few rows are left to fit");
  }
  // Pooled, not averaged over folds: within one, seen and unseen share a few scenes, which flatters the probe.
  const heldOut = { ...rates(tested.map((i) => labels[i]), held), partitions: fits };
  const unseen = held.filter((_, at) => labels[tested[at]] === 0);
  const { coef, intercept } = fit(Int32Array.from({ length: n }, (_, i) => i), labels);
  return {
    tensors: { coef: coef.slice(), intercept, ...(mean && { mean }), ...(scale && { scale }) },
    heldOut,
    threshold: { fpr01: thresholdAt(unseen, 0.01), fpr001: thresholdAt(unseen, 0.001) },
  };
}

const hasBoth = (rows: ArrayLike<number>, labels: Uint8Array): boolean =>
  new Set(Array.from(rows, (i) => labels[i])).size === 2;

/** Every row is tested once, by a fit that met neither its person nor its scene (a set of one scene has no other). */
function crossedFolds(design: Design, random: Random): Split[] {
  const { seen, rows } = groupPeople(design), personPart = new Int32Array(design.person.length);
  const sides = [0, 1].map((side) => [...seen.keys()].filter((person) => seen[person] === side));
  const people = Math.min(PARTS, ...sides.map((side) => side.length));
  for (const side of sides) {
    random.shuffle(side).forEach((person, i) => {
      for (const row of rows[person]) personPart[row] = i % people;
    });
  }
  const scenes = random.shuffle([...new Set(design.scene)]), places = Math.min(PARTS, scenes.length);
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

function momentsOf({ n, dim, data }: FeatureMatrix): { mean: Float64Array; scale: Float64Array } {
  const mean = new Float64Array(dim), square = new Float64Array(dim);
  data.forEach((value, at) => mean[at % dim] += value / n);
  data.forEach((value, at) => square[at % dim] += (value - mean[at % dim]) ** 2 / n);
  // A constant dimension stays as it is but for its mean: there is nothing to scale.
  return { mean, scale: square.map((value) => value > 0 ? Math.sqrt(value) : 1) };
}
