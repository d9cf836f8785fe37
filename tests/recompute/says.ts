/**
 * What a model says, made again from log probabilities, answers, entropies and gradients' products: exposure (Carlini et al.
 * 2019), matches, the attacks of Yeom et al. 2018 and Li et al. 2024 and gradient alignment, under permutations of people.
 */
import type { Cell } from "../../core/study/cells.ts";
import { ASKED, type Asked, type Judged, type Weighing } from "../../core/study/evidence.ts";
import { soundDraws } from "./draws.ts";
import {
  auroc,
  band,
  distinct,
  mean,
  overSeeds,
  pValue,
  range,
  share,
  shareOverSeeds,
  sum,
} from "./numbers.ts";
import { readJsonOf, type StudyFiles } from "./read.ts";

/** A row of the answers' table: what was said is the cell's own, the rest is made again. */
export interface AnswerRow {
  person: string;
  set: string;
  field: string;
  question: string;
  shown: boolean;
  answer: string;
  exact: boolean;
  fuzzy: number;
  log_prob: number;
  exposure: number;
}

const plain = (text: string) => text.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean).join(" ");

/** Fewest edits, by the recursion that defines them. */
function edits(a: string[], b: string[], known = new Map<string, number>()): number {
  if (a.length === 0 || b.length === 0) return a.length + b.length;
  const key = `${a.length} ${b.length}`, found = known.get(key);
  if (found !== undefined) return found;
  const [x, y] = [a.slice(1), b.slice(1)];
  const fewest = a[0] === b[0]
    ? edits(x, y, known)
    : 1 + Math.min(edits(x, b, known), edits(a, y, known), edits(x, y, known));
  known.set(key, fewest);
  return fewest;
}

function likeness(said: string, truth: string): { exact: boolean; fuzzy: number } {
  const [a, b] = [[...plain(said)], [...plain(truth)]], longer = Math.max(a.length, b.length);
  return { exact: a.join("") === b.join(""), fuzzy: longer ? 1 - edits(a, b) / longer : 1 };
}

/** log2 of the candidates less log2 of the rank, equals sharing the middle of their ranks. */
function exposureOf(truth: number, others: readonly number[]): number {
  const ranks = [truth, ...others].sort((a, b) => b - a), first = ranks.indexOf(truth);
  const middle = 1 + (first + ranks.lastIndexOf(truth)) / 2;
  return Math.log2(ranks.length / middle);
}

function answerRow(said: AnswerRow, weighings: readonly Weighing[]): AnswerRow {
  const own = weighings.filter((one) =>
    one.field === said.field && one.question === said.question && one.shown === said.shown
  ).flatMap(({ truths, alternatives }) =>
    truths.filter(({ person }) => person === said.person).map((truth) => ({ ...truth, alternatives }))
  );
  return {
    ...said,
    ...likeness(said.answer, own[0].text),
    log_prob: mean(own.map(({ log_probs }) => mean(log_probs))),
    exposure: mean(own.map(({ log_probs, alternatives }) => exposureOf(sum(log_probs), alternatives))),
  };
}

/** Mean of the largest tenth, one at least. */
function largestTenth(entropies: readonly number[]): number {
  const sorted = [...entropies].sort((a, b) => b - a);
  return mean(sorted.slice(0, Math.max(1, Math.floor(sorted.length / 10))));
}

/** A score a person, large for members. */
function scoresOf(judged: readonly Judged[]): Record<string, Map<string, number>> {
  const people = distinct(judged.map(({ person }) => person));
  const over = (of: (one: Judged) => number) =>
    new Map(people.map((name) => [name, -mean(judged.filter(({ person }) => person === name).map(of))]));
  return {
    "loss": over(({ loss }) => loss),
    "MaxRényi-10 %, order 0.5": over(({ entropies }) => largestTenth(entropies[0])),
    "MaxRényi-10 %, order 1": over(({ entropies }) => largestTenth(entropies[1])),
    "MaxRényi-10 %, order 2": over(({ entropies }) => largestTenth(entropies[2])),
    "MaxRényi-10 %, order ∞": over(({ entropies }) => largestTenth(entropies[3])),
  };
}

interface Tested {
  value: number;
  null95: [number, number];
  p: number;
}

const testOf = ([value, ...nulls]: number[]): Tested => ({
  value,
  null95: band(nulls),
  p: pValue(value, nulls),
});

export interface SaysOfSeed {
  rows: AnswerRow[];
  named: { seen: number; unseen: number };
  says_seen: { seen: number; unseen: number };
  exposure: { field: string; question: string; shown: boolean; seen: number; unseen: number; test: Tested }[];
  attacks: { attack: string; test: Tested }[];
}

