/**
 * Every probe row of the report made again: seed by seed, corrected over features and arms, against the compared arm, over
 * seeds. All starts from the activations on the disk.
 */
import type { Cell } from "../../core/study/cells.ts";
import { descriptionOf, selectivityOf } from "./controls.ts";
import {
  againstLargest,
  againstLargestScaled,
  band,
  differenceInterval,
  distinct,
  mean,
  overSeeds,
  pValue,
  range,
  scoreInterval,
  shareOverSeeds,
} from "./numbers.ts";
import { faithfulRates, soundRates } from "./probe.ts";
import { readActivationsOf, type Rows, type StudyFiles } from "./read.ts";

/** One feature of one arm, prompt and seed; `all` holds the AUROCs of truth and draws. */
interface Measured {
  arm: string;
  prompt: string;
  feature: string;
  seed: number;
  all: number[];
  row: Record<string, unknown>;
}

/** Rows of a probe cell's activations. */
export async function activationsOf(study: StudyFiles, cell: Cell): Promise<Map<string, Rows>> {
  const parent = study.cells.find(({ id }) => id === cell.parents[0])!;
  return (await readActivationsOf(study, parent)).features;
}

async function measured(study: StudyFiles, cell: Cell): Promise<Measured[]> {
  const { probe } = study.config, { arm, prompt, seed } = cell.key, out: Measured[] = [];
  for (const [feature, rows] of await activationsOf(study, cell)) {
    const faithful = faithfulRates(rows, probe), sound = soundRates(rows, probe, seed, probe.centerScenes);
    const plain = probe.centerScenes ? soundRates(rows, probe, seed, false) : sound;
    const [observed, ...nulls] = sound.all, [plainly, ...plainNulls] = plain.all;
    out.push({
      ...{ arm: arm!, prompt: prompt!, feature, seed, all: sound.all },
      row: {
        seed,
        faithful: faithful.auroc,
        faithful_accuracy: faithful.accuracy,
        sound: observed,
        accuracy: sound.accuracy,
        tpr_at_1pct_fpr: sound.tpr1,
        tpr_at_01pct_fpr: sound.tpr01,
        null95: band(nulls),
        ci95: scoreInterval(observed, nulls),
        p: pValue(observed, nulls),
        plain: { auroc: plainly, null95: band(plainNulls), p: pValue(plainly, plainNulls) },
        selectivity: selectivityOf(rows, probe, seed),
        description: descriptionOf(rows, probe, seed),
      },
    });
  }
  return out;
}

/** Adds what other features and arms of the same seed make of each. */
function compare(ofSeed: Measured[], comparedTo: string): void {
  for (const arm of distinct(ofSeed.map(({ arm }) => arm))) {
    const own = ofSeed.filter((one) => one.arm === arm);
    againstLargest(own.map(({ all }) => all)).forEach((p, i) => own[i].row.p_layers = p);
  }
  againstLargestScaled(ofSeed.map(({ all }) => all)).forEach((p, i) => ofSeed[i].row.p_all = p);
  const differences = ofSeed.flatMap((one) => {
    const other = ofSeed.find(({ arm, prompt, feature }) =>
      arm === comparedTo && prompt === one.prompt && feature === one.feature
    );
    return other && one.arm !== comparedTo
      ? [{
        row: one.row,
        all: one.all.map((value, i) => value - other.all[i]),
        ci95: differenceInterval(one.all, other.all),
      }]
      : [];
  });
  if (differences.length === 0) return;
  const pAll = againstLargestScaled(differences.map(({ all }) => all));
  differences.forEach(({ row, ci95, all: [value, ...nulls] }, i) => {
    row.difference = { value, ci95, null95: band(nulls), p: pValue(value, nulls), p_all: pAll[i] };
  });
}

/** The report's `features` in its order: arms and prompts as configured, features by site with numbers by size. */
export async function featuresOf(study: StudyFiles, probes: readonly Cell[]) {
  const { arms, probe, comparedTo } = study.config, seeds = distinct(probes.map(({ key }) => key.seed));
  const all: Measured[] = [];
  for (const cell of probes) all.push(...await measured(study, cell));
  for (const seed of seeds) compare(all.filter((one) => one.seed === seed), comparedTo);
  const order = new Intl.Collator("en", { numeric: true });
  const place = ({ feature }: Measured) => feature.split("@");
  const groups = arms.flatMap((arm) =>
    probe.prompts.flatMap(({ id }) => {
      const own = all.filter((one) => one.arm === arm && one.prompt === id);
      const sorted = own.sort((a, b) =>
        order.compare(place(a)[0], place(b)[0]) || order.compare(place(a)[1], place(b)[1])
      );
      return distinct(sorted.map(({ feature }) => feature)).map((feature) =>
        sorted.filter((one) => one.feature === feature).sort((a, b) => a.seed - b.seed)
      );
    })
  );
  // deno-lint-ignore no-explicit-any
  return groups.map((rows) => together(rows, (of: (row: any) => number) => rows.map(({ row }) => of(row))));
}

/** Means over seeds, and all seeds as one study: the mean against the means of draw i of every seed. */
// deno-lint-ignore no-explicit-any
function together(rows: Measured[], values: (of: (row: any) => number) => number[]) {
  const [{ arm, prompt, feature, all }] = rows, [site, reduction] = feature.split("@");
  const join = (series: number[][]) => range(series[0].length).map((i) => mean(series.map((one) => one[i])));
  const [observed, ...nulls] = join(rows.map((one) => one.all));
  // deno-lint-ignore no-explicit-any
  const own = (of: (row: any) => [number, number]) => rows.map(({ row }) => of(row));
  const isCompared = rows.every(({ row }) => row.difference);
  return {
    ...{ arm, prompt, feature, site, reduction, draws: all.length - 1 },
    seeds: rows.map(({ row }) => row),
    mean: {
      faithful: shareOverSeeds(values((row) => row.faithful)),
      sound: shareOverSeeds(values((row) => row.sound), own((row) => row.ci95)),
      plain: shareOverSeeds(values((row) => row.plain.auroc)),
      accuracy: shareOverSeeds(values((row) => row.accuracy)),
      difference: isCompared
        ? overSeeds(values((row) => row.difference.value), own((row) => row.difference.ci95))
        : undefined,
      selectivity: overSeeds(values((row) => row.selectivity.value), own((row) => row.selectivity.ci95)),
      compression: overSeeds(values((row) => row.description.compression)),
    },
    together: { p: pValue(observed, nulls), null95: band(nulls), difference: undefined as unknown },
    draws0: rows.map((one) => one.all),
  };
}
export type FeatureRow = Awaited<ReturnType<typeof featuresOf>>[number];

/** The same of the differences to the compared arm. */
export function addJoinedDifferences(features: FeatureRow[], comparedTo: string): void {
  for (const row of features) {
    if (!row.mean.difference) continue;
    const other = features.find(({ arm, prompt, feature }) =>
      arm === comparedTo && prompt === row.prompt && feature === row.feature
    )!;
    const series = row.draws0.map((one, s) => one.map((value, i) => value - other.draws0[s][i]));
    const [value, ...nulls] = range(series[0].length).map((i) => mean(series.map((one) => one[i])));
    row.together.difference = { p: pValue(value, nulls), null95: band(nulls) };
  }
}
