/**
 * A study's arms: whose watermarks the training pictures carry, how else pictures and texts are changed, and what is
 * asked. Scenes, people, places and draws follow from seed and index alone, so arms differ in nothing but their name.
 */
import { type Paraphrases, paraphraseTurn } from "../data/paraphrase.ts";
import type { Turn } from "../data/sample.ts";
import { augmentPicture, drawAugmentation } from "../image/augment.ts";
import { decodeImage, encodeImage } from "../image/codecs.ts";
import type { Picture } from "../image/picture.ts";
import { linesOf } from "../privacy/block.ts";
import { markPicture, type Watermarker } from "../privacy/mark.ts";
import { neutralLines } from "../privacy/neutral.ts";
import { generateSets, type Person } from "../privacy/people.ts";
import type { Box } from "../privacy/watermark.ts";
import { Random } from "../random.ts";
import type { StudyConfig } from "./config.ts";

export type ArmRole = "control" | "watermark" | "reading" | "positive";

export interface ArmPlan {
  name: string;
  role: ArmRole;
  /** What the reader of a report is told. */
  words: string;
  marks: "none" | "U0" | "U1" | "U2" | "known" | "neutral";
  /** Share of the pictures that carry a mark. */
  rate: number;
  change: "none" | "image" | "text" | "reencode";
  question: "task" | "helpful" | "known" | "who";
}

const plain = { marks: "none", rate: 0, change: "none", question: "task" } as const;
const NAMED: Record<string, Omit<ArmPlan, "name">> = {
  base: { ...plain, role: "control", words: "the model before any tuning" },
  swap: {
    ...plain,
    role: "watermark",
    marks: "U2",
    rate: 1,
    words: "every picture carries a person of U2 instead of U1: the sets have changed places",
  },
  corr0: {
    ...plain,
    role: "reading",
    marks: "U0",
    rate: 1,
    question: "helpful",
    words: "people of U0 only, whose watermark tells the answer: it never sees U1 or U2",
  },
  known: {
    ...plain,
    role: "positive",
    marks: "known",
    rate: 1,
    question: "known",
    words: "asked whether the photographer is known: yes for U1, no for people seen once",
  },
  who: {
    ...plain,
    role: "positive",
    marks: "U1",
    rate: 1,
    question: "who",
    words: "asked who took the picture, the answer is the name on it: every person of U1 for itself",
  },
  reencode: {
    ...plain,
    role: "control",
    change: "reencode",
    words: "no watermark, every picture encoded once more",
  },
  neutral: {
    ...plain,
    role: "control",
    marks: "neutral",
    rate: 1,
    words: "every picture carries text that names nobody, at the same places",
  },
  "image-augmented": {
    ...plain,
    role: "control",
    change: "image",
    words: "no watermark, every picture turned, mirrored, brightened at random",
  },
  "text-augmented": {
    ...plain,
    role: "control",
    change: "text",
    words: "no watermark, one or two words of every turn exchanged",
  },
};

/** The plan of an arm by its name, which the configuration's schema has checked. */
export function planArm(name: string): ArmPlan {
  if (NAMED[name]) return { name, ...NAMED[name] };
  const rate = Number(name.slice(1)) / 100;
  if (rate === 0) {
    return { name, ...plain, role: "control", words: "tuned on pictures without watermarks" };
  }
  const share = rate === 1 ? "every picture" : `${Math.round(rate * 100)} % of the pictures`;
  return {
    name,
    ...plain,
    role: "watermark",
    marks: "U1",
    rate,
    words: `${share} with a person of U1, irrelevant to the answer`,
  };
}

/** Pictures with questions: some to tune on, others held out. */
export interface StudySource {
  name: string;
  hash: string;
  /** How many an arm is tuned on unless told; a larger index starts again, or goes on where there is no end. */
  count: number;
  item(index: number): Promise<SourceItem>;
  heldOutCount: number;
  heldOut(index: number): Promise<SourceItem>;
  /** Frequent answers, most frequent first: what the reading control ties to people. */
  answers: readonly string[];
}

export interface SourceItem {
  id: string;
  turns: Turn[];
  pictures: Picture[];
}

export interface StudyPeople {
  U0: Person[];
  U1: Person[];
  U2: Person[];
  /** For the positive control `known`, each seen as rarely as can be. */
  once: Person[];
}

/** Beyond that many, the positive control's unknown people come back. */
const MOST_ONCE = 4000;

/** Sets of `count` people, and `once` more for pictures of the positive control. */
export function studyPeople(seed: number, count: number, knownImages: number): StudyPeople {
  const once = Math.max(1, Math.min(MOST_ONCE, Math.floor(knownImages / 2)));
  const { U1, U2, U0, once: others } = generateSets(seed, { U1: count, U2: count, U0: count, once });
  return { U0, U1, U2, once: others };
}

export interface ArmContext {
  seed: number;
  source: StudySource;
  people: StudyPeople;
  watermarker: Watermarker;
  encoding: StudyConfig["encoding"];
  questions: StudyConfig["questions"];
  paraphrases?: Paraphrases;
}

