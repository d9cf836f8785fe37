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
 * 95 % interval for the expected AUROC of a study with other people of the same kind: all t that |observed - t| <= z s 2 sqrt(t (1 - t))
 * leaves (Wilson 1927's idea), s the null draws' deviation, which holds at t = 1/2. It lies in [0, 1].
 */
export function scoreInterval(observed: number, nullDraws: ArrayLike<number>): [number, number] {
  // (observed - t)^2 = q t (1 - t) is a square equation in t.
  const q = (2 * Z * nullDeviation(nullDraws)) ** 2;
  const middle = (observed + q / 2) / (1 + q);
  const half = Math.sqrt(Math.max(0, middle ** 2 - observed ** 2 / (1 + q)));
  // At 0 and 1 rounding must not leave the observed value outside.
  return [Math.max(0, Math.min(observed, middle - half)), Math.min(1, Math.max(observed, middle + half))];
}

/** 95 % interval for a - b over the same people: the observed difference +- z deviations of the paired null differences. */
export function differenceInterval(a: Permuted, b: Permuted): [number, number] {
  checkPaired([a, b]);
  const half = Z * nullDeviation(Float64Array.from(a.nullDraws, (value, i) => value - b.nullDraws[i]));
  const observed = a.observed - b.observed;
  return [observed - half, observed + half];
}
