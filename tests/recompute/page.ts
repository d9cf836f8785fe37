/**
 * The numbers that the page of a study shows in tables, beside those that were made again: cell by cell, to the digits shown. A
 * table that is not here is one that nobody checks. Charts are drawn from report.json by a library and are not read back.
 */
import assert from "node:assert/strict";
import { distinct, mean, overSeeds, sum } from "./numbers.ts";
import type { Remade } from "./report.ts";

// deno-lint-ignore no-explicit-any
type Any = any;
/** Numbers of one cell in order; null where a cell is no number. */
type Cell = (number | null)[] | null;

const whole = (value: Any): number[] => !value ? [] : [value.value, ...(value.ci95 ?? [])];
const below = (ps: number[]): number[] => [ps.filter((p) => p <= 0.05).length, ps.length];

const primaryRows = ({ features, primary }: Any): Any[] =>
  features.filter((row: Any) => row.prompt === primary.prompt && row.feature === primary.feature);
const byArm = (group: Any): { arm: Any; row: Any; says: Any }[] =>
  primaryRows(group).map((row) => ({
    row,
    arm: group.arms.find(({ name }: Any) => name === row.arm),
    says: group.says.find(({ arm }: Any) => arm === row.arm),
  }));
const overRow = (row: Any, of: (one: Any) => number): number[] => [mean(row.seeds.map(of))];
const most = (exposure: Any[], field: string): Cell => {
  const own = exposure.filter((row) => row.field === field);
  const best = own.reduce((a, b) => b.difference.value > a.difference.value ? b : a);
  return [...whole(best.difference), ...below(best.p)];
};

/** Rows of each table by the beginning of its caption. */
const TABLES: Record<string, (group: Any, report: Any) => Cell[][]> = {
  "The arms": ({ arms }) =>
    arms.map(({ images, steps, lr, marked }: Any) =>
      steps ? [null, null, [images], [steps], [lr], [marked]] : [null, null, [], [], [], [marked]]
    ),
  "AUROC at ": (group) =>
    primaryRows(group).map(({ mean, seeds, together }) => [
      ...[null, whole(mean.faithful), whole(mean.sound), together.null95],
      ...["p", "p_layers", "p_all"].map((p) => below(seeds.map((one: Any) => one[p]))),
      whole(mean.difference),
      mean.difference ? below(seeds.map((one: Any) => one.difference.p_all)) : [],
    ]),
  "Every seed": (group) =>
    primaryRows(group).flatMap(({ seeds }) =>
      seeds.map(({ seed, faithful, sound, ci95, null95, p, p_all, difference }: Any) => [
        ...[null, [seed], [faithful], [sound], ci95, null95, [p], [p_all]],
        ...[difference ? [difference.value, ...difference.ci95] : [], difference ? [difference.p_all] : []],
      ])
    ),
  "What the probe finds": (group) =>
    byArm(group).map(({ row, arm, says }) => [
      null,
      [...whole(row.mean.sound), ...below(row.seeds.map(({ p_all }: Any) => p_all))],
      [says.named.seen.value, says.named.unseen.value],
      [says.says_seen.seen.value, says.says_seen.unseen.value],
      most(says.exposure, "username"),
      most(says.exposure, "user_id"),
      [...whole(says.attacks[0].auroc), ...below(says.attacks[0].p)],
      [arm.vqa.before.exact.value, arm.vqa.after.exact.value],
      null,
    ]),
  "Every arm and feature": ({ features }) =>
    features.map(({ mean, seeds, together }: Any) => [
      ...[null, null, whole(mean.faithful), whole(mean.sound), together.null95],
      ...["p", "p_all"].map((p) => below(seeds.map((one: Any) => one[p]))),
      ...[whole(mean.difference), [mean.plain.value]],
    ]),
  "Selectivity": (group) =>
    primaryRows(group).map((row) => [
      ...[null, overRow(row, (one) => one.selectivity.task), overRow(row, (one) => one.selectivity.control)],
      whole(row.mean.selectivity),
      ...["bits", "control", "uniform"].map((part) => overRow(row, (one) => one.description[part])),
      whole(row.mean.compression),
    ]),
  "Blind baseline": ({ blind }) =>
    blind.map(({ seed, auroc, null95, p }: Any) => [[seed], [auroc], null95, [p]]),
  "On people that neither": ({ calibration }) =>
    calibration.map((
      { ece, brier, abstained }: Any,
    ) => [null, null, whole(ece), whole(brier), whole(abstained)]),
  "The smallest expected AUROC": ({ power, arms }) => {
    const arm = (arms.find(({ role }: Any) => role === "watermark") ?? arms[0]).name;
    const own = power.filter((row: Any) => row.arm === arm),
      sizes = distinct(own.map(({ people }: Any) => people));
    return sizes.map((people) => [
      [people as number],
      ...own.filter((row: Any) => row.people === people).map(({ detectable }: Any) => [detectable.value]),
    ]);
  },
  "Cosine of private text less": ({ gradients }) =>
    gradients.difference.map(({ batch, mean, estimates }: Any) => {
      const apart = estimates.filter(({ ci95: [low, high] }: Any) => low > 0 || high < 0);
      return [[batch], null, whole(mean), [apart.length, estimates.length]];
    }),
  "The same, private less neutral": ({ gradients: { alignment } }) => {
    const of = (version: string) => alignment.filter((row: Any) => row.version === version);
    return of("private").map(({ batch, seeds }: Any, i: number) => [
      [batch],
      whole(overSeeds(seeds.map((value: number, s: number) => value - of("neutral")[i].seeds[s]))),
    ]);
  },
  "Gradient-noise scale": ({ gradients }) =>
    gradients.noise_scale.map(({ seeds }: Any) => [
      null,
      ...seeds.map(({ value, ci95 }: Any) =>
        value === null ? [] : [value, ...ci95.filter((end: number | null) => end !== null)]
      ),
    ]),
  "By parameter set": ({ gradients }) =>
    gradients.rows.filter(({ parameters }: Any) => parameters !== "all").map((
      { batch, cosine, norm_ratio }: Any,
    ) => [
      ...[null, null, [batch], whole(cosine), whole(norm_ratio)],
    ]),
  "Exposure in bits": ({ says }) =>
    says.flatMap(({ exposure }: Any) =>
      exposure.map(({ seen, unseen, difference, p }: Any) => [
        ...[null, null, null, null, whole(seen), whole(unseen), whole(difference), below(p)],
      ])
    ),
  "Attacks on membership": ({ says }) => {
    const names = distinct(says.flatMap(({ attacks }: Any) => attacks.map(({ attack }: Any) => attack)));
    return says.map(({ attacks }: Any) => [
      null,
      ...names.map((name) => {
        const found = attacks.find(({ attack }: Any) => attack === name);
        return found ? [...whole(found.auroc), ...below(found.p)] : [];
      }),
    ]);
  },
  "Answers on held-out": ({ arms }) =>
    arms.map(({ vqa: { before, after } }: Any) => [
      null,
      ...["exact", "vqa_soft", "yes_no", "loss"].map((name) => [before[name]?.value, after[name]?.value]),
    ]),
  "Time by kind": (_, { times }) => Object.values<number>(times.seconds).map((value) => [null, [value]]),
};

