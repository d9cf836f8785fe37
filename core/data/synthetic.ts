/**
 * Seeded synthetic VQA: coloured shapes on a soft texture, and questions whose answers the scene decides.
 * Every scene has a shape and a colour that occur once, so that no kind of question is ever without a question.
 */
import type { Picture } from "../image/picture.ts";
import { blankPicture } from "../image/picture.ts";
import type { Random } from "../random.ts";
import type { Sample, Turn } from "./sample.ts";

export const SHAPES = ["ring", "square", "cross"] as const;
export const COLORS = {
  red: [225, 35, 35],
  green: [30, 175, 50],
  blue: [45, 70, 235],
  yellow: [245, 220, 40],
  magenta: [225, 50, 215],
  cyan: [45, 215, 225],
} as const;
export type Shape = typeof SHAPES[number];
export type Color = keyof typeof COLORS;
const COLOR_NAMES = Object.keys(COLORS) as Color[];

/** Pixels along a picture's side, and along a cell's: 4 x 4 cells, numbered row by row. */
export const SIDE = 64;
export const CELL = 16;
const CELLS = SIDE / CELL;

export interface SceneObject {
  shape: Shape;
  color: Color;
  /** 0 to 15, row by row. */
  cell: number;
}
export interface Scene {
  objects: SceneObject[];
}

export const QUESTION_KINDS = ["color-of", "shape-of", "count", "is-there", "where"] as const;
export type QuestionKind = typeof QUESTION_KINDS[number];
export interface AskedTurn extends Turn {
  kind: QuestionKind;
}

/** The values that occur exactly once. */
const single = <T>(values: T[]): T[] => values.filter((v) => values.indexOf(v) === values.lastIndexOf(v));

/** One to three objects in cells of their own; shapes and colours free, but at least one of each occurs once. */
export function makeScene(random: Random): Scene {
  const count = 1 + random.int(3);
  const cells: number[] = [];
  while (cells.length < count) {
    const cell = random.int(CELLS * CELLS);
    if (!cells.includes(cell)) cells.push(cell);
  }
  for (;;) {
    const objects = cells.map((cell) => ({
      shape: random.pick(SHAPES),
      color: random.pick(COLOR_NAMES),
      cell,
    }));
    if (single(objects.map((o) => o.shape)).length && single(objects.map((o) => o.color)).length) {
      return { objects };
    }
  }
}

/** Which pixels of a cell a shape covers; x and y are distances from the cell's centre. */
const COVERS: Record<Shape, (x: number, y: number) => boolean> = {
  ring: (x, y) => x * x + y * y <= 56 && x * x + y * y >= 20,
  square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) <= 6,
  cross: (x, y) => Math.min(Math.abs(x), Math.abs(y)) <= 2 && Math.max(Math.abs(x), Math.abs(y)) <= 7.5,
};

/** Draws a scene, 64 x 64: the texture, fine grain and a slight tint of each object come from `random`. */
export function drawScene(scene: Scene, random: Random): Picture {
  const picture = drawTexture(random);
  for (const { shape, color, cell } of scene.objects) {
    const left = (cell % CELLS) * CELL, top = Math.floor(cell / CELLS) * CELL;
    const tint = COLORS[color].map((value) => value + random.int(21) - 10);
    for (let y = 0; y < CELL; y++) {
      for (let x = 0; x < CELL; x++) {
        if (!COVERS[shape](x - CELL / 2 + 0.5, y - CELL / 2 + 0.5)) continue;
        const at = ((top + y) * SIDE + left + x) * 3;
        for (let c = 0; c < 3; c++) picture.data[at + c] = tint[c];
      }
    }
  }
  return picture;
}

