/**
 * From the cells of a study to the numbers of its report: every arm and feature seed by seed, differences, corrections, and
 * means over seeds. It measures nothing anew; results whose permutations differ are refused.
 */
import { meanWithInterval } from "../probe/student.ts";
import { familywise, type Permuted } from "../probe/inference.ts";
import { scoreInterval } from "../probe/interval.ts";
import { armDifference, combineSeeds, corrected, permutedOf } from "../study/corrected.ts";
import type { Estimate, FeatureResult, Interval, ProbeResult } from "../study/results.ts";

/** Over seeds: Student's interval, or of a single seed its own, or none. */
export interface Mean {
  value: number;
  ci95: Interval | null;
  seeds: number;
}

/** @param own intervals of the single values, for when there is only one */
export function meanOf(values: readonly number[], own?: readonly (Interval | undefined)[]): Mean {
  if (values.length > 1) {
    const { mean, ci95 } = meanWithInterval(values);
    return { value: mean, ci95, seeds: values.length };
  }
  return { value: values[0], ci95: own?.[0] ?? null, seeds: values.length };
}

/** The same of shares and AUROCs: their interval ends where they do, at 0 and 1, and holds the truth as often. */
export function meanShare(values: readonly number[], own?: readonly (Interval | undefined)[]): Mean {
  const mean = meanOf(values, own), { ci95 } = mean;
  return { ...mean, ci95: ci95 && [Math.max(0, ci95[0]), Math.min(1, ci95[1])] };
}

export const meanOfEstimates = (estimates: readonly Estimate[]): Mean =>
  meanOf(estimates.map(({ value }) => value), estimates.map(({ ci95 }) => ci95));

export interface SeedNumbers {
  seed: number;
  faithful: number;
  faithful_accuracy: number;
  sound: number;
  accuracy: number;
  tpr_at_1pct_fpr: number;
  tpr_at_01pct_fpr: number;
  null95: Interval;
  ci95: Interval;
  p: number;
  /** Corrected for all features of the arm. */
  p_layers: number;
  /** Corrected for all features of all arms. */
  p_all: number;
  plain: { auroc: number; null95: Interval; p: number };
  /** To the compared arm over the same people. */
  difference?: { value: number; ci95: Interval; null95: Interval; p: number; p_all: number };
  selectivity: FeatureResult["selectivity"];
  description: FeatureResult["description"];
}

export interface FeatureNumbers {
  arm: string;
  prompt: string;
  feature: string;
  site: string;
  reduction: string;
  draws: number;
  seeds: SeedNumbers[];
  mean: {
    faithful: Mean;
    sound: Mean;
    plain: Mean;
    accuracy: Mean;
    difference?: Mean;
    selectivity: Mean;
    compression: Mean;
  };
  /** All seeds as one study: the mean against the means of their null draws. */
  together: { p: number; null95: Interval; difference?: { p: number; null95: Interval } };
}

/** One probe cell with its place. */
export interface Probed {
  arm: string;
  seed: number;
  prompt: string;
  result: ProbeResult;
}

interface Entry {
  probed: Probed;
  feature: FeatureResult;
  permuted: Permuted;
  /** Worked out from the draws, so that cells of any age are read alike. */
  ci95: Interval;
  pLayers: number;
  pAll: number;
  difference?: ReturnType<typeof armDifference> & { pAll: number };
}

/** Every arm, prompt and feature of one model, data set and batch size. @throws InputError where permutations differ */
export function featureNumbers(cells: readonly Probed[], comparedTo: string): FeatureNumbers[] {
  const seeds = [...new Set(cells.map(({ seed }) => seed))];
  const entries = seeds.flatMap((seed) =>
    entriesOfSeed(cells.filter((cell) => cell.seed === seed), comparedTo)
  );
  const groups = Map.groupBy(
    entries,
    ({ probed, feature }) => JSON.stringify([probed.arm, probed.prompt, feature.feature]),
  );
  return [...groups.values()].map(numbersOf);
}

