/**
 * Synthetic VQA: the same for a seed, answers true of the scene and of the pixels, and nothing to guess from.
 */
import assert from "node:assert/strict";
import {
  askScene,
  CELL,
  COLORS,
  drawScene,
  makeScene,
  QUESTION_KINDS,
  type Scene,
  SHAPES,
  SIDE,
  syntheticItem,
} from "../core/data/synthetic.ts";
import { tinyTokenizer } from "../core/text/tiny.ts";
import { Random } from "../core/random.ts";

const scene: Scene = {
  objects: [
    { shape: "ring", color: "red", cell: 0 },
    { shape: "square", color: "blue", cell: 15 },
    { shape: "square", color: "cyan", cell: 9 },
  ],
};

Deno.test("the questions about one scene and their answers, worked out by hand", () => {
  const all = (kind: typeof QUESTION_KINDS[number]) =>
    askScene(scene, new Random(1), [kind], 99).map(({ question, answer }) => `${question}: ${answer}`).sort();
  assert.deepEqual(all("color-of"), ["what color is the ring: red"]);
  assert.deepEqual(all("shape-of"), [
    "what shape is the blue thing: square",
    "what shape is the cyan thing: square",
    "what shape is the red thing: ring",
  ]);
  assert.deepEqual(all("count"), ["how many things: three"]);
  assert.deepEqual(all("where"), ["is the ring left or right: left", "is the ring top or bottom: top"]);
  const there = all("is-there");
  // Three colours are there and three are not; of the shapes two are there, so one of them is paired with "cross".
  assert.equal(there.filter((line) => line.endsWith(": yes")).length, 4);
  assert.equal(there.filter((line) => line.endsWith(": no")).length, 4);
  assert(there.includes("is there a cross: no") && there.includes("is there a red: yes"));
});

Deno.test("an item is fixed by seed and index, whatever else is drawn", () => {
  const first = syntheticItem(new Random(3), 7, QUESTION_KINDS, 5);
  const random = new Random(3);
  for (let i = 0; i < 7; i++) syntheticItem(random, i, QUESTION_KINDS, 5);
  assert.deepEqual(syntheticItem(random, 7, QUESTION_KINDS, 5), first);
  assert.notDeepEqual(syntheticItem(new Random(4), 7, QUESTION_KINDS, 5).picture, first.picture);
  assert.deepEqual(first.sample.images, ["images/000007.png"]);
});

Deno.test("4,000 scenes: one to three objects in cells of their own, every kind of question possible", () => {
  const random = new Random(5);
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < 4000; i++) {
    const { objects } = makeScene(random);
    counts[objects.length]++;
    assert.equal(new Set(objects.map((o) => o.cell)).size, objects.length);
    for (const kind of QUESTION_KINDS) assert(askScene({ objects }, random, [kind], 1).length === 1, kind);
  }
  // 4000 / 3 with a standard deviation of 30.
  for (const n of counts.slice(1)) assert(Math.abs(n - 4000 / 3) < 150, String(counts));
});

Deno.test("yes and no are equally frequent for colours and for shapes, and questions do not repeat", () => {
  const random = new Random(6);
  const yes: Record<string, [number, number]> = {};
  for (let i = 0; i < 3000; i++) {
    const asked = askScene(makeScene(random), random, QUESTION_KINDS, 6);
    assert.equal(new Set(asked.map((turn) => turn.question)).size, asked.length);
    for (const { question, answer, kind } of asked) {
      if (kind !== "is-there") continue;
      const word = question.slice("is there a ".length);
      const tally = yes[word in COLORS ? "color" : "shape"] ??= [0, 0];
      tally[answer === "yes" ? 1 : 0]++;
    }
  }
  for (const [what, [no, yeses]] of Object.entries(yes)) {
    const z = (yeses - no) / Math.sqrt(yeses + no);
    assert(Math.abs(z) < 4 && yeses > 500, `${what}: ${yeses} yes, ${no} no`);
  }
});

Deno.test("the pixels show what the scene says: colour and outline of every object", () => {
  const random = new Random(8);
  const nearest = (rgb: number[]) => {
    const distance = (color: readonly number[]) => color.reduce((sum, v, c) => sum + (v - rgb[c]) ** 2, 0);
    const [name, color] = Object.entries(COLORS).sort((a, b) => distance(a[1]) - distance(b[1]))[0];
    return distance(color) < 400 ? name : "background";
  };
  for (let i = 0; i < 200; i++) {
    const scene = makeScene(random), picture = drawScene(scene, random);
    assert.equal(picture.data.length, SIDE * SIDE * 3);
    for (const { shape, color, cell } of scene.objects) {
      const at = (x: number, y: number) => {
        const from = (((cell >> 2) * CELL + y) * SIDE + (cell & 3) * CELL + x) * 3;
        return nearest([...picture.data.subarray(from, from + 3)]);
      };
      // The middle is hollow in a ring, the corner filled in a square only, the arm's end in a ring and a cross.
      assert.deepEqual(
        [at(8, 8), at(2, 2), at(8, 1)].map((seen) => seen === color),
        {
          ring: [false, false, true],
          square: [true, true, false],
          cross: [true, false, true],
        }[shape],
      );
    }
  }
});

Deno.test("every word of every question and answer is one token of the built-in tokenizer", () => {
  const random = new Random(9), words = new Set<string>();
  for (let i = 0; i < 2000; i++) {
    for (const { question, answer } of askScene(makeScene(random), random, QUESTION_KINDS, 99)) {
      for (const word of `${question} ${answer}`.split(" ")) words.add(word);
    }
  }
  for (const word of [...SHAPES, ...Object.keys(COLORS)]) assert(words.has(word), word);
  for (const word of words) assert.equal(tinyTokenizer.encode(word).length, 1, word);
});