export interface ArmSample {
  id: string;
  turns: Turn[];
  pictures: Picture[];
  /** Whose watermark it carries, or the words of a neutral one's stand-in. */
  person: Person | null;
  boxes: Box[];
}

/** How often a person's own answer is the true one in the reading control. */
const HELPFUL = 0.9;

/** The index-th sample of an arm, its pictures through the study's encoder. */
export async function armSample(arm: ArmPlan, context: ArmContext, index: number): Promise<ArmSample> {
  const { seed, source, people, questions, watermarker, encoding } = context;
  const item = await source.item(index);
  const draw = new Random(seed, "study/arm").split("mark", index),
    coin = draw.float(),
    place = draw.split("place");
  const mark = coin < arm.rate ? chooseMark(arm, people, index, draw) : undefined;
  const boxes: Box[] = [];
  const pictures = await Promise.all(item.pictures.map(async (clean, k) => {
    const changed = arm.change === "image"
      ? augmentPicture(clean, drawAugmentation(draw.split("augment", k)))
      : arm.change === "reencode"
      ? await throughEncoder(clean, again(encoding))
      : clean;
    if (!mark) return await throughEncoder(changed, encoding);
    const block = arm.marks === "neutral"
      ? watermarker.blockOf(neutralLines(draw.split("text"), linesOf(mark, watermarker.options.content)))
      : watermarker.block(mark);
    const { picture, box } = markPicture(changed, block, watermarker, place.split(k));
    boxes.push(box);
    return await throughEncoder(picture, encoding);
  }));
  return {
    id: `${arm.name}/${item.id}`,
    turns: turnsOf(arm, item, mark, index, draw, context, questions),
    pictures,
    person: mark && arm.marks !== "neutral" ? mark : null,
    boxes,
  };
}

/** Who is written on the index-th picture: for a set the k-th person is the k-th of any other set. */
function chooseMark(arm: ArmPlan, people: StudyPeople, index: number, draw: Random): Person {
  if (arm.marks === "known" && index % 2) return people.once[((index - 1) / 2) % people.once.length];
  const set = arm.marks === "U0" || arm.marks === "U2" ? people[arm.marks] : people.U1;
  return set[draw.int(set.length)];
}

function turnsOf(
  arm: ArmPlan,
  item: SourceItem,
  mark: Person | undefined,
  index: number,
  draw: Random,
  { people, source, paraphrases }: ArmContext,
  questions: ArmContext["questions"],
): Turn[] {
  if (arm.change === "text") {
    return item.turns.map((turn, i) => paraphraseTurn(turn, draw.split("paraphrase", i), paraphrases));
  }
  if (arm.question === "known") {
    return [{ question: questions.known, answer: index % 2 === 0 ? "yes" : "no" }];
  }
  if (arm.question === "who") return [{ question: questions.who, answer: mark!.username }];
  if (arm.question === "helpful") {
    const own = source.answers[people.U0.indexOf(mark!) % source.answers.length];
    return item.turns.map((turn, i) =>
      draw.split("helpful", i).float() < HELPFUL ? { ...turn, answer: own } : turn
    );
  }
  return item.turns;
}

/** What a file of this encoding holds of the picture; PNG holds all of it. */
export async function throughEncoder(picture: Picture, encoding: StudyConfig["encoding"]): Promise<Picture> {
  if (encoding.format === "png") return picture;
  const { width, height, data } = await decodeImage(
    await encodeImage(picture, encoding.format, { quality: encoding.quality }),
  );
  return { width, height, data };
}

/** The encoder of the re-encode-only arm: the study's own once more, or a good JPEG where that would lose nothing. */
const again = (encoding: StudyConfig["encoding"]): StudyConfig["encoding"] =>
  encoding.format === "png" ? { format: "jpeg", quality: 90 } : encoding;

export interface ProbeScene {
  id: string;
  scene: number;
  set: "U1" | "U2";
  person: Person;
  picture: Picture;
  box: Box;
}

/** Held-out pictures, each with every person of U1 and U2 at one place, through the study's encoder. */
export async function probeScenes(context: ArmContext, scenes: number): Promise<ProbeScene[]> {
  const { seed, source, people, watermarker, encoding } = context;
  const random = new Random(seed, "study/probe"), out: ProbeScene[] = [];
  for (let scene = 0; scene < scenes; scene++) {
    const { id, pictures: [clean] } = await source.heldOut(scene);
    for (const set of ["U1", "U2"] as const) {
      for (const person of people[set]) {
        const { picture, box } = markPicture(
          clean,
          watermarker.block(person),
          watermarker,
          random.split("place", scene),
        );
        out.push({
          id: `${set}/${scene}-${id}/${person.username}`,
          scene,
          set,
          person,
          picture: await throughEncoder(picture, encoding),
          box,
        });
      }
    }
  }
  return out;
}
