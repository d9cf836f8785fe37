/**
 * Watermarks: mixed as Pillow mixes, placed where they fit, paired between sets, every arm re-encoded alike.
 * The fixtures were made by Pillow 13 with `alpha_composite`; all of them are 40x24 noise under a 16x16 mask.
 */
import assert from "node:assert/strict";
import { decodeImage, encodeImage } from "../core/image/codecs.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { type Block, linesOf, renderBlock, rotateBlock } from "../core/privacy/block.ts";
import { createWatermarker, markPicture, type MarkPlan, watermarkImage } from "../core/privacy/mark.ts";
import { generateSets } from "../core/privacy/people.ts";
import { drawPixelText, GLYPHS } from "../core/privacy/pixel_font.ts";
import { createTextRenderer } from "../core/privacy/text_renderer.ts";
import {
  composite,
  parsePosition,
  placeWatermark,
  TINY_WATERMARK,
  watermarkOptionsSchema,
} from "../core/privacy/watermark.ts";
import { Random } from "../core/random.ts";
import { readFontFiles } from "../scripts/fonts.ts";
import { FIXTURES } from "./check.ts";

const fixture = async (name: string) =>
  await decodeImage(await Deno.readFile(`${FIXTURES}/watermark/${name}.png`));
const { U1, U2 } = generateSets(1, { U1: 20, U2: 20 });
const text = await createTextRenderer(await readFontFiles());

/** A smooth picture, so that JPEG and WebP keep it nearly. */
function gradient(width: number, height: number): Picture {
  const picture = blankPicture(width, height);
  for (let i = 0; i < picture.data.length; i++) picture.data[i] = (i * 7) / width % 200;
  return picture;
}

function differing(a: Picture, b: Picture): [number, number][] {
  const places: [number, number][] = [];
  for (let i = 0; i < a.width * a.height; i++) {
    if ([0, 1, 2].some((c) => a.data[3 * i + c] !== b.data[3 * i + c])) {
      places.push([i % a.width, Math.floor(i / a.width)]);
    }
  }
  return places;
}

Deno.test("compositing equals Pillow's alpha_composite in every byte", async () => {
  const base = await fixture("base"), mask = await fixture("mask"), pillow = await fixture("pillow");
  const block: Block = { width: 16, height: 16, coverage: mask.data.filter((_, i) => i % 3 === 0) };
  assert.equal(new Set(block.coverage).size, 256);
  const cases = [
    { color: "#ffffff", opacity: 128 / 255, x: 3, y: 5 },
    { color: "#ffffff", opacity: 0.8, x: 24, y: 0 },
    { color: "#ffa010", opacity: 1, x: 0, y: 8 },
    { color: "#090028", opacity: 77 / 255, x: 20, y: 4 },
    { color: "#ffffff", opacity: 128 / 255, x: 30, y: 14 }, // hangs over the edge
  ];
  cases.forEach(({ x, y, ...look }, i) => {
    const ours = composite(base, block, { x, y }, { ...look, tile: null });
    const theirs = pillow.data.subarray(i * base.data.length, (i + 1) * base.data.length);
    assert.deepEqual(ours.data, theirs, `case ${i}`);
    assert.notDeepEqual(ours.data, base.data);
  });
});

Deno.test("the study's block in DejaVu Sans has Pillow's size within 2 px", () => {
  const lines = ["username: Leon Rahman", "user_id: 0000142293", "gender: Male", "age: 25"];
  lines.push("capture_time: 2022-06-24 12:59:07", "capture_location: Karachi, Pakistan");
  const block = renderBlock(lines, watermarkOptionsSchema.parse({}), text);
  // ImageDraw.multiline_textbbox of the same lines, font and size: 179 x 80.
  assert(
    Math.abs(block.width - 179) <= 2 && Math.abs(block.height - 80) <= 2,
    `${block.width} x ${block.height}`,
  );
  const larger = renderBlock(lines, watermarkOptionsSchema.parse({ size: 20 }), text);
  assert(Math.abs(larger.width / block.width - 2) < 0.05);
});

Deno.test("characters the font lacks are refused, not drawn as boxes", () => {
  assert(text.draw(["Ωмир é \u00a0 ½"], 10).width > 40);
  assert.throws(
    () => text.draw(["age: 3", "name: 東京"], 10),
    /Cannot draw "age: 3 \/ name: 東京": the font has no "東"/,
  );
  assert.throws(() => text.draw([" "], 10), /the font has no ink for it/);
});

