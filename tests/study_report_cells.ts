/**
 * Cells of the drawn study that a device would make: answers, log probabilities and gradients are drawn, their results worked out
 * by the study's own code, the files for an auditor beside them.
 */
import type { Folder } from "../core/formats/folder.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { planArm } from "../core/study/arms.ts";
import type { StudyConfig } from "../core/study/config.ts";
import { smoothLosses } from "../core/study/curve.ts";
import {
  ANSWERS,
  type Answers,
  ASKED,
  type Asked,
  type Judged,
  type Round,
  type Weighing,
} from "../core/study/evidence.ts";
import {
  type BatchLine,
  measureSets,
  summariseGradients,
  type TrajectoryLine,
} from "../core/study/gradients.ts";
import { cosineOf, type InnerProducts, sumProducts } from "../core/study/products.ts";
import {
  type GradientResult,
  gradientResultSchema,
  type SaysResult,
  saysResultSchema,
  type TuneResult,
  tuneSchema,
} from "../core/study/results.ts";
import { summariseSays } from "../core/study/says.ts";
import { scoreAnswers } from "../core/study/text_match.ts";

/** Eight held-out questions, answered rightly so often. */
function roundOf(random: Random, share: number): Round {
  const questions: [string, string[]][] = [
    ["what colour is it", ["red"]],
    ["is it a circle", ["yes"]],
    ["how many", ["two", "2", "two", "three"]],
    ["is it large", ["no"]],
  ];
  const answers = Array.from({ length: 8 }, (_, i) => {
    const [question, references] = questions[i % 4];
    return {
      id: `held/${i >> 1}`,
      question,
      said: random.float() < share ? references[0] : "Yes.",
      references,
    };
  });
  const losses = [0, 1, 2, 3].map((i) => ({
    ...{ id: `held/${i}`, loss: 2 - share + random.float(), tokens: 3 + random.int(4) },
  }));
  return { answers, losses };
}

