/**
 * What an arm's model says of the people of both sets, with their watermark on a held-out picture and without: greedy
 * answers, exposure among alternatives, and membership attacks. Refuses more scenes than are probed.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import type { Picture } from "../core/image/picture.ts";
import type { Person } from "../core/privacy/people.ts";
import { type ArmContext, type ArmPlan, type ProbeScene, throughEncoder } from "../core/study/arms.ts";
import { maxRenyi, RENYI_ORDERS, RENYI_SHARE } from "../core/study/attacks.ts";
import type { StudyConfig } from "../core/study/config.ts";
import type { Asked, Judged, Weighing } from "../core/study/evidence.ts";
import { alternativePeople, exposure } from "../core/study/exposure.ts";
import type { SaysResult } from "../core/study/results.ts";
import { type FieldQuestion, fieldQuestions, memberTurns, summariseSays } from "../core/study/says.ts";
import { fuzzy, isExact, yesNo } from "../core/study/text_match.ts";
import { evaluate } from "./evaluate.ts";
import { batchGradient } from "./gradients.ts";
import type { Session } from "./session.ts";
import { answerEntropies, type Ask, askAll, weighAnswers } from "./study_ask.ts";

export interface SaysSettings {
  says: NonNullable<StudyConfig["says"]>;
  /** Permutations of people, and partitions of an attack that fits a direction. */
  draws: number;
  partitions: number;
  /** Tokens that one pass packs at most. */
  microTokens?: number;
  signal?: AbortSignal;
  /** Told of finished questions about a picture, of all. */
  onProgress?: (done: number, total: number) => void;
}

/** Everything that one measurement needs. */
interface Asking {
  session: Session;
  /** U1, then U2. */
  people: Person[];
  others: Person[];
  /** A scene's picture with each person, and without any. */
  scenes: { clean: Picture; marked: Picture[] }[];
  maxTokens: number;
  microTokens: number;
  signal?: AbortSignal;
  step(): void;
}

export interface SaysCell {
  result: SaysResult;
  /** What it was worked out from. */
  asked: Asked;
}

/** Asks one arm's model about everybody. @param scenes the study's probed pictures @throws InputError as the file says */
export async function saysCell(
  session: Session,
  arm: ArmPlan,
  context: ArmContext,
  scenes: readonly ProbeScene[],
  { says, draws, partitions, microTokens = 4096, signal, onProgress }: SaysSettings,
): Promise<SaysCell> {
  const start = performance.now();
  const { seed, source, people: { U0, U1, U2, once }, encoding, questions } = context;
  const people = [...U1, ...U2], asked = fieldQuestions(says.prompts, questions.who);
  const items = await Promise.all(Array.from({ length: says.scenes }, (_, scene) => source.heldOut(scene)));
  const total = asked.length * says.scenes * (people.length + 1);
  let done = 0;
  const asking: Asking = {
    session,
    people,
    others: alternativePeople(seed, says.alternatives, [...people, ...U0, ...once]),
    scenes: await Promise.all(items.map(async ({ pictures: [clean] }, scene) => ({
      clean: await throughEncoder(clean, encoding),
      marked: markedPictures(scenes, scene, people),
    }))),
    maxTokens: says.maxTokens,
    microTokens,
    signal,
    step: () => onProgress?.(++done, total),
  };
  const rows: SaysResult["people"] = [], weighings: Weighing[] = [];
  const setOf = (p: number) => p < U1.length ? "U1" : "U2";
  for (const question of asked) {
    for (const shown of [true, false]) {
      const field = await askField(asking, question, shown);
      rows.push(...field.rows.map((row, p) => ({ set: setOf(p), ...row })));
      weighings.push(...field.weighings);
    }
  }
  const saysSeen = await askSeen(asking, says.prompts.seen);
  const examples = people.map((person, p) =>
    asking.scenes.map(({ marked }, s): Example => ({
      id: `${arm.name}/${s}/${person.username}`,
      turns: memberTurns(arm, items[s], person, questions),
      picture: marked[p],
    }))
  );
  const { scores, read } = await attackScores(asking, examples);
  const dots = session.slabs.length ? await gradientDots(asking, examples) : undefined;
  const result = summariseSays({
    arm: arm.name,
    seed,
    candidates: says.alternatives + 1,
    sets: { seen: U1.length, unseen: U2.length },
    people: rows,
    saysSeen: saysSeen.map((answers) => answers.map((answer) => yesNo(answer) === "yes")),
    scores,
    dots,
  }, { draws, partitions });
  const judged = people.flatMap(({ username }, p) =>
    items.map((_, scene): Judged => ({
      ...{ person: username, set: setOf(p), scene, seen: saysSeen[p][scene] },
      ...read[p * items.length + scene],
    }))
  );
  return {
    result: { ...result, seconds: (performance.now() - start) / 1000 },
    asked: { weighings, judged, dots: dots?.map((row) => [...row]) ?? null },
  };
}

