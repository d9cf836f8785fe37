/**
 * From an observed statistic and the values that permuted people gave to a p-value, a band, and comparisons.
 * Refuses to compare results whose permutations were not the same.
 */
import { InputError } from "../errors.ts";
import { quantile } from "./metrics.ts";

/** A statistic with its permutation null; results with equal `plan` used the same permutations, draw by draw. */
export interface Permuted {
  observed: number;
  /** (draws) */
  nullDraws: Float64Array;
  /** A fingerprint of people, labels, seed, partitions and draws. */
  plan: number;
}

/** Where a value lies among its null draws. */
export interface Inference {
  /** The central 95 % of the null draws. */
  null95: [number, number];
  /** One-sided, (1 + null draws that reach the value) / (1 + draws): valid at any number of draws (Phipson & Smyth 2010). */
  p: number;
}

/** Band and one-sided p-value of a value. @throws InputError without null draws */
export function infer(observed: number, nullDraws: Float64Array): Inference {
  if (!nullDraws.length) throw new InputError("Cannot give a p-value: there is no null draw");
  const sorted = nullDraws.slice().sort();
  return { null95: [quantile(sorted, 0.025), quantile(sorted, 0.975)], p: share(observed, nullDraws) };
}

/** How much larger a statistic is in one arm than in another, with the null of the difference. */
export interface Difference extends Inference {
  difference: number;
}

/** a - b, each null draw the difference of both arms under the same permutation. @throws InputError for other permutations */
export function difference(a: Permuted, b: Permuted): Difference {
  checkPaired([a, b]);
  const draws = a.nullDraws.map((value, i) => value - b.nullDraws[i]);
  const observed = a.observed - b.observed;
  return { difference: observed, ...infer(observed, draws) };
}

/**
 * The p-values of several layers, corrected together: each is held against the largest null value over all of them
 * (Westfall & Young 1993, single step). @throws InputError for other permutations
 */
export function familywise(results: readonly Permuted[]): number[] {
  checkPaired(results);
  const largest = results[0].nullDraws.map((_, i) => Math.max(...results.map((r) => r.nullDraws[i])));
  return results.map(({ observed }) => share(observed, largest));
}

/** Sums of the same averages in another order may differ in the last bits: such draws reach the value. */
const ROUNDING = 1e-12;

function share(observed: number, draws: Float64Array): number {
  let reached = 1;
  for (const value of draws) if (value >= observed - ROUNDING) reached++;
  return reached / (1 + draws.length);
}

/** @throws InputError unless all results come from the same permutations */
export function checkPaired(results: readonly Permuted[]): void {
  const first = results[0];
  if (!first) throw new InputError("Cannot compare probes: there is none");
  for (const { plan, nullDraws } of results) {
    if (plan !== first.plan || nullDraws.length !== first.nullDraws.length) {
      throw new InputError(
        "Cannot compare probes: their null draws come from other permutations, expected the same people, seed, partitions and draws",
      );
    }
  }
}