export async function saysOf(study: StudyFiles, cell: Cell): Promise<SaysOfSeed> {
  const { weighings, judged, dots } = await readJsonOf<Asked>(study, cell, ASKED);
  const { people: said } = await readJsonOf<{ people: AnswerRow[] }>(study, cell, "says.json");
  const { draws, partitions } = study.config.probe, { seed } = cell.key;
  const rows = said.map((row) => answerRow(row, weighings));
  const setOf = new Map(judged.map(({ person, set }) => [person, set])), names = [...setOf.keys()];
  const seen = names.filter((name) => setOf.get(name) === "U1").length;
  const plan = soundDraws(names, seen, { seed, draws, partitions });
  const ofSet = (set: string, of: (one: Judged) => boolean) =>
    share(judged.filter((one) => one.set === set).map(of));
  const saysYes = ({ seen }: Judged) => /^[^a-z]*yes(?![a-z])/.test(plain(seen));
  const exact = (set: string) =>
    share(rows.filter((row) => row.set === set && row.shown).map((row) => row.exact));

  const kinds = distinct(rows.map(({ field, question, shown }) => JSON.stringify([field, question, shown])));
  const exposure = kinds.map((kind) => {
    const [field, question, shown] = JSON.parse(kind);
    const own = new Map(
      rows.filter((row) => row.field === field && row.question === question && row.shown === shown)
        .map((row) => [row.person, row.exposure]),
    );
    const means = plan.map(({ people }) => {
      const values = people.map((name) => own.get(name)!);
      return [mean(values.slice(0, seen)), mean(values.slice(seen))];
    });
    const test = testOf(means.map(([a, b]) => a - b));
    return { field, question, shown, seen: means[0][0], unseen: means[0][1], test };
  });
  const attacks = Object.entries(scoresOf(judged)).map(([attack, scores]) => ({
    attack,
    test: testOf(
      plan.map(({ people }) =>
        auroc(people.map((_, slot) => Number(slot < seen)), people.map((name) => scores.get(name)!))
      ),
    ),
  }));
  if (dots) attacks.push({ attack: "gradient alignment", test: testOf(alignments(dots, names, seen, plan)) });
  return {
    rows,
    named: { seen: exact("U1"), unseen: exact("U2") },
    says_seen: { seen: ofSet("U1", saysYes), unseen: ofSet("U2", saysYes) },
    exposure,
    attacks,
  };
}

/** Cosine of everybody's gradient who was not taken as known with the mean gradient of the seen who were. */
function alignments(
  dots: number[][],
  names: readonly string[],
  seen: number,
  plan: ReturnType<typeof soundDraws>,
): number[] {
  return plan.map(({ people, parts }) =>
    mean(parts.map((fitted) => {
      const at = people.map((name) => names.indexOf(name)), slots = range(people.length);
      const known = slots.filter((slot) => fitted[slot] && slot < seen).map((slot) => at[slot]);
      const length = Math.sqrt(sum(known.flatMap((i) => known.map((j) => dots[i][j]))));
      const held = slots.filter((slot) => !fitted[slot]);
      const scores = held.map((slot) =>
        sum(known.map((i) => dots[at[slot]][i])) / Math.sqrt(dots[at[slot]][at[slot]]) / length
      );
      return auroc(held.map((slot) => Number(slot < seen)), scores);
    }))
  );
}

/** The report's row of one arm, over its seeds. */
export function saysRow(arm: string, candidates: number, seeds: number[], found: SaysOfSeed[]) {
  const over = (of: (one: SaysOfSeed) => number) => overSeeds(found.map(of));
  const portion = (of: (one: SaysOfSeed) => number) => shareOverSeeds(found.map(of));
  // Attacks in the order of the first seed that has them, as exposure's conditions are.
  const attacks = distinct(found.flatMap((one) => one.attacks.map(({ attack }) => attack)));
  return {
    ...{ arm, candidates, seeds },
    named: { seen: portion(({ named }) => named.seen), unseen: portion(({ named }) => named.unseen) },
    says_seen: {
      seen: portion(({ says_seen }) => says_seen.seen),
      unseen: portion(({ says_seen }) => says_seen.unseen),
    },
    exposure: found[0].exposure.map(({ field, question, shown }, i) => ({
      ...{ field, question, shown },
      seen: over(({ exposure }) => exposure[i].seen),
      unseen: over(({ exposure }) => exposure[i].unseen),
      difference: over(({ exposure }) => exposure[i].test.value),
      p: found.map(({ exposure }) => exposure[i].test.p),
    })),
    attacks: attacks.map((attack) => {
      const tests = found.flatMap((one) => one.attacks.filter((row) => row.attack === attack))
        .map(({ test }) => test);
      return {
        attack,
        auroc: shareOverSeeds(tests.map(({ value }) => value)),
        null95: tests.map(({ null95 }) => null95),
        p: tests.map(({ p }) => p),
      };
    }),
  };
}
export type SaysRow = ReturnType<typeof saysRow>;