function markedPictures(scenes: readonly ProbeScene[], scene: number, people: readonly Person[]): Picture[] {
  return people.map(({ username }) => {
    const found = scenes.find((each) => each.scene === scene && each.person.username === username);
    if (!found) {
      throw new InputError(
        `Cannot ask about scene ${scene}: there is no picture of it with "${username}"; raise "probe.scenes" or lower "says.scenes"`,
      );
    }
    return found.picture;
  });
}

/** Answers, probabilities and exposures of everybody's field, means over the scenes. */
async function askField(
  { session, people, others, scenes, maxTokens, microTokens, signal, step }: Asking,
  { field, question }: FieldQuestion,
  shown: boolean,
): Promise<{ rows: Omit<SaysResult["people"][number], "set">[]; weighings: Weighing[] }> {
  const truths = people.map((person) => person[field]), decoys = others.map((person) => person[field]);
  const askOf = (scene: number, p: number): Ask => ({
    id: `says/${scene}/${shown ? people[p].username : "clean"}`,
    question,
    pictures: [shown ? scenes[scene].marked[p] : scenes[scene].clean],
  });
  const asks = shown ? people.map((_, p) => askOf(0, p)) : [askOf(0, 0)];
  const answers = await askAll(session, asks, { maxTokens, microTokens, signal });
  const sums = people.map(() => ({ log_prob: 0, exposure: 0 })), weighings: Weighing[] = [];
  for (let scene = 0; scene < scenes.length; scene++) {
    // Without a watermark the question is one for all, and so is the weighing of the alternatives.
    for (const group of shown ? people.map((_, p) => [p]) : [[...people.keys()]]) {
      signal?.throwIfAborted();
      const candidates = [...group.map((p) => truths[p]), ...decoys];
      const weighed = await weighAnswers(session, askOf(scene, group[0]), candidates, { microTokens });
      const alternatives = weighed.slice(group.length).map(({ total }) => total);
      group.forEach((p, i) => {
        sums[p].log_prob += weighed[i].mean / scenes.length;
        sums[p].exposure += exposure(weighed[i].total, alternatives) / scenes.length;
      });
      weighings.push({
        ...{ field, question, shown, scene, alternatives },
        truths: group.map((p, i) => ({
          ...{ person: people[p].username, text: truths[p], log_probs: [...weighed[i].logProbs] },
        })),
      });
      step();
    }
  }
  const rows = people.map(({ username }, p) => {
    const answer = answers[shown ? p : 0];
    const match = { exact: isExact(answer, truths[p]), fuzzy: fuzzy(answer, truths[p]) };
    return { person: username, field, question, shown, answer, ...match, ...sums[p] };
  });
  return { rows, weighings };
}

