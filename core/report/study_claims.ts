/**
 * The published study's three claims, answered by the rules of docs/study.md, which were written before any result.
 * Where a rule cannot be applied the answer is "undecided" and says why; it is never made up from what is there.
 */
import { meanWithInterval } from "../probe/student.ts";
import type { Interval } from "../study/results.ts";
import type { FeatureNumbers } from "./study_numbers.ts";
import { firstParameters, type GradientNumbers, type SaysNumbers } from "./study_outputs.ts";
import { between, fixed, list, plural, signed } from "./words.ts";

export type Answer = "yes" | "no" | "undecided";
export interface Claim {
  claim: 1 | 2 | 3;
  text: string;
  answer: Answer;
  /** Why, with the numbers it rests on. */
  because: string;
}

export const RULES = { level: 0.05, seeds: 5, nearly: 0.8, few: 0.2, cosine: 0.05, auroc: 0.1, named: 0.05 };

const TEXT = {
  1: "Watermarks that have nothing to do with the task become correlated with the training objective, because mini-batches are small",
  2: "Gradients of partial mini-batches differ for watermarked data, and by more than neutral text makes them",
  3: "Layer-wise probes find private content that was seen in fine-tuning, where it changes nothing in what the model says",
} as const;

const claim = (number: 1 | 2 | 3, answer: Answer, because: string): Claim => ({
  claim: number,
  text: TEXT[number],
  answer,
  because,
});

const tooFew = (seeds: number): string | undefined =>
  seeds < RULES.seeds
    ? `there are results of ${plural(seeds, "seed")}, the rules ask for ${RULES.seeds}`
    : undefined;

const share = (tests: readonly boolean[]): number =>
  tests.length === 0 ? 0 : tests.filter(Boolean).length / tests.length;
/** Shares of seeds are fractions of small whole numbers: a little room for their rounding. */
const nearly = (tests: readonly boolean[]): boolean => share(tests) >= RULES.nearly - 1e-9;
const few = (tests: readonly boolean[]): boolean => share(tests) <= RULES.few + 1e-9;
const count = (tests: readonly boolean[]): string => `${tests.filter(Boolean).length} of ${tests.length}`;

/** What the private version is aligned by beyond neutral text, seed by seed, for every batch size. */
export function alignmentExcess(gradients: GradientNumbers): { batch: number; seeds: number[] }[] {
  const of = (batch: number, version: string) =>
    gradients.alignment.find((row) => row.batch === batch && row.version === version)?.seeds;
  const batches = [...new Set(gradients.alignment.map(({ batch }) => batch))].sort((a, b) => a - b);
  return batches.flatMap((batch) => {
    const [ours, neutral] = [of(batch, "private"), of(batch, "neutral")];
    return ours && neutral && ours.length === neutral.length
      ? [{ batch, seeds: ours.map((value, i) => value - neutral[i]) }]
      : [];
  });
}

export function firstClaim(gradients: GradientNumbers | undefined): Claim {
  if (!gradients) return claim(1, "undecided", "gradients were not compared");
  const short = tooFew(gradients.seeds.length);
  if (short) return claim(1, "undecided", short);
  const excess = alignmentExcess(gradients);
  if (excess.length < 2) {
    return claim(1, "undecided", "alignments of private and neutral text need two batch sizes or more");
  }
  const small = excess[0], large = excess.at(-1)!;
  const atSmall = meanWithInterval(small.seeds);
  const falls = meanWithInterval(small.seeds.map((value, i) => value - large.seeds[i]));
  const numbers = `beyond neutral text, a batch of ${small.batch} is aligned with the private direction by ${
    signed(atSmall.mean, 3)
  } (${between(atSmall.ci95, 3)}), less that of a batch of ${large.batch}: ${signed(falls.mean, 3)} (${
    between(falls.ci95, 3)
  })`;
  if (atSmall.ci95[0] > 0 && falls.ci95[0] > 0) return claim(1, "yes", numbers);
  if (atSmall.ci95[1] < RULES.cosine || falls.ci95[1] < RULES.cosine) {
    return claim(1, "no", `${numbers}: an effect of ${fixed(RULES.cosine)} is excluded`);
  }
  return claim(1, "undecided", numbers);
}

