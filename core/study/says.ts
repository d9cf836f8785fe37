/**
 * From what was measured of each person to the result of a says cell: means, differences between the sets and attacks,
 * all judged under the same permutations of people. Refuses nothing itself.
 */
import { infer, type Permuted } from "../probe/inference.ts";
import type { SourceItem } from "./arms.ts";
import type { ArmPlan } from "./arms.ts";
import {
  alignmentAttack,
  drawPeople,
  maxRenyi,
  meanDifference,
  RENYI_ORDERS,
  RENYI_SHARE,
  scoreAttack,
} from "./attacks.ts";
import type { StudyConfig } from "./config.ts";
import type { Turn } from "../data/sample.ts";
import type { Person } from "../privacy/people.ts";
import type { Asked, Judged, Weighing } from "./evidence.ts";
import { exposure } from "./exposure.ts";
import type { SaysResult } from "./results.ts";
import { fuzzy, isExact, yesNo } from "./text_match.ts";

export type Field = "username" | "user_id";

/** A question whose answer is a field of a person. */
export interface FieldQuestion {
  field: Field;
  question: string;
}

/** The general prompts, and the positive control's own question for the name, put to every arm alike. */
export function fieldQuestions(
  { username, user_id }: NonNullable<StudyConfig["says"]>["prompts"],
  who: string,
): FieldQuestion[] {
  const asked: FieldQuestion[] = [
    { field: "username", question: username },
    { field: "user_id", question: user_id },
  ];
  return who === username ? asked : [...asked, { field: "username", question: who }];
}

/** The conversation that a picture with this person would have had in the arm's training, had the person been there. */
export function memberTurns(
  arm: ArmPlan,
  item: SourceItem,
  person: Person,
  questions: StudyConfig["questions"],
): Turn[] {
  if (arm.question === "known") return [{ question: questions.known, answer: "yes" }];
  if (arm.question === "who") return [{ question: questions.who, answer: person.username }];
  return item.turns;
}

/** A greedy answer to a question about a person. */
export type Said = Omit<SaysResult["people"][number], "exact" | "fuzzy" | "log_prob" | "exposure">;

/** What was measured; people are those of U1, then those of U2, everywhere in one order. */
export interface Measured {
  arm: string;
  seed: number;
  candidates: number;
  sets: { seen: number; unseen: number };
  /** Everybody's, question after question. */
  said: readonly Said[];
  asked: Asked;
}

/** How near each answer comes to the truth, and how likely the truth was: means over the pictures. */
export function personRows(said: readonly Said[], weighings: readonly Weighing[]): SaysResult["people"] {
  return said.map((row) => {
    const { person, field, question, shown, answer } = row;
    const readings = weighings.flatMap((one) => {
      const truth = one.field === field && one.question === question && one.shown === shown
        ? one.truths.find((truth) => truth.person === person)
        : undefined;
      return truth ? [{ ...truth, alternatives: one.alternatives }] : [];
    });
    const sums = { log_prob: 0, exposure: 0 };
    for (const { log_probs, alternatives } of readings) {
      const total = log_probs.reduce((sum, value) => sum + value, 0);
      sums.log_prob += total / log_probs.length / readings.length;
      sums.exposure += exposure(total, alternatives) / readings.length;
    }
    const [{ text }] = readings;
    return { ...row, exact: isExact(answer, text), fuzzy: fuzzy(answer, text), ...sums };
  });
}

/** The loss attack (Yeom et al. 2018) and MaxRényi-K % on the model's own answer to the question, a score a person. */
export function attackScores(judged: readonly Judged[]): Record<string, number[]> {
  const people = [...Map.groupBy(judged, ({ person }) => person).values()];
  const score = (of: (one: Judged) => number) =>
    people.map((own) => -own.reduce((sum, one) => sum + of(one), 0) / own.length);
  return {
    loss: score(({ loss }) => loss),
    ...Object.fromEntries(RENYI_ORDERS.map((order, k) => [
      `MaxRényi-${RENYI_SHARE * 100} %, order ${order === Infinity ? "∞" : order}`,
      score(({ entropies }) => maxRenyi(entropies[k], RENYI_SHARE)),
    ])),
  };
}

/** @param draws permutations of people @param partitions of the attack that has a direction to fit */
export function summariseSays(
  { arm, seed, candidates, sets, said, asked: { weighings, judged, dots } }: Measured,
  { draws, partitions }: { draws: number; partitions: number },
): Omit<SaysResult, "seconds"> {
  const plan = drawPeople(sets.seen, sets.unseen, draws, seed), people = personRows(said, weighings);
  const row = ({ observed, nullDraws }: Permuted) => ({
    ...infer(observed, nullDraws),
    null: [...nullDraws],
  });
  const attack = (name: string, result: Permuted) => ({
    attack: name,
    auroc: result.observed,
    ...row(result),
  });
  const share = (set: string) => {
    const own = judged.filter((one) => one.set === set);
    return own.filter(({ seen }) => yesNo(seen) === "yes").length / own.length;
  };
  return {
    arm,
    seed,
    plan: plan.plan,
    candidates,
    people,
    says_seen: { seen: share("U1"), unseen: share("U2") },
    attacks: [
      ...Object.entries(attackScores(judged)).map(([name, values]) =>
        attack(name, scoreAttack(values, plan))
      ),
      ...(dots ? [attack("gradient alignment", alignmentAttack(dots, plan, partitions))] : []),
    ],
    exposure: groupsOf(people).map((group) => {
      const values = group.map(({ exposure }) => exposure), result = meanDifference(values, plan);
      const mean = (part: number[]) => part.reduce((sum, x) => sum + x, 0) / part.length;
      const { field, question, shown } = group[0];
      return {
        field,
        question,
        shown,
        seen: mean(values.slice(0, sets.seen)),
        unseen: mean(values.slice(sets.seen)),
        difference: result.observed,
        ...row(result),
      };
    }),
  };
}

/** Rows about one field, question and condition, in the order in which they came. */
function groupsOf(people: SaysResult["people"]): SaysResult["people"][] {
  const groups = new Map<string, SaysResult["people"]>();
  for (const row of people) {
    const key = JSON.stringify([row.field, row.question, row.shown]);
    groups.set(key, [...groups.get(key) ?? [], row]);
  }
  return [...groups.values()];
}
