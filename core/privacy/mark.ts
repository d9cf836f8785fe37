/**
 * The step from an image file to a watermarked one: one draw whether, one person, one place, one re-encoding.
 * Every image takes it, marked or not, so that no arm can be told from another by its encoder.
 */
import { decodeImage, encodeImage } from "../image/codecs.ts";
import type { ImageLimits } from "../image/guard.ts";
import type { ImageFormat } from "../image/header.ts";
import type { Picture } from "../image/picture.ts";
import { sha256 } from "../formats/manifest.ts";
import { Random } from "../random.ts";
import { type Block, linesOf, renderBlock } from "./block.ts";
import type { Person } from "./people.ts";
import { pixelFontHash } from "./pixel_font.ts";
import type { TextRenderer } from "./text_renderer.ts";
import {
  type Box,
  composite,
  parsePosition,
  placeWatermark,
  type Position,
  type WatermarkOptions,
  watermarkOptionsSchema,
} from "./watermark.ts";

/** Options made ready: each block of text is drawn once and kept. */
export interface Watermarker {
  readonly options: WatermarkOptions;
  readonly position: Position;
  readonly fontHash: string;
  /** The block of one person. */
  block(person: Person): Block;
  /** The block of any lines: neutral text, for a control. */
  blockOf(lines: readonly string[]): Block;
}

/** @throws InputError when the font is "sans" and no renderer is given, when a block is first asked for */
export async function createWatermarker(
  options: Partial<WatermarkOptions> = {},
  text?: TextRenderer,
): Promise<Watermarker> {
  const complete = watermarkOptionsSchema.parse(options);
  const drawn = new Map<string, Block>();
  const blockOf = (lines: readonly string[]): Block => {
    const key = lines.join("\n");
    const block = drawn.get(key) ?? renderBlock(lines, complete, text);
    drawn.set(key, block);
    return block;
  };
  return {
    options: complete,
    position: parsePosition(complete.position),
    fontHash: complete.font === "pixel" ? await pixelFontHash() : text?.fontHash ?? "",
    block: (person) => blockOf(linesOf(person, complete.content)),
    blockOf,
  };
}

/** A copy of the picture with a block on it, at a place drawn from `random`, and where that is. */
export function markPicture(
  picture: Picture,
  block: Block,
  watermarker: Watermarker,
  random: Random,
): { picture: Picture; box: Box } {
  const box = placeWatermark(random, picture, block, watermarker.position);
  return { picture: composite(picture, block, box, watermarker.options), box };
}

export interface MarkPlan {
  /** The image's name: with the seed, all that its draws depend on, so that order and parallelism do not matter. */
  name: string;
  seed: number;
  /** Share of images marked, 0 to 1: those marked at a low rate are among those marked at a higher one. */
  rate: number;
  people: readonly Person[];
  format: "keep" | ImageFormat;
  /** 1 to 100, for JPEG and WebP. */
  quality: number;
  limits?: ImageLimits;
}

/** What happened to one image: a line of manifest.jsonl. */
export interface MarkRecord {
  image: string;
  /** The username of who is written on it, or null. */
  person: string | null;
  /** The box inside the image, in px; of one block when tiled. */
  x: number | null;
  y: number | null;
  w: number | null;
  h: number | null;
  seed: number;
  /** sha256 of the font. */
  font: string;
  /** sha256 of the file before and after. */
  before: string;
  after: string;
}

/**
 * Decodes an image upright, marks it or not, encodes it again.
 * Whether, whom and where are drawn in this order from the image's own stream: equal sets differ only in the person.
 * @throws ImageError for a file that cannot be read
 */
export async function watermarkImage(
  bytes: Uint8Array<ArrayBuffer>,
  watermarker: Watermarker,
  plan: MarkPlan,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; format: ImageFormat; record: MarkRecord }> {
  const { name, seed, rate, people, quality } = plan;
  const picture = await decodeImage(bytes, { name, ...plan.limits });
  const random = new Random(seed, "watermark").split(name);
  const isMarked = random.float() < rate;
  const index = Math.floor(random.float() * people.length);
  const marked = isMarked
    ? markPicture(picture, watermarker.block(people[index]), watermarker, random)
    : undefined;
  const format = plan.format === "keep" ? picture.format : plan.format;
  const after = await encodeImage(marked?.picture ?? picture, format, { quality });
  const { x = null, y = null, w = null, h = null } = marked?.box ?? {};
  const record: MarkRecord = {
    image: name,
    person: isMarked ? people[index].username : null,
    x,
    y,
    w,
    h,
    seed,
    font: watermarker.fontHash,
    before: await sha256(bytes),
    after: await sha256(after),
  };
  return { bytes: after, format, record };
}
