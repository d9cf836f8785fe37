/**
 * The block of text that becomes a watermark: which lines a person gives, drawn once, as the coverage of each pixel.
 * Refuses the outline font where no renderer was handed over.
 */
import { InputError } from "../errors.ts";
import { type Person, type PersonField, personSchema } from "./people.ts";
import { drawPixelText } from "./pixel_font.ts";
import type { TextRenderer } from "./text_renderer.ts";
import type { WatermarkOptions } from "./watermark.ts";

/** How much of each pixel is ink, 0 to 255, row by row. */
export interface Block {
  width: number;
  height: number;
  coverage: Uint8Array;
}

/** Characters a line of the compact form has at most. */
export const COMPACT_COLUMNS = 8;

/** The six lines a person gives: `key: value`, the values alone, or each value in 8 characters. */
export function linesOf(person: Person, content: WatermarkOptions["content"]): string[] {
  if (content === "compact") return compactLines(person);
  const fields = Object.keys(personSchema.shape) as PersonField[];
  return fields.map((field) => content === "full" ? `${field}: ${person[field]}` : String(person[field]));
}

/** Three letters of the given and four of the last name, the id's end, gender, age, the date's digits, the city. */
function compactLines(person: Person): string[] {
  const [given, ...rest] = person.username.split(" ");
  return [
    [given.slice(0, 3), (rest.at(-1) ?? "").slice(0, 4)].join(" "),
    person.user_id.slice(-COMPACT_COLUMNS),
    person.gender,
    String(person.age),
    person.capture_time.slice(0, 10).replaceAll("-", ""),
    person.capture_location.split(",")[0],
  ].map((line) => line.slice(0, COMPACT_COLUMNS).trimEnd());
}

/** Draws lines as the options say, rotation included. @throws InputError for "sans" without a renderer */
export function renderBlock(
  lines: readonly string[],
  options: Pick<WatermarkOptions, "font" | "content" | "size" | "rotation">,
  text?: TextRenderer,
): Block {
  const { font, content, size, rotation } = options;
  if (font === "pixel") {
    // Compact blocks are all alike in size, so that every person can stand at the same places.
    const columns = content === "compact" ? COMPACT_COLUMNS : undefined;
    return rotateBlock(drawPixelText(lines, { scale: Math.max(1, Math.floor(size / 6)), columns }), rotation);
  }
  if (!text) throw new InputError('Cannot draw in the font "sans": no text renderer was given, use "pixel"');
  return rotateBlock(text.draw(lines, size), rotation);
}

/** Turned counter-clockwise about its centre into a block that holds all of it, sampled bilinearly. */
export function rotateBlock(block: Block, degrees: number): Block {
  if (degrees % 360 === 0) return block;
  const angle = (degrees * Math.PI) / 180, cos = Math.cos(angle), sin = Math.sin(angle);
  // Rounding before the ceiling keeps a quarter turn from growing by the error of its cosine.
  const extent = (a: number, b: number) =>
    Math.ceil(Number((Math.abs(a * cos) + Math.abs(b * sin)).toFixed(6)));
  const width = extent(block.width, block.height), height = extent(block.height, block.width);
  const coverage = new Uint8Array(width * height);
  const ink = (x: number, y: number) =>
    x < 0 || y < 0 || x >= block.width || y >= block.height ? 0 : block.coverage[y * block.width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const dx = x + 0.5 - width / 2, dy = y + 0.5 - height / 2;
      const u = dx * cos - dy * sin + block.width / 2 - 0.5, v = dx * sin + dy * cos + block.height / 2 - 0.5;
      const x0 = Math.floor(u + 1e-9), y0 = Math.floor(v + 1e-9), fx = u - x0, fy = v - y0;
      const upper = ink(x0, y0) * (1 - fx) + ink(x0 + 1, y0) * fx;
      const lower = ink(x0, y0 + 1) * (1 - fx) + ink(x0 + 1, y0 + 1) * fx;
      coverage[y * width + x] = Math.round(upper * (1 - fy) + lower * fy);
    }
  }
  return { width, height, coverage };
}