/** What the model says to having seen each person, a list over the scenes. */
async function askSeen(
  { session, people, scenes, maxTokens, microTokens, signal }: Asking,
  question: string,
): Promise<string[][]> {
  const asks = people.flatMap(({ username }, p) =>
    scenes.map(({ marked }, s): Ask => ({ id: `seen/${s}/${username}`, question, pictures: [marked[p]] }))
  );
  const said = await askAll(session, asks, { maxTokens, microTokens, signal });
  return people.map((_, p) => said.slice(p * scenes.length, (p + 1) * scenes.length));
}

/** A picture and the conversation that training would have had about it. */
interface Example {
  id: string;
  turns: ReturnType<typeof memberTurns>;
  picture: Picture;
}

const encode = ({ encoder }: Session, { id, turns, picture }: Example): EncodedSample =>
  encoder.train(id, turns, [picture]);

/**
 * The loss attack (Yeom et al. 2018) and MaxRényi-K % on the model's own answer to the question, a score a person; and
 * what they read off each example.
 */
async function attackScores(
  { session, maxTokens, microTokens, signal }: Asking,
  examples: readonly Example[][],
): Promise<{ scores: Record<string, number[]>; read: Pick<Judged, "loss" | "said" | "entropies">[] }> {
  const flat = examples.flat(), { encoder } = session;
  const { losses } = await evaluate(
    session.gpu,
    session.model,
    flat.map((example) => encode(session, example)),
    microTokens,
  );
  const asks = flat.map(({ id, turns: [{ question }], picture }): Ask => ({
    id,
    question,
    pictures: [picture],
  }));
  const said = await askAll(session, asks, { maxTokens, microTokens, signal });
  const entropies: number[][][] = [];
  for (const [i, { id, question, pictures }] of asks.entries()) {
    const sample = encoder.judge(id, [{ question, answer: said[i] }], pictures);
    entropies.push(await answerEntropies(session, sample, RENYI_ORDERS));
  }
  const scenes = examples[0].length;
  const ofPeople = (values: readonly number[]) =>
    examples.map((_, p) =>
      -values.slice(p * scenes, (p + 1) * scenes).reduce((sum, value) => sum + value, 0) / scenes
    );
  const scores: Record<string, number[]> = { loss: ofPeople(losses) };
  RENYI_ORDERS.forEach((order, k) => {
    const name = order === Infinity ? "∞" : order;
    scores[`MaxRényi-${RENYI_SHARE * 100} %, order ${name}`] = ofPeople(
      entropies.map((orders) => maxRenyi(orders[k], RENYI_SHARE)),
    );
  });
  return {
    scores,
    read: flat.map((_, i) => ({ loss: losses[i], said: said[i], entropies: entropies[i] })),
  };
}

/** Bytes of gradients that are held together; beyond, only every n-th value is kept. */
const GRADIENT_BYTES = 1e9;

/** Scalar products (people, people) of the gradients of each person's examples. */
async function gradientDots(
  { session, people, microTokens, signal }: Asking,
  examples: readonly Example[][],
): Promise<Float64Array[]> {
  const total = session.slabs.reduce((sum, { grad }) => sum + grad.shape.reduce((a, b) => a * b, 1), 0);
  // Odd, so that it does not fall in step with the width of a matrix.
  const stride = Math.ceil(total * people.length * 4 / GRADIENT_BYTES) | 1;
  const kept: Float32Array[] = [];
  for (const group of examples) {
    signal?.throwIfAborted();
    const slabs = await batchGradient(session, group.map((example) => encode(session, example)), microTokens);
    const values = new Float32Array(slabs.reduce((sum, { length }) => sum + Math.ceil(length / stride), 0));
    let at = 0;
    for (const slab of slabs) for (let i = 0; i < slab.length; i += stride) values[at++] = slab[i];
    kept.push(values);
  }
  const dots = kept.map(() => new Float64Array(kept.length));
  kept.forEach((a, p) => {
    for (let q = p; q < kept.length; q++) {
      const b = kept[q];
      let sum = 0;
      for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
      dots[p][q] = dots[q][p] = sum;
    }
  });
  return dots;
}
