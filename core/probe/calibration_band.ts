/**
 * How far a calibrated probability may be trusted: the same calibration on redraws of the people, not of their pictures,
 * for pictures of one person go up and down together. Refuses scores of one class.
 */
import type { Random } from "../random.ts";
import { calibrate, calibrated, type Calibration } from "./calibration.ts";

export interface BandOptions {
  /** The person of each score. */
  person: ArrayLike<number>;
  random: Random;
  draws?: number;
  /** Quantiles of the scores at which the band is given, the least and the largest score among them. */
  points?: number;
}

/**
 * [score, low, high], ascending: percentiles 2.5 and 97.5 of the probability over redraws with replacement of the people of
 * either class (Davison & Hinkley 1997, 3.8), held to include the calibration's own. @throws InputError for labels of one class
 */
export function calibrationBand(
  calibration: Calibration,
  labels: ArrayLike<number>,
  scores: ArrayLike<number>,
  { person, random, draws = 200, points = 17 }: BandOptions,
): NonNullable<Calibration["band"]> {
  const rows = new Map<number, number[]>();
  for (let i = 0; i < labels.length; i++) rows.set(person[i], [...rows.get(person[i]) ?? [], i]);
  const classes = [0, 1].map((label) => [...rows.values()].filter(([first]) => labels[first] === label));
  const sorted = Float64Array.from(scores).sort();
  const at = [
    ...new Set(Array.from({ length: points }, (_, k) => sorted[quantileAt(k / (points - 1), sorted.length)])),
  ];
  const found = at.map(() => new Float64Array(draws));
  for (let draw = 0; draw < draws; draw++) {
    const drawn = classes.flatMap((people) => people.flatMap(() => people[random.int(people.length)]));
    const again = calibrate(
      calibration.method,
      drawn.map((i) => labels[i]),
      drawn.map((i) => scores[i]),
      calibration.people,
    );
    // A redraw without the extreme people answers for the whole range all the same.
    const whole: Calibration = { ...again, scores: calibration.scores };
    at.forEach((score, k) => found[k][draw] = calibrated(whole, score).probability);
  }
  return at.map((score, k) => {
    const values = found[k].sort(), { probability } = calibrated(calibration, score);
    const [low, high] = [0.025, 0.975].map((share) => values[quantileAt(share, draws)]);
    return [score, Math.min(low, probability), Math.max(high, probability)];
  });
}

/** Where a quantile stands among n sorted values. */
const quantileAt = (share: number, n: number): number => Math.round(share * (n - 1));