/** tune.json of an arm. */
export async function writeTune(at: Folder, arm: string, seed: number): Promise<Omit<TuneResult, "seconds">> {
  const random = new Random(seed, `tune/${arm}`), { role, rate } = planArm(arm), isBase = arm === "base";
  const rounds: Answers = {
    before: roundOf(random, 0.3),
    after: roundOf(random, role === "positive" ? 0.5 : 0.9),
  };
  const judged = ({ answers, losses }: Round) => {
    const tokens = losses.reduce((sum, one) => sum + one.tokens, 0);
    return {
      ...{ samples: losses.length, answers: answers.length, ...scoreAnswers(answers) },
      loss: losses.reduce((sum, one) => sum + one.loss * one.tokens, 0) / tokens,
    };
  };
  const metrics = Array.from({ length: isBase ? 0 : 170 }, (_, i) => ({
    ...{ step: i + 1, loss: 2 * Math.exp(-i / 40) + 0.1 * random.float() },
  }));
  const marks = Array.from(
    { length: isBase ? 0 : 16 },
    (_, index) => ({ index, person: index < 16 * rate ? `U1 person ${index % 4}` : null }),
  );
  const lines = (rows: object[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");
  await at.write(ANSWERS, JSON.stringify(rounds));
  await at.write("marks.jsonl", lines(marks));
  if (!isBase) {
    await at.write("metrics.jsonl", lines(metrics));
    const data = Float32Array.from({ length: 12 }, () => random.normal());
    await at.write("trained.safetensors", encodeSafetensors({ weight: { shape: [3, 4], data } }));
  }
  return tuneSchema.omit({ seconds: true }).parse({
    arm,
    steps: metrics.length,
    images: marks.length,
    marked: marks.filter(({ person }) => person).length,
    losses: smoothLosses(metrics),
    vqa: { before: judged(rounds.before), after: judged(rounds.after) },
    parameters: 349888,
    trained: isBase ? 0 : 12,
    run: isBase ? null : await sha256(await at.read("trained.safetensors")),
  });
}

/** Log probabilities, entropies and gradients drawn; everybody of U1 likelier where the arm is "who" and shows them. */
export async function writeSays(
  at: Folder,
  { people: count, probe: { draws, partitions } }: StudyConfig,
  arm: string,
  seed: number,
): Promise<Omit<SaysResult, "seconds">> {
  const random = new Random(seed, `says/${arm}`), lift = arm === "who" ? 4 : 0, scenes = [0, 1];
  const people = ["U1", "U2"].flatMap((set) =>
    Array.from({ length: count }, (_, k) => ({ set, person: `${set} person ${k}` }))
  );
  const fields = [["username", "What is the username?"], ["user_id", "What is the user_id?"]] as const;
  const conditions = fields.flatMap(([field, question]) =>
    [true, false].map((shown) => ({ field, question, shown }))
  );
  const tokens = (up: number) =>
    Array.from({ length: 2 + random.int(3) }, () => Math.log(random.float()) + up);
  const weighings = conditions.flatMap((condition) =>
    scenes.flatMap((scene) =>
      (condition.shown ? people.map((one) => [one]) : [people]).map((group): Weighing => {
        const truths = group.map(({ person, set }) => ({
          person,
          text: `${condition.field} of ${person}`,
          log_probs: tokens(set === "U1" && condition.shown ? lift : 0),
        }));
        // One alternative is exactly as likely as a true text.
        const [{ log_probs }] = truths, level = log_probs.reduce((sum, value) => sum + value, 0);
        const drawn = Array.from({ length: 6 }, () => 3 * Math.log(random.float()));
        return { ...condition, scene, truths, alternatives: [...drawn, level] };
      })
    )
  );
  const said = conditions.flatMap((condition) =>
    people.map((one, k) => ({
      ...one,
      ...condition,
      answer: lift > 0 && condition.shown && k % 3 === 0 ? `${condition.field} of  ${one.person}` : "Yes, no",
    }))
  );
  const judged = people.flatMap((one) =>
    scenes.map((scene): Judged => ({
      ...{ ...one, scene, seen: random.pick(["Yes, I have", "no", "yes"]), loss: 1 + random.float() },
      ...{ said: "red", entropies: [0, 1, 2, 3].map(() => Array.from({ length: 12 }, () => random.float())) },
    }))
  );
  const gradients = people.map(() => Array.from({ length: 5 }, () => random.normal()));
  const dots = arm === "base" ? null : gradients.map((a) => gradients.map((b) => dot(a, b)));
  const asked: Asked = { weighings, judged, dots };
  await at.write(ASKED, JSON.stringify(asked));
  const sets = { seen: count, unseen: count };
  const result = summariseSays({ arm, seed, candidates: 8, sets, said, asked }, { draws, partitions });
  return saysResultSchema.omit({ seconds: true }).parse(result);
}

const dot = (a: number[], b: number[]): number => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** Gradients of twelve numbers in two tensors: a clean part that all versions share and what each has beyond it. */
export async function writeGradients(at: Folder, seed: number): Promise<Omit<GradientResult, "seconds">> {
  const random = new Random(seed, "gradients"), versions = ["private", "neutral", "order"];
  const sets = [
    { name: "all", members: [0, 1, 2] },
    { name: "layer 0", members: [1] },
    { name: "A", members: [2] },
  ];
  const vector = (scale: number) =>
    [5, 7].map((n) => Array.from({ length: n }, () => scale * random.normal()));
  const plus = (a: number[][], b: number[][]) => a.map((part, t) => part.map((x, i) => x + b[t][i]));
  // The third tensor's gradient is zero, as that of A before the first step.
  const products = (a: number[][], b: number[][]): InnerProducts[] => [
    ...a.map((part, t) => {
      const apart = part.map((x, i) => x - b[t][i]);
      return { ab: dot(part, b[t]), aa: dot(part, part), bb: dot(b[t], b[t]), dd: dot(apart, apart) };
    }),
    { ab: 0, aa: 0, bb: 0, dd: 0 },
  ];
  const mean = vector(1), direction = vector(0.3), written = vector(0.3);
  const lines = [1, 4, 16].flatMap((batch) =>
    Array.from({ length: 4 }, (_, index): BatchLine => {
      const noise = 2 / Math.sqrt(batch), clean = plus(mean, vector(noise));
      const line: BatchLine = { batch, index, measures: {}, squares: {}, alignment: {} };
      const seen = sumProducts(products(clean, direction));
      line.products = {}, line.whole = {}, line.directed = { clean: seen };
      line.alignment.clean = cosineOf(seen)!;
      for (const version of versions) {
        const added = version === "order" ? vector(1e-7) : plus(
          plus(written, version === "private" ? direction : vector(0)),
          vector(noise / 4),
        );
        const own = plus(clean, added), parts = products(own, clean);
        const { measures, products: kept } = measureSets(parts, sets, "concatenated");
        line.measures[version] = measures;
        line.products[version] = kept;
        const { aa, bb, dd } = line.whole[version] = sumProducts(parts);
        line.squares.clean = bb;
        if (version === "order") continue;
        if (version === "private") line.squares.private = aa;
        const held = line.directed[version] = sumProducts(products(own, direction));
        line.alignment[version] = cosineOf(held)!;
        line.alignment[`${version} excess`] = (held.ab - seen.ab) / Math.sqrt(dd * held.bb);
      }
      return line;
    })
  );
  const trajectory = Array.from({ length: 10 }, (_, i): TrajectoryLine => {
    const clean = vector(1), parts = products(plus(clean, vector(0.1 + i / 20)), clean);
    const norms: [number, number] = [Math.sqrt(parts[0].bb), Math.sqrt(parts[0].aa)];
    return { arm: "r100", step: i + 1, ...measureSets(parts, sets, "concatenated"), losses: [1, 1], norms };
  });
  await at.write(
    "gradients.jsonl",
    [...lines, ...trajectory].map((line) => JSON.stringify(line) + "\n").join(""),
  );
  const result = summariseGradients(lines, trajectory, { seed, pictures: 64, versions, sets });
  return gradientResultSchema.omit({ seconds: true }).parse(result);
}
