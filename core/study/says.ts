/**
 * From what was measured of each person to the result of a says cell: means, differences between the sets and attacks,
 * all judged under the same permutations of people. Refuses nothing itself.
 */
import { infer, type Permuted } from "../probe/inference.ts";
import type { SourceItem } from "./arms.ts";
import type { ArmPlan } from "./arms.ts";
import { alignmentAttack, drawPeople, meanDifference, scoreAttack } from "./attacks.ts";
import type { StudyConfig } from "./config.ts";
import type { Turn } from "../data/sample.ts";
import type { Person } from "../privacy/people.ts";
import type { SaysResult } from "./results.ts";

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

/** What was measured; people are those of U1, then those of U2, everywhere in one order. */
export interface Measured {
  arm: string;
  seed: number;
  candidates: number;
  sets: { seen: number; unseen: number };
  people: SaysResult["people"];
  /** Whether each answer to having seen the person was yes, a list a person. */
  saysSeen: boolean[][];
  /** A score a person for every attack, large for members. */
  scores: Record<string, number[]>;
  /** (people, people) scalar products of gradients, where there are any. */
  dots?: readonly ArrayLike<number>[];
}

/** @param draws permutations of people @param partitions of the attack that has a direction to fit */
export function summariseSays(
  { arm, seed, candidates, sets, people, saysSeen, scores, dots }: Measured,
  { draws, partitions }: { draws: number; partitions: number },
): Omit<SaysResult, "seconds"> {
  const plan = drawPeople(sets.seen, sets.unseen, draws, seed);
  const row = ({ observed, nullDraws }: Permuted) => ({
    ...infer(observed, nullDraws),
    null: [...nullDraws],
  });
  const attack = (name: string, result: Permuted) => ({
    attack: name,
    auroc: result.observed,
    ...row(result),
  });
  const share = (answers: boolean[][]) => {
    const flat = answers.flat();
    return flat.filter(Boolean).length / flat.length;
  };
  return {
    arm,
    seed,
    plan: plan.plan,
    candidates,
    people,
    says_seen: {
      seen: share(saysSeen.slice(0, sets.seen)),
      unseen: share(saysSeen.slice(sets.seen)),
    },
    attacks: [
      ...Object.entries(scores).map(([name, values]) => attack(name, scoreAttack(values, plan))),
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