/** Corrections are made within a seed: only there are the people, and so the permutations, the same. */
function entriesOfSeed(cells: readonly Probed[], comparedTo: string): Entry[] {
  const entries: Entry[] = cells.flatMap((probed) =>
    probed.result.features.map((feature) => ({
      probed,
      feature,
      permuted: permutedOf(probed.result, feature.sound),
      ci95: scoreInterval(feature.sound.auroc, feature.sound.null),
      pLayers: 1,
      pAll: 1,
    }))
  );
  for (const arm of new Set(cells.map(({ arm }) => arm))) {
    const own = entries.filter(({ probed }) => probed.arm === arm);
    familywise(own.map(({ permuted }) => permuted)).forEach((p, i) => own[i].pLayers = p);
  }
  corrected(entries.map(({ permuted }) => permuted)).forEach((p, i) => entries[i].pAll = p);
  const compared = entries.flatMap((entry) => {
    const other = entries.find(({ probed, feature }) =>
      probed.arm === comparedTo && probed.prompt === entry.probed.prompt &&
      feature.feature === entry.feature.feature
    );
    return other && entry.probed.arm !== comparedTo
      ? [{ entry, difference: armDifference(entry.permuted, other.permuted) }]
      : [];
  });
  if (compared.length) {
    const pAll = corrected(compared.map(({ difference }) => difference.permuted));
    compared.forEach(({ entry, difference }, i) => entry.difference = { ...difference, pAll: pAll[i] });
  }
  return entries;
}

function numbersOf(entries: readonly Entry[]): FeatureNumbers {
  const [{ probed: { arm, prompt }, feature: { feature, site, reduction, sound: { draws } } }] = entries;
  type Own = (entry: Entry) => Interval | undefined;
  const mean = (of: (entry: Entry) => number, own?: Own) => meanOf(entries.map(of), own && entries.map(own));
  const share = (of: (entry: Entry) => number, own?: Own) =>
    meanShare(entries.map(of), own && entries.map(own));
  const { p, null95 } = combineSeeds(entries.map(({ permuted }) => permuted));
  const differences = entries.flatMap(({ difference }) => difference ?? []);
  const isCompared = differences.length === entries.length;
  const joined = isCompared ? combineSeeds(differences.map(({ permuted }) => permuted)) : undefined;
  return {
    ...{ arm, prompt, feature, site, reduction, draws },
    seeds: entries.map(seedNumbers),
    mean: {
      faithful: share(({ feature }) => feature.faithful.auroc),
      sound: share(({ feature }) => feature.sound.auroc, ({ ci95 }) => ci95),
      plain: share(({ feature }) => feature.plain.auroc),
      accuracy: share(({ feature }) => feature.sound.accuracy),
      ...(isCompared && {
        difference: mean(({ difference }) => difference!.difference, ({ difference }) => difference!.ci95),
      }),
      selectivity: mean(
        ({ feature }) => feature.selectivity.value,
        ({ feature }) => feature.selectivity.ci95,
      ),
      compression: mean(({ feature }) => feature.description.compression),
    },
    together: { p, null95, ...(joined && { difference: { p: joined.p, null95: joined.null95 } }) },
  };
}

function seedNumbers({ probed, feature, ci95, pLayers, pAll, difference }: Entry): SeedNumbers {
  const { faithful, sound, plain, selectivity, description } = feature;
  return {
    seed: probed.seed,
    faithful: faithful.auroc,
    faithful_accuracy: faithful.accuracy,
    sound: sound.auroc,
    accuracy: sound.accuracy,
    tpr_at_1pct_fpr: sound.tpr_at_1pct_fpr,
    tpr_at_01pct_fpr: sound.tpr_at_01pct_fpr,
    null95: sound.null95,
    ci95,
    p: sound.p,
    p_layers: pLayers,
    p_all: pAll,
    plain: { auroc: plain.auroc, null95: plain.null95, p: plain.p },
    ...(difference && {
      difference: {
        value: difference.difference,
        ci95: difference.ci95,
        null95: difference.null95,
        p: difference.p,
        p_all: difference.pAll,
      },
    }),
    selectivity,
    description,
  };
}
