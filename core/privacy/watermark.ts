/**
 * Watermarks on pictures: where a block of text goes, and how its ink is mixed in, rounded as PIL rounds.
 * Refuses options out of range and fixed places outside the picture.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import type { Picture } from "../image/picture.ts";
import type { Random } from "../random.ts";
import type { Block } from "./block.ts";

/** A watermark that the built-in model can read in its pictures of 64 x 64. */
export const TINY_WATERMARK = {
  font: "pixel",
  content: "compact",
  opacity: 0.8,
  position: "grid:16",
} as const;

/** The study's watermark is the default. */
export const watermarkOptionsSchema = z.object({
  font: z.enum(["sans", "pixel"]).default("sans").describe("DejaVu Sans, or 3x5 pixels for small pictures"),
  content: z.enum(["full", "values", "compact"]).default("full")
    .describe('lines "key: value", values alone, or values cut to 8 characters'),
  size: z.number().min(4).max(400).default(10).describe(
    "font size in px; the pixel font grows by whole multiples of 6",
  ),
  color: z.string().regex(/^#[0-9a-f]{6}$/i, { error: 'expected a colour like "#ffffff"' }).default("#ffffff")
    .describe("colour of the text"),
  opacity: z.number().min(0).max(1).default(128 / 255).describe("0 to 1"),
  position: z.string().default("random").refine(isPosition, {
    error: "expected " + "random, corner, corner:top-left, grid:16 or fixed:10,20",
  })
    .describe("random, corner, corner:top-left (or another), grid:PX or fixed:X,Y"),
  rotation: z.number().min(-360).max(360).default(0).describe("degrees, counter-clockwise"),
  tile: z.number().int().min(0).max(10_000).nullable().default(null)
    .describe("repeat over the whole picture with this gap in px"),
});
export type WatermarkOptions = z.infer<typeof watermarkOptionsSchema>;

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

const CORNERS = ["top-left", "top-right", "bottom-left", "bottom-right"] as const;
export type Position =
  | { kind: "random" }
  | { kind: "corner"; corner?: (typeof CORNERS)[number] }
  | { kind: "grid"; step: number }
  | { kind: "fixed"; x: number; y: number };

function readPosition(text: string): Position | undefined {
  if (text === "random" || text === "corner") return { kind: text };
  const [kind, value = ""] = text.split(":", 2);
  const corner = CORNERS.find((name) => name === value);
  if (kind === "corner" && corner) return { kind, corner };
  if (kind === "grid" && /^[1-9]\d{0,4}$/.test(value)) return { kind, step: Number(value) };
  const place = /^(\d{1,5}),(\d{1,5})$/.exec(value);
  if (kind === "fixed" && place) return { kind, x: Number(place[1]), y: Number(place[2]) };
}

function isPosition(text: string): boolean {
  return readPosition(text) !== undefined;
}

/** A position from text: `random`, `corner`, `corner:top-left`, `grid:16`, `fixed:10,20`. @throws InputError otherwise */
export function parsePosition(text: string): Position {
  const position = readPosition(text);
  if (!position) {
    throw new InputError(
      `Cannot place a watermark at "${text}": expected random, corner, corner:top-left, grid:16 or fixed:10,20`,
    );
  }
  return position;
}

/**
 * Draws a place for the block: uniform over those where it fits (0 in a direction where it does not).
 * Always two draws of the stream, so that pictures marked with different blocks stay paired.
 * @returns the box, cut to the picture @throws InputError for a fixed place outside the picture
 */
export function placeWatermark(
  random: Random,
  picture: { width: number; height: number },
  block: { width: number; height: number },
  position: Position,
): Box {
  const u = random.float(), v = random.float();
  const freeX = Math.max(0, picture.width - block.width), freeY = Math.max(0, picture.height - block.height);
  const [x, y] = placeOf(position, u, v, freeX, freeY);
  if (x >= picture.width || y >= picture.height) {
    throw new InputError(
      `Cannot place the watermark at ${x},${y}: the picture is ${picture.width}x${picture.height}`,
    );
  }
  return { x, y, w: Math.min(block.width, picture.width - x), h: Math.min(block.height, picture.height - y) };
}

function placeOf(position: Position, u: number, v: number, freeX: number, freeY: number): [number, number] {
  switch (position.kind) {
    case "random":
      return [Math.floor(u * (freeX + 1)), Math.floor(v * (freeY + 1))];
    case "grid": {
      const cell = (w: number, free: number) =>
        position.step * Math.floor(w * (Math.floor(free / position.step) + 1));
      return [cell(u, freeX), cell(v, freeY)];
    }
    case "corner": {
      const corner = position.corner ?? CORNERS[Math.floor(u * CORNERS.length)];
      return [corner.endsWith("left") ? 0 : freeX, corner.startsWith("top") ? 0 : freeY];
    }
    case "fixed":
      return [position.x, position.y];
  }
}

/**
 * A copy of the picture with the block on it, its top-left corner at (x, y), repeated everywhere when tiled.
 * Mixes in 8 bits as PIL's `alpha_composite` does over an opaque picture (Pillow, AlphaComposite.c).
 */
export function composite(
  picture: Picture,
  block: Block,
  { x, y }: { x: number; y: number },
  { color, opacity, tile }: Pick<WatermarkOptions, "color" | "opacity" | "tile">,
): Picture {
  const out: Picture = { width: picture.width, height: picture.height, data: picture.data.slice() };
  const ink = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const alpha = Math.round(opacity * 255);
  const stepX = tile === null ? Infinity : block.width + tile,
    stepY = tile === null ? Infinity : block.height + tile;
  const first = (at: number, step: number) => step === Infinity ? at : (at % step) - step;
  for (let top = first(y, stepY); top < out.height; top += stepY) {
    for (let left = first(x, stepX); left < out.width; left += stepX) {
      stamp(out, block, left, top, ink, alpha);
    }
  }
  return out;
}

/** a * b / 255, rounded. */
const scale255 = (a: number, b: number) => {
  const product = a * b + 128;
  return ((product >> 8) + product) >> 8;
};

function stamp(out: Picture, block: Block, left: number, top: number, ink: number[], alpha: number): void {
  const endX = Math.min(block.width, out.width - left), endY = Math.min(block.height, out.height - top);
  for (let y = Math.max(0, -top); y < endY; y++) {
    for (let x = Math.max(0, -left); x < endX; x++) {
      const a = scale255(block.coverage[y * block.width + x], alpha);
      if (a === 0) continue;
      const at = ((top + y) * out.width + left + x) * 3;
      for (let c = 0; c < 3; c++) {
        // Pillow carries seven more bits through the mix and rounds once.
        const mixed = ((ink[c] * a + out.data[at + c] * (255 - a)) << 7) + (128 << 7);
        out.data[at + c] = ((mixed >> 8) + mixed) >> 8 >> 7;
      }
    }
  }
}
