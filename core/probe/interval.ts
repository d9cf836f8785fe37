/**
 * Intervals for AUROCs of the sound probe and their differences, chosen because simulation says that they cover 95 %.
 * Refuses fewer than two null draws, from which no spread can be told.
 */
import { InputError } from "../errors.ts";
import { checkPaired, type Permuted } from "./inference.ts";

/** The 97.5 % quantile of the standard normal distribution. */
const Z = 1.959963984540054;

/** Standard deviation of null draws. @throws InputError for fewer than two */
export function nullDeviation(nullDraws: ArrayLike<number>): number {
  const n = nullDraws.length;
  if (n < 2) throw new InputError(`Cannot give an interval: there are ${n} null draws, expected at least 2`);
  let mean = 0, square = 0;
  for (let i = 0; i < n; i++) mean += nullDraws[i] / n;
  for (let i = 0; i < n; i++) square += (nullDraws[i] - mean) ** 2;
  return Math.sqrt(square / (n - 1));
}

/**
 * Variance of an AUROC whose expectation is t, where null draws have the deviation s. A share's would be s^2 (4 t (1 - t)). Simulation shows
 * less of it near 1, and an addition for what is fitted, which is most uncertain where an effect is about as large as s: found in
 * some studies and missed in others. The three numbers are fitted to simulations (docs/probes.md): they come from no theory.
 */
function varianceAt(t: number, s: number): number {
  if (!(s > 0)) return 0;
  const u = Math.abs(t - 0.5) / s;
  return s * s * (4 * t * (1 - t)) ** 1.6 * (1 + 1.6 * u / (4 + u * u));
}

/**
 * 95 % interval for the expected AUROC of a study with other people of the same kind: all t that |observed - t| <= z sqrt(varianceAt(t, s))
 * leaves (a score interval, after Wilson 1927), s the null draws' deviation. It lies in [0, 1].
 */
export function scoreInterval(observed: number, nullDraws: ArrayLike<number>): [number, number] {
  const s = nullDeviation(nullDraws);
  const isLeft = (t: number) => Math.abs(observed - t) <= Z * Math.sqrt(varianceAt(t, s));
  return [edge(isLeft, observed, 0), edge(isLeft, observed, 1)];
}

/**
 * 95 % interval for the expected a - b over the same people: from the least to the largest gap g that |observed - g| <= z s(g) leaves (a score
 * interval, after Mee 1984). s(g) takes both arms at their mean -+ g/2, and their null draws' correlation r as r / (1 + u / 2), u the gap in
 * deviations of arms without correlation: arms that read the same noise alike no longer do so once one has found something. The 2 is
 * fitted to simulations, too. @throws InputError for other permutations
 */
export function differenceInterval(a: Permuted, b: Permuted): [number, number] {
  checkPaired([a, b]);
  const [one, two] = [a, b].map(({ nullDraws }) => nullDeviation(nullDraws));
  const both = nullDeviation(a.nullDraws.map((value, i) => value - b.nullDraws[i]));
  const r = one * two > 0 ? (one ** 2 + two ** 2 - both ** 2) / (2 * one * two) : 0;
  const observed = a.observed - b.observed, mean = (a.observed + b.observed) / 2;
  const clip = (t: number) => Math.min(1, Math.max(0, t));
  const isLeft = (gap: number) => {
    const x = varianceAt(clip(mean + gap / 2), one), y = varianceAt(clip(mean - gap / 2), two);
    const apart = Math.sqrt(x + y), together = apart > 0 ? r / (1 + Math.abs(gap) / apart / 2) : 0;
    // Of arms that agree in every draw the root may be less than 0 by rounding.
    return Math.abs(observed - gap) <= Z * Math.sqrt(Math.max(0, x + y - 2 * together * Math.sqrt(x * y)));
  };
  // s(g) has its least value at 0, so what is left may have a hole there: the ends are sought from without.
  const end = (limit: number) => {
    const step = Math.sign(limit - observed) / GRID;
    let outside = limit;
    while ((outside - observed) * step > 0 && !isLeft(outside)) outside -= step;
    const inside = (outside - observed) * step > 0 ? outside : observed;
    return edge(isLeft, inside, inside === limit ? limit : inside + step);
  };
  return [end(-1), end(1)];
}

/** Steps to one in the search for the outermost gap. */
const GRID = 500;

/** The last value from `inside` towards `outside` that is left, by halving. */
function edge(isLeft: (value: number) => boolean, inside: number, outside: number): number {
  for (let step = 0; step < 60; step++) {
    const middle = (inside + outside) / 2;
    if (isLeft(middle)) inside = middle;
    else outside = middle;
  }
  return inside;
}
