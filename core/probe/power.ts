/**
 * How many people and pictures an effect needs: from one study's null and the spread of its scores to the smallest effect that another
 * size of study would find. Refuses a study whose scores cannot be split into people and pictures.
 */
import { Random } from "../random.ts";
import { type Design, type FeatureMatrix, groupPeople, prepareRows, type ProbeOptions } from "./design.ts";
import { controlLabels } from "./controls.ts";
import { nullDeviation } from "./interval.ts";
import { logisticSolver, narrowRows } from "./logistic.ts";
import { personPartitions } from "./splits.ts";

/** What decides how sure a study can be. */
export interface Spread {
  /** People of the smaller set, and scenes, of the study it was measured on. */
  people: number;
  scenes: number;
  /** Mean and deviation of the null draws' AUROC. */
  nullMean: number;
  nullDeviation: number;
  /** Share of the variance of held-out scores that lies between people, not between their pictures (method of moments). */
  between: number;
}

export interface PowerRow {
  /** A set. */
  people: number;
  scenes: number;
  /** The smallest expected AUROC that 80 % of studies find at the level .05, one-sided. */
  detectable: number;
}

/** Quantiles of the standard normal distribution: 95 % for the level, 80 % for the power. */
const LEVEL = 1.6448536269514722, POWER = 0.8416212335729143;

/** Permuted labellings that the scores' spread is averaged over. */
const LABELLINGS = 12;

/**
 * Splits the variance of scores, of people not fitted and under permuted labels, into that between and within people.
 * @param nullDraws of the sound probe; fits stop at `tolerance`, 1e-3 unless told
 */
export function spreadOf(
  x: FeatureMatrix,
  design: Design,
  nullDraws: Float64Array,
  { tolerance = 1e-3, ...options }: ProbeOptions & { tolerance?: number },
  random: Random,
): Spread {
  const people = groupPeople(design), count = people.rows.length;
  const seen = people.seen.reduce((sum, side) => sum + side, 0);
  const solver = logisticSolver(
    narrowRows(prepareRows(x, design.scene, options)),
    Math.ceil(x.n / 2),
    options.c,
  );
  let between = 0, within = 0;
  for (let k = 0; k < LABELLINGS; k++) {
    const stream = random.split(k), labels = controlLabels(people, x.n, stream.split("labels"));
    const order = [1, 0].flatMap((side) => people.rows.filter(([row]) => labels[row] === side));
    for (const fitted of personPartitions(seen, count - seen, 2, stream)) {
      solver.fit(Int32Array.from(order.flatMap((rows, i) => fitted[i] ? [...rows] : [])), labels, tolerance);
      const scores = order.filter((_, i) => !fitted[i]).map((rows) => {
        const out = new Float64Array(rows.length);
        solver.scores(rows, out);
        return out;
      });
      const parts = varianceParts(scores);
      // A fit of separable rows has scores of another size than one of others: each counts alike.
      const total = parts.between + parts.within || 1;
      between += parts.between / total;
      within += parts.within / total;
    }
  }
  return {
    people: Math.min(seen, count - seen),
    scenes: new Set(design.scene).size,
    nullMean: nullDraws.reduce((sum, value) => sum + value, 0) / nullDraws.length,
    nullDeviation: nullDeviation(nullDraws),
    between: between / (between + within || 1),
  };
}

/** One-way analysis of variance with random groups, the moments' estimate; nothing below zero. */
export function varianceParts(groups: readonly Float64Array[]): { between: number; within: number } {
  const n = groups.reduce((sum, { length }) => sum + length, 0), k = groups.length;
  const means = groups.map((group) => group.reduce((a, b) => a + b, 0) / group.length);
  const mean = groups.reduce((sum, { length }, g) => sum + length * means[g], 0) / n;
  let inside = 0, outside = 0, squares = 0;
  groups.forEach((group, g) => {
    for (const value of group) inside += (value - means[g]) ** 2;
    outside += group.length * (means[g] - mean) ** 2;
    squares += group.length ** 2 / n;
  });
  const within = n > k ? inside / (n - k) : 0, size = (n - squares) / (k - 1);
  return { between: Math.max(0, (outside / (k - 1) - within) / size), within };
}

/**
 * What a study of another size would find. The null's variance falls as 1 / people, and with the scenes as the variance of a person's
 * mean score does, between + (1 - between) / scenes; away from 1/2 it shrinks as a share does, by 4 t (1 - t).
 */
export function powerTable(
  spread: Spread,
  sizes: readonly { people: number; scenes: number }[],
): PowerRow[] {
  const { between } = spread, mean = (scenes: number) => between + (1 - between) / scenes;
  return sizes.map(({ people, scenes }) => {
    const ratio = spread.people / people * mean(scenes) / mean(spread.scenes);
    const deviation = spread.nullDeviation * Math.sqrt(ratio);
    // What is false about those tested in what fitted people tell fades with their number.
    const bound = 0.5 + (spread.nullMean - 0.5) * spread.people / people + LEVEL * deviation;
    let low = bound, high = 1;
    for (let step = 0; step < 60; step++) {
      const t = (low + high) / 2;
      if (t - POWER * deviation * 2 * Math.sqrt(t * (1 - t)) < bound) low = t;
      else high = t;
    }
    return { people, scenes, detectable: Math.min(1, high) };
  });
}