export function secondClaim(gradients: GradientNumbers | undefined): Claim {
  const first = gradients && firstParameters(gradients);
  const rows = gradients?.difference.filter(({ parameters }) => parameters === first) ?? [];
  if (!gradients || rows.length === 0) {
    return claim(2, "undecided", "private and neutral text were not compared");
  }
  const short = tooFew(gradients.seeds.length);
  if (short) return claim(2, "undecided", short);
  const outside = (ci95: Interval | null, side: 1 | -1): boolean =>
    ci95 !== null && (side > 0 ? ci95[0] > 0 : ci95[1] < 0);
  const apart = rows.filter(({ estimates, mean }) =>
    ([1, -1] as const).some((side) =>
      nearly(estimates.map(({ ci95 }) => outside(ci95, side))) && outside(mean.ci95, side)
    )
  );
  const numbers = rows.map(({ batch, mean }) =>
    `batch ${batch}: ${signed(mean.value, 3)} (${between(mean.ci95!, 3)})`
  ).join(", ");
  const what = `cosine of private text less that of neutral text, ${numbers}`;
  if (apart.length) {
    return claim(2, "yes", `${what}; apart at batch ${list(apart.map(({ batch }) => String(batch)))}`);
  }
  const within = rows.every(({ mean }) => mean.ci95![0] > -RULES.cosine && mean.ci95![1] < RULES.cosine);
  return within
    ? claim(2, "no", `${what}: differences of ${fixed(RULES.cosine)} are excluded at every size`)
    : claim(2, "undecided", what);
}

/** An arm's test at the primary feature, seed by seed. */
export interface ArmTest {
  name: string;
  role: string;
  /** Whether it is an arm with irrelevant watermarks of U1. */
  isCandidate: boolean;
  numbers: FeatureNumbers;
  says?: SaysNumbers;
}

/** Whether the arm's probe was found, by the third claim's rule. */
export function isFound({ seeds, mean }: FeatureNumbers): boolean {
  const { level } = RULES;
  return nearly(seeds.map(({ p_all, difference }) => p_all <= level && (difference?.p_all ?? 1) <= level)) &&
    (mean.difference?.ci95?.[0] ?? -1) > 0;
}

/** Whether what the model says does not tell the seen from the unseen; undefined where it was not asked. */
export function isSilent(says: SaysNumbers | undefined): boolean | undefined {
  if (!says) return undefined;
  return says.exposure.every(({ p }) => few(p.map((value) => value <= RULES.level))) &&
    says.named.seen.value - says.named.unseen.value <= RULES.named;
}

export function thirdClaim(arms: readonly ArmTest[]): Claim {
  const candidates = arms.filter(({ isCandidate }) => isCandidate);
  if (candidates.length === 0) return claim(3, "undecided", "no arm carries irrelevant watermarks of U1");
  const short = tooFew(Math.min(...candidates.map(({ numbers }) => numbers.seeds.length)));
  if (short) return claim(3, "undecided", short);
  const low = ({ numbers }: ArmTest) => numbers.seeds.map(({ p }) => p <= RULES.level);
  const known = arms.find(({ name }) => name === "known");
  const quiet = arms.filter(({ role }) => role === "control" || role === "reading");
  const loud = quiet.filter((arm) => !few(low(arm)));
  const broken = !known
    ? 'the positive control "known" was not run'
    : !nearly(low(known))
    ? `the positive control "known" was found in ${count(low(known))} seeds only`
    : loud.length
    ? `${list(loud.map((arm) => `"${arm.name}"`))}, which never saw U1, ${
      loud.length > 1 ? "were" : "was"
    } "found" in ${list(loud.map((arm) => count(low(arm))))} seeds`
    : undefined;
  const numbers = candidates.map(({ name, numbers: { seeds, mean } }) =>
    `${name}: p ≤ .05 after correction in ${
      count(seeds.map(({ p_all }) => p_all <= RULES.level))
    } seeds, difference ${mean.difference ? signed(mean.difference.value) : "not measured"}${
      mean.difference?.ci95 ? ` (${between(mean.difference.ci95)})` : ""
    }`
  ).join("; ");
  if (broken) {
    return claim(3, "undecided", `the instrument has not shown that it works: ${broken} (${numbers})`);
  }
  const found = candidates.filter((arm) => isFound(arm.numbers));
  const silent = found.filter(({ says }) => isSilent(says) === true);
  if (silent.length) {
    return claim(3, "yes", `${list(silent.map(({ name }) => name))} found, and silent (${numbers})`);
  }
  if (found.length && found.every(({ says }) => isSilent(says) === false)) {
    return claim(3, "no", `what the probe finds, the model says too (${numbers})`);
  }
  if (found.length) return claim(3, "undecided", `what the models say was not measured (${numbers})`);
  const upper = candidates.map((arm) => arm.numbers.mean.difference?.ci95?.[1] ?? Infinity);
  return upper.every((high) => high < RULES.auroc)
    ? claim(3, "no", `no arm is found, and a lift of ${fixed(RULES.auroc)} is excluded (${numbers})`)
    : claim(
      3,
      "undecided",
      `no arm is found, but effects up to ${
        signed(Math.max(...upper))
      } in AUROC are not excluded (${numbers})`,
    );
}