Deno.test("a person's lines: keys and values, values, or eight characters each", () => {
  const [person] = U1;
  const full = linesOf(person, "full");
  assert.equal(full.length, 6);
  assert.equal(full[0], `username: ${person.username}`);
  assert.equal(full[5], `capture_location: ${person.capture_location}`);
  assert.deepEqual(linesOf(person, "values"), Object.values(person).map(String));
  const anna = {
    username: "Anna Maria Lopes",
    user_id: "0000123456",
    gender: "Non-binary",
    age: 31,
    capture_time: "2021-03-04 05:06:07",
    capture_location: "Cluj-Napoca, Romania",
  } as const;
  assert.deepEqual(linesOf(anna, "compact"), [
    "Ann Lope",
    "00123456",
    "Non-bina",
    "31",
    "20210304",
    "Cluj-Nap",
  ]);
});

Deno.test("the pixel font has no two glyphs alike and draws what its table shows", () => {
  const drawings = Object.values(GLYPHS);
  assert.equal(new Set(drawings).size, drawings.length);
  assert(drawings.every((rows) => /^([.#]{3} ){4}[.#]{3}$/.test(rows)));
  const { width, height, coverage } = drawPixelText(["l1"]);
  assert.deepEqual([width, height], [8, 6]);
  const rows = Array.from(
    { length: 6 },
    (_, y) => Array.from(coverage.subarray(y * 8, y * 8 + 8), (v) => v ? "#" : ".").join(""),
  );
  assert.deepEqual(rows, ["#....#..", "#...##..", "#....#..", "#....#..", "###.###.", "........"]);
  const ink = (lines: string[], scale: number) =>
    drawPixelText(lines, { scale }).coverage.filter(Boolean).length;
  assert.equal(ink(["Ab9", "x"], 3), 9 * ink(["Ab9", "x"], 1));
  assert.deepEqual(drawPixelText(["é~"]), drawPixelText(["E?"]));
});

Deno.test("every compact block is 32 x 36, and a 16-px grid on 64 x 64 has six places for it", async () => {
  const watermarker = await createWatermarker(TINY_WATERMARK);
  const places = new Set<string>();
  for (const person of [...U1, ...U2]) {
    const block = watermarker.block(person);
    assert.deepEqual([block.width, block.height], [32, 36]);
    for (let i = 0; i < 10; i++) {
      const random = new Random(i, person.user_id);
      const { box } = markPicture(blankPicture(64, 64), block, watermarker, random);
      places.add(`${box.x},${box.y}`);
    }
  }
  assert.deepEqual([...places].sort(), ["0,0", "0,16", "16,0", "16,16", "32,0", "32,16"]);
});

Deno.test("random places are uniform where the block fits, and 0 where it does not", () => {
  const random = new Random(1), counts = new Map<number, number>();
  for (let i = 0; i < 5000; i++) {
    const box = placeWatermark(random, { width: 14, height: 5 }, { width: 10, height: 8 }, {
      kind: "random",
    });
    assert.deepEqual([box.y, box.w, box.h], [0, 10, 5]);
    counts.set(box.x, (counts.get(box.x) ?? 0) + 1);
  }
  assert.deepEqual([...counts.keys()].sort(), [0, 1, 2, 3, 4]);
  // Five places, 1000 each, standard deviation 28.
  for (const [x, n] of counts) assert(Math.abs(n - 1000) < 140, `place ${x} was drawn ${n} times`);
});

Deno.test("positions: corners, grids, fixed places, and what is refused", () => {
  const place = (position: string, seed = 1) =>
    placeWatermark(
      new Random(seed),
      { width: 50, height: 40 },
      { width: 10, height: 10 },
      parsePosition(position),
    );
  assert.deepEqual(place("corner:bottom-right"), { x: 40, y: 30, w: 10, h: 10 });
  assert.deepEqual(place("corner:top-left"), { x: 0, y: 0, w: 10, h: 10 });
  assert.deepEqual(place("fixed:45,3"), { x: 45, y: 3, w: 5, h: 10 });
  const corners = new Set(Array.from({ length: 40 }, (_, seed) => JSON.stringify(place("corner", seed))));
  assert.equal(corners.size, 4);
  for (let seed = 0; seed < 50; seed++) {
    const { x, y } = place("grid:20", seed);
    assert(x % 20 === 0 && y % 20 === 0 && x <= 40 && y <= 30);
  }
  assert.throws(() => place("fixed:50,3"), /Cannot place the watermark at 50,3: the picture is 50x40/);
  for (const bad of ["grid:0", "grid", "fixed:1", "fixed:-1,2", "corner:middle", "center", "random:3"]) {
    assert.throws(() => parsePosition(bad), /Cannot place a watermark/, bad);
    assert.equal(watermarkOptionsSchema.safeParse({ position: bad }).success, false);
  }
});

Deno.test("a quarter turn moves every pixel exactly, and a full turn none", () => {
  const block = drawPixelText(["F1"]);
  const turned = rotateBlock(block, 90);
  assert.deepEqual([turned.width, turned.height], [block.height, block.width]);
  for (let y = 0; y < block.height; y++) {
    for (let x = 0; x < block.width; x++) {
      const to = (block.width - 1 - x) * turned.width + y; // counter-clockwise
      assert.equal(turned.coverage[to], block.coverage[y * block.width + x]);
    }
  }
  assert.deepEqual(rotateBlock(rotateBlock(block, 90), -90), block);
  assert.deepEqual(rotateBlock(block, 360), block);
  // Turned by any angle the ink stays: its sum changes by interpolation at the rim only.
  const sum = (b: Block) => b.coverage.reduce((a, v) => a + v, 0);
  const solid: Block = { width: 40, height: 20, coverage: new Uint8Array(800).fill(255) };
  for (const angle of [10, 33, 135]) assert(Math.abs(sum(rotateBlock(solid, angle)) / sum(solid) - 1) < 0.02);
});

Deno.test("tiling repeats the block with its gap over the whole picture", () => {
  const dot: Block = { width: 2, height: 1, coverage: new Uint8Array([255, 255]) };
  const out = composite(blankPicture(11, 6), dot, { x: 6, y: 4 }, { color: "#ffffff", opacity: 1, tile: 2 });
  const columns = [2, 3, 6, 7, 10], expected = [1, 4].flatMap((y) => columns.map((x) => [x, y]));
  assert.deepEqual(differing(out, blankPicture(11, 6)), expected);
});

const plan = (over: Partial<MarkPlan> = {}): MarkPlan => ({
  name: "a.png",
  seed: 1,
  rate: 1,
  people: U1,
  format: "keep",
  quality: 95,
  ...over,
});

Deno.test("one image: the same bytes each time, the box holds every change, the record tells all", async () => {
  const watermarker = await createWatermarker({}, text);
  const original = gradient(300, 200), file = await encodeImage(original, "png");
  const { bytes, format, record } = await watermarkImage(file, watermarker, plan());
  const again = await watermarkImage(file, await createWatermarker({}, text), plan());
  assert.deepEqual(again.bytes, bytes);
  assert.equal(format, "png");
  assert(U1.some((person) => person.username === record.person));
  assert.equal(record.font, text.fontHash);
  assert.notEqual(record.before, record.after);
  const places = differing(await decodeImage(bytes), original);
  assert(places.length > 300, `${places.length} pixels changed`);
  const { x, y, w, h } = record as { x: number; y: number; w: number; h: number };
  assert(places.every(([px, py]) => px >= x && px < x + w && py >= y && py < y + h));
  assert(places.some(([px]) => px === x) && places.some(([, py]) => py === y));
});

Deno.test("unmarked images are decoded and encoded like marked ones", async () => {
  const watermarker = await createWatermarker(TINY_WATERMARK);
  const original = gradient(64, 64);
  for (const format of ["png", "jpeg", "webp"] as const) {
    const file = await encodeImage(original, "png");
    const { bytes, record } = await watermarkImage(file, watermarker, plan({ rate: 0, format }));
    assert.deepEqual([record.person, record.x, record.w], [null, null, null]);
    assert.deepEqual(bytes, await encodeImage(original, format, { quality: 95 }), format);
    const marked = await watermarkImage(file, watermarker, plan({ format }));
    assert.equal((await decodeImage(marked.bytes)).format, format);
    assert.notDeepEqual(marked.bytes, bytes);
  }
});

Deno.test("sets of equal size are paired: same images, same places; a lower rate marks a subset", async () => {
  const watermarker = await createWatermarker(TINY_WATERMARK);
  const file = await encodeImage(gradient(64, 64), "png");
  let half = 0;
  for (let i = 0; i < 60; i++) {
    const name = `train/${i}.png`;
    const run = async (over: Partial<MarkPlan>) =>
      (await watermarkImage(file, watermarker, plan({ name, ...over }))).record;
    const [one, two, some] = [await run({}), await run({ people: U2 }), await run({ rate: 0.5 })];
    assert.deepEqual([one.x, one.y, one.w, one.h], [two.x, two.y, two.w, two.h]);
    assert.equal(
      U1.findIndex((p) => p.username === one.person),
      U2.findIndex((p) => p.username === two.person),
    );
    if (some.person !== null) {
      half++;
      assert.deepEqual(some, one);
    }
  }
  assert(half > 15 && half < 45, `${half} of 60 marked at rate 0.5`); // 30 +- 3.9
});

Deno.test("the outline font without a renderer is refused, and broken files by name", async () => {
  const sans = await createWatermarker({});
  assert.throws(() => sans.block(U1[0]), /Cannot draw in the font "sans": no text renderer/);
  const bytes = new TextEncoder().encode("no picture") as Uint8Array<ArrayBuffer>;
  await assert.rejects(watermarkImage(bytes, sans, plan({ name: "x/y.jpg" })), /x\/y\.jpg/);
});
