/**
 * What is left of findings when many were looked for: p-values corrected over features and arms, differences of arms, and several seeds
 * as one study. Refuses results whose permutations were not the same people's.
 */
import { InputError } from "../errors.ts";
import { checkPaired, infer, type Inference, type Permuted } from "../probe/inference.ts";
import { differenceInterval, nullDeviation } from "../probe/interval.ts";
import { hash32 } from "../random.ts";
import type { FeatureResult, ProbeResult } from "./results.ts";

/** A feature's sound measurement, or the plain one, with its permutations. */
export function permutedOf(
  { plan }: Pick<ProbeResult, "plan">,
  { auroc, null: draws }: Pick<FeatureResult["sound"], "auroc" | "null">,
): Permuted {
  return { observed: auroc, nullDraws: Float64Array.from(draws), plan };
}

/**
 * p-values corrected together over features and arms of the same people: each is brought to its own null's mean and deviation, so that arms
 * that read better do not drown the others, and held against the largest of all (Westfall & Young 1993, maxT, single step).
 * @throws InputError for other permutations
 */
export function corrected(results: readonly Permuted[]): number[] {
  checkPaired(results);
  // Mean and deviation over truth and draws alike: symmetric in them, so the correction is exact.
  const scaled = results.map(({ observed, nullDraws }) => {
    const all = Float64Array.of(observed, ...nullDraws), deviation = nullDeviation(all) || 1;
    const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
    return all.map((value) => (value - mean) / deviation);
  });
  const largest = scaled[0].map((_, draw) => Math.max(...scaled.map((values) => values[draw])));
  return scaled.map(([value]) => infer(value, largest.subarray(1)).p);
}

export interface ArmDifference extends Inference {
  difference: number;
  ci95: [number, number];
  /** The paired differences draw by draw, for `corrected`. */
  permuted: Permuted;
}

/** How much larger an AUROC is in arm a than in arm b over the same people. @throws InputError for other permutations */
export function armDifference(a: Permuted, b: Permuted): ArmDifference {
  const ci95 = differenceInterval(a, b), difference = a.observed - b.observed;
  const nullDraws = a.nullDraws.map((value, i) => value - b.nullDraws[i]);
  return {
    difference,
    ci95,
    ...infer(difference, nullDraws),
    permuted: { observed: difference, nullDraws, plan: a.plan },
  };
}

export interface CombinedSeeds extends Inference {
  permuted: Permuted;
}

/**
 * Several seeds, each with people of its own, as one study: the mean against the means of draw i of every seed. Draws of different seeds
 * are independent, so the mean's null is as valid as each one's. @throws InputError for none, or other numbers of draws
 */
export function combineSeeds(results: readonly Permuted[]): CombinedSeeds {
  const draws = results[0]?.nullDraws.length;
  if (!draws || results.some(({ nullDraws }) => nullDraws.length !== draws)) {
    throw new InputError(
      `Cannot combine ${results.length} seeds: expected at least one, with the same number of null draws`,
    );
  }
  const mean = (of: (result: Permuted) => number) =>
    results.reduce((sum, result) => sum + of(result), 0) / results.length;
  const observed = mean((result) => result.observed);
  const nullDraws = new Float64Array(draws).map((_, i) => mean((result) => result.nullDraws[i]));
  const plan = hash32(...results.map((result) => result.plan));
  return {
    permuted: { observed, nullDraws, plan },
    ...infer(observed, nullDraws),
  };
}

/** The least p-value that so many draws over so many people can give, (1 + 0) / (1 + draws) or one labelling of all. */
export function pFloor(draws: number, seen: number, unseen: number): number {
  let labellings = 1;
  for (let k = 1; k <= Math.min(seen, unseen); k++) labellings *= (seen + unseen + 1 - k) / k;
  return Math.max(1 / (1 + draws), 1 / labellings);
}
