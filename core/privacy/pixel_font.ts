/**
 * A pixel font for pictures too small for outlines: capitals, digits and some marks, 3 by 5 on a pitch of 4 by 6.
 * Small letters are drawn as capitals, accents are dropped, and a character it lacks is drawn as "?".
 */
import { sha256 } from "../formats/manifest.ts";
import { foldToAscii } from "../text/tiny.ts";
import type { Block } from "./block.ts";

export const PIXEL_ADVANCE = 4;
export const PIXEL_LINE = 6;

/** Five rows of three pixels, "#" is ink. No two are alike: 0 is square where O is round. */
export const GLYPHS: Record<string, string> = {
  A: ".#. #.# ### #.# #.#",
  B: "##. #.# ##. #.# ##.",
  C: ".## #.. #.. #.. .##",
  D: "##. #.# #.# #.# ##.",
  E: "### #.. ##. #.. ###",
  F: "### #.. ##. #.. #..",
  G: ".## #.. #.# #.# .##",
  H: "#.# #.# ### #.# #.#",
  I: "### .#. .#. .#. ###",
  J: "..# ..# ..# #.# .#.",
  K: "#.# #.# ##. #.# #.#",
  L: "#.. #.. #.. #.. ###",
  M: "#.# ### ### #.# #.#",
  N: "##. #.# #.# #.# #.#",
  O: ".#. #.# #.# #.# .#.",
  P: "##. #.# ##. #.. #..",
  Q: ".#. #.# #.# ### .##",
  R: "##. #.# ##. ##. #.#",
  S: ".## #.. .#. ..# ##.",
  T: "### .#. .#. .#. .#.",
  U: "#.# #.# #.# #.# .##",
  V: "#.# #.# #.# .#. .#.",
  W: "#.# #.# ### ### #.#",
  X: "#.# #.# .#. #.# #.#",
  Y: "#.# #.# .#. .#. .#.",
  Z: "### ..# .#. #.. ###",
  0: "### #.# #.# #.# ###",
  1: ".#. ##. .#. .#. ###",
  2: "### ..# ### #.. ###",
  3: "### ..# .## ..# ###",
  4: "#.# #.# ### ..# ..#",
  5: "### #.. ### ..# ###",
  6: "### #.. ### #.# ###",
  7: "### ..# ..# ..# ..#",
  8: "### #.# ### #.# ###",
  9: "### #.# ### ..# ###",
  " ": "... ... ... ... ...",
  "-": "... ... ### ... ...",
  "_": "... ... ... ... ###",
  ".": "... ... ... ... .#.",
  ",": "... ... ... .#. #..",
  ":": "... .#. ... .#. ...",
  "'": ".#. .#. ... ... ...",
  "/": "..# ..# .#. #.. #..",
  "(": ".#. #.. #.. #.. .#.",
  ")": ".#. ..# ..# ..# .#.",
  "+": "... .#. ### .#. ...",
  "=": "... ### ... ### ...",
  "!": ".#. .#. .#. ... .#.",
  "?": "### ..# .#. ... .#.",
};

/** sha256 of the glyphs: what a manifest names as the font. */
export function pixelFontHash(): Promise<string> {
  return sha256(JSON.stringify(GLYPHS));
}

/** Draws lines of `scale` times 3x5 pixels; the block is as wide as its longest line, or `columns` characters. */
export function drawPixelText(
  lines: readonly string[],
  { scale = 1, columns }: { scale?: number; columns?: number } = {},
): Block {
  const texts = lines.map((line) => foldToAscii(line).toUpperCase());
  const length = columns ?? Math.max(1, ...texts.map((text) => text.length));
  const width = length * PIXEL_ADVANCE * scale, height = texts.length * PIXEL_LINE * scale;
  const coverage = new Uint8Array(width * height);
  texts.forEach((text, line) => {
    for (let column = 0; column < Math.min(text.length, length); column++) {
      const rows = (GLYPHS[text[column]] ?? GLYPHS["?"]).split(" ");
      for (let y = 0; y < 5 * scale; y++) {
        const at = (line * PIXEL_LINE * scale + y) * width + column * PIXEL_ADVANCE * scale;
        for (let x = 0; x < 3 * scale; x++) {
          if (rows[Math.floor(y / scale)][Math.floor(x / scale)] === "#") coverage[at + x] = 255;
        }
      }
    }
  });
  return { width, height, coverage };
}
