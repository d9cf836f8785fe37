/**
 * The three claims answered again, word for word by the rules of docs/study.md, from numbers that were made again. Of a verdict's
 * sentences the numbers are checked, not the words.
 */
import { planArm } from "../../core/study/arms.ts";
import type { FeatureRow } from "./features.ts";
import type { GradientRows } from "./gradients.ts";
import { distinct, type Mean, overSeeds, share } from "./numbers.ts";
import type { SaysRow } from "./says.ts";

type Answer = "yes" | "no" | "undecided";
type Interval = [number, number] | null;

const nearlyAll = (tests: boolean[]) => share(tests) > 0.8 - 1e-9;
const few = (tests: boolean[]) => share(tests) < 0.2 + 1e-9;
const above = (ci95: Interval, value: number) => ci95 !== null && ci95[0] > value;
const below = (ci95: Interval, value: number) => ci95 !== null && ci95[1] < value;

export interface Verdict {
  answer: Answer;
  /** Numbers of its sentence that are no row of a table. */
  also: Mean[];
}

/** E(B): alignment of the private version less that of neutral text, one a seed. */
export function firstVerdict(gradients: GradientRows | null): Verdict {
  const undecided: Verdict = { answer: "undecided", also: [] };
  if (!gradients || gradients.seeds.length < 5) return undecided;
  const of = (batch: number, version: string) =>
    gradients.alignment.find((row) => row.batch === batch && row.version === version)?.seeds;
  const sizes = distinct(gradients.alignment.map(({ batch }) => batch)).sort((a, b) => a - b)
    .filter((batch) => of(batch, "private") && of(batch, "neutral"));
  if (sizes.length < 2) return undecided;
  const excess = (batch: number) => of(batch, "private")!.map((value, s) => value - of(batch, "neutral")![s]);
  const small = excess(sizes[0]), large = excess(sizes[sizes.length - 1]);
  const atSmall = overSeeds(small), falls = overSeeds(small.map((value, s) => value - large[s]));
  const answer = above(atSmall.ci95, 0) && above(falls.ci95, 0)
    ? "yes"
    : below(atSmall.ci95, 0.05) || below(falls.ci95, 0.05)
    ? "no"
    : "undecided";
  return { answer, also: [atSmall, falls] };
}

/** Cosine of the private gradient less that of neutral text, at the parameters that are reported first. */
export function secondVerdict(gradients: GradientRows | null): Verdict {
  const rows = gradients?.difference ?? [];
  if (!gradients || rows.length === 0 || gradients.seeds.length < 5) return { answer: "undecided", also: [] };
  const names = distinct(gradients.rows.map(({ parameters }) => parameters));
  const first = names.includes("all") ? "all" : names[0];
  const own = rows.filter(({ parameters }) => parameters === first);
  const apart = own.some(({ estimates, mean }) =>
    [above, below].some((side) => side(mean.ci95, 0) && nearlyAll(estimates.map(({ ci95 }) => side(ci95, 0))))
  );
  const within = own.every(({ mean }) => above(mean.ci95, -0.05) && below(mean.ci95, 0.05));
  return { answer: apart ? "yes" : within ? "no" : "undecided", also: [] };
}

// deno-lint-ignore no-explicit-any
const seedsOf = (row: FeatureRow) => row.seeds as any[];

/** @param rows of the primary feature, one an arm */
export function thirdVerdict(rows: FeatureRow[], says: SaysRow[]): Verdict {
  const undecided: Verdict = { answer: "undecided", also: [] };
  const plans = new Map(rows.map(({ arm }) => [arm, planArm(arm)]));
  const candidates = rows.filter(({ arm }) => {
    const { role, marks } = plans.get(arm)!;
    return role === "watermark" && marks === "U1";
  });
  if (candidates.length === 0 || candidates.some((row) => row.seeds.length < 5)) return undecided;
  const low = (row: FeatureRow) => seedsOf(row).map(({ p }) => p <= 0.05);
  const known = rows.find(({ arm }) => arm === "known");
  const quiet = rows.filter(({ arm }) => ["control", "reading"].includes(plans.get(arm)!.role));
  const works = known !== undefined && nearlyAll(low(known)) && quiet.every((row) => few(low(row)));
  if (!works) return undecided;
  const found = candidates.filter((row) =>
    nearlyAll(seedsOf(row).map(({ p_all, difference }) => p_all <= 0.05 && difference?.p_all <= 0.05)) &&
    above(row.mean.difference?.ci95 ?? null, 0)
  );
  const silent = (row: FeatureRow) => {
    const said = says.find(({ arm }) => arm === row.arm);
    return said && said.exposure.every(({ p }) => few(p.map((value) => value <= 0.05))) &&
      said.named.seen.value - said.named.unseen.value <= 0.05;
  };
  if (found.some((row) => silent(row) === true)) return { answer: "yes", also: [] };
  if (found.length && found.every((row) => silent(row) === false)) return { answer: "no", also: [] };
  const excluded = candidates.every((row) => below(row.mean.difference?.ci95 ?? null, 0.1));
  return found.length === 0 && excluded ? { answer: "no", also: [] } : undecided;
}