const text = (html: string): string => html.replace(/<[^>]+>/g, " ").replaceAll("−", "-").replaceAll("+", "");

/** @returns how many numbers of a page of one model, data set and batch size agree @throws AssertionError naming table, row and column */
export function comparePage(html: string, { report }: Remade): number {
  let numbers = 0;
  for (
    const [, caption, body] of html.matchAll(/<caption>([^<]*)<\/caption>[\s\S]*?<tbody>([\s\S]*?)<\/tbody>/g)
  ) {
    const name = Object.keys(TABLES).find((start) => caption.startsWith(start));
    assert.ok(name, `the page shows a table that nobody makes again: ${caption}`);
    const expected = TABLES[name](report.groups[0], report);
    const rows = [...body.matchAll(/<tr>([\s\S]*?)<\/tr>/g)].map(([, row]) =>
      [...row.matchAll(/<t[hd][^>]*>([\s\S]*?)<\/t[hd]>/g)].map(([, cell]) => text(cell))
    );
    assert.equal(rows.length, expected.length, `"${caption}" has another number of rows`);
    rows.forEach((row, i) => {
      assert.equal(row.length, expected[i].length, `"${caption}" has another number of columns`);
      row.forEach((cell, k) => {
        const values = expected[i][k], what = `"${caption}", row ${i + 1}, column ${k + 1}: "${cell.trim()}"`;
        if (values === null) return;
        // A range is written with a dash that is no minus.
        const found = cell.match(/-?\d+(\.\d+)?(e-?\d+)?/g) ?? [];
        assert.equal(found.length, values.length, `${what}, made again ${values}`);
        found.forEach((number, at) => {
          const [digits, power = "0"] = number.split("e"), places = digits.split(".")[1]?.length ?? 0;
          const half = 0.5 * 10 ** (Number(power) - places) + 1e-9;
          assert.ok(Math.abs(Number(number) - values[at]!) <= half, `${what}, made again ${values}`);
          numbers++;
        });
      });
    });
  }
  return numbers + captions(text(html), report.groups[0]);
}

/** What captions say of scores on heat maps, of the deepest colour, and of the first and last loss. */
function captions(page: string, { heatMaps, arms }: Any): number {
  const told = (pattern: RegExp) => [...page.matchAll(pattern)].flatMap(([, ...found]) => found.map(Number));
  const drawn = heatMaps.filter(({ values }: Any) => values),
    names = distinct(drawn.map(({ arm }: Any) => arm));
  const deepest = names.map((name) =>
    Math.max(
      ...drawn.filter(({ arm }: Any) => arm === name).flatMap(({ values }: Any) => values).map(Math.abs),
    )
  );
  const curves = arms.filter(({ losses }: Any) => losses.length > 1).map(({ losses }: Any) => losses);
  const pairs: [number[], number[]][] = [
    [told(/\), log-odds (-?\d+\.\d+)/g), drawn.map(({ score }: Any) => score)],
    [told(/deepest colour is (\d+\.\d+)/g), deepest],
    [
      [.../From first to last:([^<]*)/.exec(page)![1].matchAll(/(\d+\.\d+) to (\d+\.\d+)/g)]
        .flatMap(([, first, last]) => [Number(first), Number(last)]),
      curves.flatMap((losses: Any[]) => [losses[0].loss, losses[losses.length - 1].loss]),
    ],
  ];
  for (const [shown, made] of pairs) {
    assert.equal(shown.length, made.length, `${shown} shown, made again ${made}`);
    shown.forEach((value, i) =>
      assert.ok(Math.abs(value - made[i]) <= 0.005 + 1e-9, `${value} shown, made again ${made[i]}`)
    );
  }
  return sum(pairs.map(([shown]) => shown.length));
}

/** What chance gives on average: log2 of the candidates over a rank drawn by lot. */
export const chanceBits = (candidates: number): number =>
  Math.log2(candidates) - sum(Array.from({ length: candidates }, (_, i) => Math.log2(i + 1))) / candidates;