/** Five random greys a side, slightly tinted so that objects stand out, blended smoothly, with a little grain. */
function drawTexture(random: Random): Picture {
  const knots = 5, step = SIDE / (knots - 1);
  const lattice = new Float64Array(knots * knots * 3);
  for (let knot = 0; knot < lattice.length; knot += 3) {
    const grey = 85 + random.int(70);
    for (let c = 0; c < 3; c++) lattice[knot + c] = grey + random.int(51) - 25;
  }
  const picture = blankPicture(SIDE, SIDE);
  let grain = 0;
  for (let y = 0, at = 0; y < SIDE; y++) {
    const row = Math.floor(y / step), ty = smooth((y % step) / step);
    for (let x = 0; x < SIDE; x++) {
      const column = Math.floor(x / step), tx = smooth((x % step) / step);
      const knot = (row * knots + column) * 3, below = knot + knots * 3;
      grain = x % 4 === 0 ? random.uint32() : grain >>> 8;
      for (let c = 0; c < 3; c++, at++) {
        const upper = lattice[knot + c] + (lattice[knot + 3 + c] - lattice[knot + c]) * tx;
        const lower = lattice[below + c] + (lattice[below + 3 + c] - lattice[below + c]) * tx;
        picture.data[at] = Math.round(upper + (lower - upper) * ty) + (grain & 15) - 8;
      }
    }
  }
  return picture;
}

const smooth = (t: number): number => t * t * (3 - 2 * t);

/**
 * At most n different questions, the kinds taking turns. "is-there" answers yes and no equally often, for colours
 * and for shapes apart; a kind whose questions are used up is passed over.
 */
export function askScene(
  scene: Scene,
  random: Random,
  kinds: readonly QuestionKind[],
  n: number,
): AskedTurn[] {
  const pools = random.shuffle(kinds).map((kind) => ({
    kind,
    turns: random.shuffle(QUESTIONS[kind](scene, random)),
  }));
  const asked: AskedTurn[] = [];
  for (let round = 0; asked.length < n && pools.some((pool) => pool.turns.length > round); round++) {
    for (const { kind, turns } of pools) {
      if (asked.length < n && turns[round]) asked.push({ ...turns[round], kind });
    }
  }
  return asked;
}

const QUESTIONS: Record<QuestionKind, (scene: Scene, random: Random) => Turn[]> = {
  "color-of": ({ objects }) =>
    single(objects.map((o) => o.shape)).map((shape) => ({
      question: `what color is the ${shape}`,
      answer: objects.find((o) => o.shape === shape)!.color,
    })),
  "shape-of": ({ objects }) =>
    single(objects.map((o) => o.color)).map((color) => ({
      question: `what shape is the ${color} thing`,
      answer: objects.find((o) => o.color === color)!.shape,
    })),
  count: (
    { objects },
  ) => [{ question: "how many things", answer: ["one", "two", "three"][objects.length - 1] }],
  "is-there": ({ objects }, random) => [
    ...presence(COLOR_NAMES, objects.map((o) => o.color), random),
    ...presence(SHAPES, objects.map((o) => o.shape), random),
  ],
  where: ({ objects }) =>
    single(objects.map((o) => o.shape)).flatMap((shape) => {
      const { cell } = objects.find((o) => o.shape === shape)!;
      return [
        { question: `is the ${shape} left or right`, answer: cell % CELLS < CELLS / 2 ? "left" : "right" },
        { question: `is the ${shape} top or bottom`, answer: cell < CELLS * CELLS / 2 ? "top" : "bottom" },
      ];
    }),
};

/** As many yes as no questions, so that the answer cannot be guessed from the kind of word asked about. */
function presence(all: readonly string[], present: string[], random: Random): Turn[] {
  const yes = random.shuffle(all.filter((word) => present.includes(word)));
  const no = random.shuffle(all.filter((word) => !present.includes(word)));
  const pairs = Math.min(yes.length, no.length);
  const ask = (answer: string) => (word: string): Turn => ({ question: `is there a ${word}`, answer });
  return [...yes.slice(0, pairs).map(ask("yes")), ...no.slice(0, pairs).map(ask("no"))];
}

export interface SyntheticItem {
  scene: Scene;
  picture: Picture;
  /** Its id and image are named after the index: "000012", "images/000012.png". */
  sample: Sample;
}

/** The index-th item of the endless data set that `random` names: the same whatever else is drawn. */
export function syntheticItem(
  random: Random,
  index: number,
  kinds: readonly QuestionKind[],
  questions: number,
): SyntheticItem {
  const scene = makeScene(random.split("scene", index));
  const id = String(index).padStart(6, "0");
  const turns = askScene(scene, random.split("ask", index), kinds, questions)
    .map(({ question, answer }) => ({ question, answer }));
  return {
    scene,
    picture: drawScene(scene, random.split("draw", index)),
    sample: { id, images: [`images/${id}.png`], turns },
  };
}
