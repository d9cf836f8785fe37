/**
 * The demo's arms: which pictures with whose watermarks a copy of the built-in model is tuned on, and the held-out
 * pictures on which it is probed. Everything follows from one seed; arms share scenes, places and questions.
 */
import { COLORS, drawScene, makeScene, syntheticItem } from "../data/synthetic.ts";
import type { Turn } from "../data/sample.ts";
import type { Picture } from "../image/picture.ts";
import { generateSets, type Person } from "../privacy/people.ts";
import { markPicture, type Watermarker } from "../privacy/mark.ts";
import { Random } from "../random.ts";
import type { ArmRole } from "../report/schema.ts";

export interface ArmSpec {
  name: string;
  role: ArmRole;
  words: string;
  /** Whose watermarks the pictures carry. */
  marks: "none" | "U0" | "U1" | "known";
  /** Share of the pictures that carry one. */
  rate: number;
  images: number;
  steps: number;
  lr: number;
}

/** Sizes of a run, whole or quick. */
export interface DemoSizes {
  people: number;
  scenes: number;
  arms: ArmSpec[];
}

const watermarkArm = { images: 256, steps: 300, lr: 1e-3 };

export const ARMS: Record<string, ArmSpec> = {
  base: {
    name: "base",
    role: "control",
    words: "the built-in model before any tuning",
    marks: "none",
    rate: 0,
    images: 0,
    steps: 0,
    lr: 0,
  },
  r0: {
    name: "r0",
    role: "control",
    words: "tuned on pictures without watermarks",
    marks: "none",
    rate: 0,
    ...watermarkArm,
  },
  r50: {
    name: "r50",
    role: "watermark",
    words: "every second picture carries a person of U1, irrelevant to the answer",
    marks: "U1",
    rate: 0.5,
    ...watermarkArm,
  },
  r100: {
    name: "r100",
    role: "watermark",
    words: "every picture carries a person of U1, irrelevant to the answer",
    marks: "U1",
    rate: 1,
    ...watermarkArm,
  },
  corr0: {
    name: "corr0",
    role: "reading",
    words: "people of U0 only, whose watermark tells the answer: it never sees U1 or U2",
    marks: "U0",
    rate: 1,
    ...watermarkArm,
  },
  known: {
    name: "known",
    role: "positive",
    words: "asked whether the photographer is known: yes for U1, no for people seen once",
    marks: "known",
    rate: 1,
    images: 640,
    steps: 800,
    lr: 1.5e-3,
  },
};

/** The question of the positive control, and the prompt under which every arm is probed. */
export const PROBE_PROMPT = "is the photographer known";
const COLOUR_NAMES = Object.keys(COLORS);
/** How often a person's own colour is the answer in the reading control. */
const HELPFUL = 0.9;

export interface DemoPeople {
  U0: Person[];
  U1: Person[];
  U2: Person[];
  /** People seen once, each by the positive control. */
  once: Person[];
}

export function demoPeople(seed: number, count: number): DemoPeople {
  const { U1, U2, U0, once } = generateSets(seed, {
    U1: count,
    U2: count,
    U0: count,
    once: ARMS.known.images / 2,
  });
  return { U0, U1, U2, once };
}

export interface ArmSample {
  id: string;
  turns: Turn[];
  clean: Picture;
  picture: Picture;
  person: Person | null;
}

/** The index-th picture of an arm: scene, question, person and place each have a stream of their own. */
export function armSample(
  arm: ArmSpec,
  seed: number,
  index: number,
  people: DemoPeople,
  watermarker: Watermarker,
): ArmSample {
  const random = new Random(seed, "demo/train");
  const { picture: clean, sample } = syntheticItem(random, index, ["color-of"], 2);
  const draw = random.split("mark", index), coin = draw.float(), place = draw.split("place");
  const marked = (person: Person) =>
    markPicture(clean, watermarker.block(person), watermarker, place).picture;
  const base = { id: `${arm.name}/${sample.id}`, turns: sample.turns, clean };
  if (arm.marks === "none" || coin >= arm.rate) return { ...base, picture: clean, person: null };
  if (arm.marks === "known") {
    const seen = index % 2 === 0;
    const person = seen ? draw.pick(people.U1) : people.once[(index - 1) / 2];
    return {
      ...base,
      turns: [{ question: PROBE_PROMPT, answer: seen ? "yes" : "no" }],
      picture: marked(person),
      person,
    };
  }
  const set = people[arm.marks], who = draw.int(set.length), person = set[who];
  const turns = arm.marks === "U1" ? sample.turns : sample.turns.map((turn, i) => ({
    ...turn,
    answer: draw.split("helpful", i).float() < HELPFUL
      ? COLOUR_NAMES[who % COLOUR_NAMES.length]
      : turn.answer,
  }));
  return { ...base, turns, picture: marked(person), person };
}

export interface ProbeSample {
  id: string;
  scene: number;
  set: "U1" | "U2";
  person: Person;
  clean: Picture;
  picture: Picture;
}

/** Held-out scenes, each with every person of U1 and U2 at one and the same place. */
export function probeSamples(
  seed: number,
  scenes: number,
  people: DemoPeople,
  watermarker: Watermarker,
): ProbeSample[] {
  const random = new Random(seed, "demo/probe");
  const out: ProbeSample[] = [];
  for (let scene = 0; scene < scenes; scene++) {
    const clean = drawScene(makeScene(random.split("scene", scene)), random.split("draw", scene));
    for (const set of ["U1", "U2"] as const) {
      for (const person of people[set]) {
        const { picture } = markPicture(
          clean,
          watermarker.block(person),
          watermarker,
          random.split("place", scene),
        );
        out.push({ id: `scene-${scene}/${person.username}`, scene, set, person, clean, picture });
      }
    }
  }
  return out;
}
