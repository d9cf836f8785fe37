/**
 * What an arm's model says of the people of both sets, with their watermark on a held-out picture and without: greedy
 * answers, exposure among alternatives, and membership attacks. Refuses more scenes than are probed.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import type { Picture } from "../core/image/picture.ts";
import type { Person } from "../core/privacy/people.ts";
import { type ArmContext, type ArmPlan, type ProbeScene, throughEncoder } from "../core/study/arms.ts";
import { RENYI_ORDERS } from "../core/study/attacks.ts";
import type { StudyConfig } from "../core/study/config.ts";
import type { Asked, Judged, Weighing } from "../core/study/evidence.ts";
import { alternativePeople } from "../core/study/exposure.ts";
import type { SaysResult } from "../core/study/results.ts";
import {
  type FieldQuestion,
  fieldQuestions,
  memberTurns,
  type Said,
  summariseSays,
} from "../core/study/says.ts";
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
  const people = [...U1, ...U2], fields = fieldQuestions(says.prompts, questions.who);
  const items = await Promise.all(Array.from({ length: says.scenes }, (_, scene) => source.heldOut(scene)));
  const total = fields.length * says.scenes * (people.length + 1);
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
  const said: Said[] = [], weighings: Weighing[] = [];
  const setOf = (p: number) => p < U1.length ? "U1" : "U2";
  for (const question of fields) {
    for (const shown of [true, false]) {
      const { answers, weighed } = await askField(asking, question, shown);
      said.push(...people.map(({ username }, p) => ({
        ...{ person: username, set: setOf(p), ...question, shown, answer: answers[shown ? p : 0] },
      })));
      weighings.push(...weighed);
    }
  }
  const seen = await askSeen(asking, says.prompts.seen);
  const examples = people.map((person, p) =>
    asking.scenes.map(({ marked }, s): Example => ({
      id: `${arm.name}/${s}/${person.username}`,
      turns: memberTurns(arm, items[s], person, questions),
      picture: marked[p],
    }))
  );
  const read = await readExamples(asking, examples);
  const judged = people.flatMap(({ username }, p) =>
    items.map((_, scene): Judged => {
      const at = p * items.length + scene;
      return { person: username, set: setOf(p), scene, seen: seen[at], ...read[at] };
    })
  );
  const dots = session.slabs.length ? await gradientDots(asking, examples) : null;
  const asked = { weighings, judged, dots };
  const result = summariseSays({
    ...{ arm: arm.name, seed, candidates: says.alternatives + 1, said, asked },
    sets: { seen: U1.length, unseen: U2.length },
  }, { draws, partitions });
  return { result: { ...result, seconds: (performance.now() - start) / 1000 }, asked };
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

/** Answers on the first scene, one a person or, without a watermark, one for all; and the true texts' chances on every scene. */
async function askField(
  { session, people, others, scenes, maxTokens, microTokens, signal, step }: Asking,
  { field, question }: FieldQuestion,
  shown: boolean,
): Promise<{ answers: string[]; weighed: Weighing[] }> {
  const decoys = others.map((person) => person[field]), weighed: Weighing[] = [];
  const askOf = (scene: number, p: number): Ask => ({
    id: `says/${scene}/${shown ? people[p].username : "clean"}`,
    question,
    pictures: [shown ? scenes[scene].marked[p] : scenes[scene].clean],
  });
  const asks = shown ? people.map((_, p) => askOf(0, p)) : [askOf(0, 0)];
  const answers = await askAll(session, asks, { maxTokens, microTokens, signal });
  for (let scene = 0; scene < scenes.length; scene++) {
    // Without a watermark the question is one for all, and so is the weighing of the alternatives.
    for (const group of shown ? people.map((_, p) => [p]) : [[...people.keys()]]) {
      signal?.throwIfAborted();
      const candidates = [...group.map((p) => people[p][field]), ...decoys];
      const found = await weighAnswers(session, askOf(scene, group[0]), candidates, { microTokens });
      weighed.push({
        ...{ field, question, shown, scene },
        truths: group.map((p, i) => ({
          ...{ person: people[p].username, text: people[p][field], log_probs: [...found[i].logProbs] },
        })),
        alternatives: found.slice(group.length).map(({ total }) => total),
      });
      step();
    }
  }
  return { answers, weighed };
}

/** What the model says to having seen each person, person by person on every scene. */
async function askSeen(
  { session, people, scenes, maxTokens, microTokens, signal }: Asking,
  question: string,
): Promise<string[]> {
  const asks = people.flatMap(({ username }, p) =>
    scenes.map(({ marked }, s): Ask => ({ id: `seen/${s}/${username}`, question, pictures: [marked[p]] }))
  );
  return await askAll(session, asks, { maxTokens, microTokens, signal });
}

/** A picture and the conversation that training would have had about it. */
interface Example {
  id: string;
  turns: ReturnType<typeof memberTurns>;
  picture: Picture;
}

const encode = ({ encoder }: Session, { id, turns, picture }: Example): EncodedSample =>
  encoder.train(id, turns, [picture]);

/** What the attacks on outputs read off each example, person by person. */
async function readExamples(
  { session, maxTokens, microTokens, signal }: Asking,
  examples: readonly Example[][],
): Promise<Pick<Judged, "loss" | "said" | "entropies">[]> {
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
  const out: Pick<Judged, "loss" | "said" | "entropies">[] = [];
  for (const [i, { id, question, pictures }] of asks.entries()) {
    const sample = encoder.judge(id, [{ question, answer: said[i] }], pictures);
    const entropies = await answerEntropies(session, sample, RENYI_ORDERS);
    out.push({ loss: losses[i], said: said[i], entropies });
  }
  return out;
}

/** Bytes of gradients that are held together; beyond, only every n-th value is kept. */
const GRADIENT_BYTES = 1e9;

/** Scalar products (people, people) of the gradients of each person's examples. */
async function gradientDots(
  { session, people, microTokens, signal }: Asking,
  examples: readonly Example[][],
): Promise<number[][]> {
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
  const dots = kept.map(() => new Array<number>(kept.length).fill(0));
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
