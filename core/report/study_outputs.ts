/**
 * What models say, and how gradients compare, over the seeds of a study: rows that charts, tables and rules read.
 * It averages what cells hold; it refuses nothing, a row that one seed lacks has fewer seeds.
 */
import type { Estimate, GradientResult, Interval, SaysResult, TuneResult, Vqa } from "../study/results.ts";
import { type Mean, meanOf, meanOfEstimates, meanShare } from "./study_numbers.ts";

export interface GradientRow {
  batch: number;
  version: string;
  parameters: string;
  cosine: Mean;
  norm_ratio: Mean;
}

export interface GradientNumbers {
  seeds: number[];
  rows: GradientRow[];
  /** The private version's cosine less the neutral one's, paired by mini-batch. */
  difference: { batch: number; parameters: string; estimates: Estimate[]; mean: Mean }[];
  /** One a seed, in samples; null where it is beyond measure, the gradient's square no larger than its noise. */
  noise_scale: { version: string; seeds: GradientResult["noise_scale"][number][] }[];
  alignment: { batch: number; version: string; seeds: number[]; mean: Mean }[];
  trajectory: { arm: string; step: number; parameters: string; cosine: Mean; norm_ratio: Mean }[];
  /** Parameter sets that have no gradient, and why. */
  skipped: { parameters: string; why: string }[];
}

const grouped = <T>(items: readonly T[], key: (item: T) => unknown[]): T[][] => [
  ...Map.groupBy(items, (item) => JSON.stringify(key(item))).values(),
];

/** @param results one a seed, at least one */
export function gradientNumbers(results: readonly GradientResult[]): GradientNumbers {
  return {
    seeds: results.map(({ seed }) => seed),
    rows: grouped(results.flatMap(({ rows }) => rows), (row) => [row.parameters, row.version, row.batch])
      .map((rows) => ({
        batch: rows[0].batch,
        version: rows[0].version,
        parameters: rows[0].parameters,
        cosine: meanOfEstimates(rows.map(({ cosine }) => cosine)),
        norm_ratio: meanOfEstimates(rows.map(({ norm_ratio }) => norm_ratio)),
      })),
    difference: grouped(
      results.flatMap((result) => result.private_minus_neutral),
      ({ parameters, batch }) => [parameters, batch],
    ).map((rows) => {
      const [{ batch, parameters }] = rows, estimates = rows.map(({ difference }) => difference);
      return { batch, parameters, estimates, mean: meanOfEstimates(estimates) };
    }),
    noise_scale: grouped(results.flatMap((result) => result.noise_scale), ({ version }) => [version])
      .map((seeds) => ({ version: seeds[0].version, seeds })),
    alignment: grouped(results.flatMap(({ alignment }) => alignment), (row) => [row.version, row.batch])
      .map((rows) => ({
        batch: rows[0].batch,
        version: rows[0].version,
        seeds: rows.map(({ cosine }) => cosine.value),
        mean: meanOfEstimates(rows.map(({ cosine }) => cosine)),
      })),
    trajectory: grouped(
      results.flatMap(({ trajectory }) => trajectory),
      (row) => [row.arm, row.parameters, row.step],
    )
      .map((rows) => ({
        arm: rows[0].arm,
        step: rows[0].step,
        parameters: rows[0].parameters,
        cosine: meanOf(rows.map(({ cosine }) => cosine)),
        norm_ratio: meanOf(rows.map(({ norm_ratio }) => norm_ratio)),
      })),
    skipped: results[0].skipped,
  };
}

/** The parameter set that is reported first: all of them where they were compared. */
export function firstParameters({ rows }: GradientNumbers): string {
  return rows.find(({ parameters }) => parameters === "all")?.parameters ?? rows[0]?.parameters ?? "all";
}

export interface SaysNumbers {
  arm: string;
  candidates: number;
  seeds: number[];
  /** Share of people whose name or id was said exactly, whatever was asked, with the person shown. */
  named: { seen: Mean; unseen: Mean };
  /** Share of "yes" to having seen the person. */
  says_seen: { seen: Mean; unseen: Mean };
  exposure: {
    field: string;
    question: string;
    shown: boolean;
    seen: Mean;
    unseen: Mean;
    difference: Mean;
    /** One a seed. */
    p: number[];
  }[];
  attacks: { attack: string; auroc: Mean; null95: Interval[]; p: number[] }[];
}

/** @param results of one arm, one a seed, at least one; `people.set` of the seen is "U1" */
export function saysNumbers(results: readonly SaysResult[], seeds: number[]): SaysNumbers {
  const over = (of: (result: SaysResult) => number): Mean => meanShare(results.map(of));
  const named = (set: string) => ({ people }: SaysResult) => {
    const rows = people.filter((row) => row.set === set && row.shown);
    return rows.filter(({ exact }) => exact).length / Math.max(1, rows.length);
  };
  return {
    arm: results[0].arm,
    candidates: results[0].candidates,
    seeds,
    named: { seen: over(named("U1")), unseen: over(named("U2")) },
    says_seen: {
      seen: over(({ says_seen }) => says_seen.seen),
      unseen: over(({ says_seen }) => says_seen.unseen),
    },
    exposure: grouped(
      results.flatMap(({ exposure }) => exposure),
      (row) => [row.field, row.question, row.shown],
    ).map((rows) => ({
      field: rows[0].field,
      question: rows[0].question,
      shown: rows[0].shown,
      seen: meanOf(rows.map(({ seen }) => seen)),
      unseen: meanOf(rows.map(({ unseen }) => unseen)),
      difference: meanOf(rows.map(({ difference }) => difference)),
      p: rows.map(({ p }) => p),
    })),
    attacks: grouped(results.flatMap(({ attacks }) => attacks), ({ attack }) => [attack]).map((rows) => ({
      attack: rows[0].attack,
      auroc: meanShare(rows.map(({ auroc }) => auroc)),
      null95: rows.map(({ null95 }) => null95),
      p: rows.map(({ p }) => p),
    })),
  };
}

export interface VqaNumbers {
  before: Record<"loss" | "exact" | "vqa_soft", Mean> & { yes_no: Mean | null };
  after: Record<"loss" | "exact" | "vqa_soft", Mean> & { yes_no: Mean | null };
}

/** Accuracy on held-out pictures before and after tuning; undefined where no seed has it. */
export function vqaNumbers(results: readonly TuneResult[]): VqaNumbers | undefined {
  const both = results.flatMap(({ vqa }) => vqa ?? []);
  if (both.length === 0) return undefined;
  const side = (of: (vqa: { before: Vqa; after: Vqa }) => Vqa) => {
    const rows = both.map(of), yesNo = rows.flatMap(({ yes_no }) => yes_no ?? []);
    return {
      loss: meanOf(rows.map(({ loss }) => loss)),
      exact: meanShare(rows.map(({ exact }) => exact)),
      vqa_soft: meanShare(rows.map(({ vqa_soft }) => vqa_soft)),
      yes_no: yesNo.length ? meanShare(yesNo) : null,
    };
  };
  return { before: side(({ before }) => before), after: side(({ after }) => after) };
}
