/**
 * Text in a real font: DejaVu Sans outlines through resvg, as the coverage of each pixel.
 * It reads no file and no system font: the caller hands over the WebAssembly and the font, whose hash names it.
 */
import { initWasm, Resvg } from "@resvg/resvg-wasm";
import { InputError } from "../errors.ts";
import { sha256 } from "../formats/manifest.ts";
import type { Block } from "./block.ts";

export interface TextRenderer {
  /** sha256 of the font file. */
  readonly fontHash: string;
  /** Lines at `size` px an em, cut to their ink. @throws InputError for characters the font lacks, and when nothing would be seen */
  draw(lines: readonly string[], size: number): Block;
}

/** Baseline to baseline, in em: what PIL's multiline text takes at 10 px, for a block of the study's 80 px. */
const LINE_PITCH = 1.4;
/** The highest ink above the baseline and the widest advance of DejaVu Sans, in em, rounded up. */
const ASCENT = 0.95, WIDEST = 1.4;

let ready: Promise<void> | undefined;

/** @param ttf the font, e.g. DejaVuSans.ttf; @param family its name inside the file */
export async function createTextRenderer(
  { wasm, ttf, family = "DejaVu Sans" }: {
    wasm: Uint8Array<ArrayBuffer> | WebAssembly.Module;
    ttf: Uint8Array<ArrayBuffer>;
    family?: string;
  },
): Promise<TextRenderer> {
  // resvg may be initialised once a process.
  await (ready ??= initWasm(wasm));
  const known = new Set<string>();
  const draw = (lines: readonly string[], size: number) => drawText(lines, size, ttf, family);
  return {
    fontHash: await sha256(ttf),
    draw(lines, size) {
      for (const character of lines.join("")) {
        if (character <= "~" || known.has(character)) continue;
        if (looksMissing(character, (text) => draw([text], 16))) {
          throw new InputError(`Cannot draw "${lines.join(" / ")}": the font has no "${character}"`);
        }
        known.add(character);
      }
      return draw(lines, size);
    },
  };
}

/** A private character at the end of Unicode: fonts draw it, as all they lack, as an empty box. */
const NO_CHARACTER = "\u{10fffd}";

function looksMissing(character: string, draw: (text: string) => Block): boolean {
  if (character.trim() === "") return false;
  const [actual, box] = [draw(character), draw(NO_CHARACTER)].map((block) => block.coverage);
  return actual.length === box.length && actual.every((value, i) => value === box[i]);
}

const escapeXml = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function drawText(lines: readonly string[], size: number, ttf: Uint8Array, family: string): Block {
  const pitch = Math.round(LINE_PITCH * size), baseline = Math.ceil(ASCENT * size);
  const width = Math.ceil(WIDEST * size * Math.max(1, ...lines.map((line) => line.length)));
  const height = pitch * lines.length + baseline;
  const texts = lines.map((line, i) =>
    `<text x="${size}" y="${baseline + i * pitch}">${escapeXml(line)}</text>`
  );
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${
      width + 2 * size
    }" height="${height}" xml:space="preserve" ` +
    `font-family="${escapeXml(family)}" font-size="${size}" fill="#fff">${texts.join("")}</svg>`;
  const image = new Resvg(svg, { font: { fontBuffers: [ttf], defaultFontFamily: family } });
  const rendered = image.render();
  const { pixels } = rendered;
  const coverage = Uint8Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i + 3]);
  const block = trimBlock({ width: rendered.width, height: rendered.height, coverage });
  rendered.free();
  image.free();
  if (!block) throw new InputError(`Cannot draw "${lines.join(" / ")}": the font has no ink for it`);
  return block;
}

/** The part of a block that has ink, or nothing. */
function trimBlock({ width, height, coverage }: Block): Block | undefined {
  let [left, right, top, bottom] = [width, -1, height, -1];
  coverage.forEach((value, i) => {
    if (value === 0) return;
    const x = i % width, y = Math.floor(i / width);
    [left, right, top, bottom] = [
      Math.min(left, x),
      Math.max(right, x),
      Math.min(top, y),
      Math.max(bottom, y),
    ];
  });
  if (right < 0) return undefined;
  const out = new Uint8Array((right - left + 1) * (bottom - top + 1));
  for (let y = top; y <= bottom; y++) {
    out.set(coverage.subarray(y * width + left, y * width + right + 1), (y - top) * (right - left + 1));
  }
  return { width: right - left + 1, height: bottom - top + 1, coverage: out };
}
