/**
 * How Idefics3 and SmolVLM cut a picture: long edge to a size, both edges up to whole tiles, tiles, then the whole small.
 * Every step is a resize of 8-bit pixels, so each one rounds; no picture is refused: a side never falls below a pixel.
 */
import { cropPicture, type Picture } from "./picture.ts";
import type { ProcessorConfig } from "./processor_config.ts";
import { resizePicture } from "./resize.ts";

/** No edge grows beyond this, whatever the configuration says. */
const LONGEST = 4096;

/** The pictures a model sees, all of one size, and how many rows and columns were cut (0 and 0 when none). */
export function splitIntoTiles(
  picture: Picture,
  config: ProcessorConfig,
): { frames: Picture[]; rows: number; cols: number } {
  const { tile, size } = config;
  const resize = (p: Picture, width: number, height: number) =>
    resizePicture(p, width, height, config.filter, config.pillow);
  let image = picture;
  if (config.resize) {
    const [height, width] = size.longest_edge
      ? longEdgeSize(image, size.longest_edge)
      : [size.height!, size.width!];
    image = resize(image, width, height);
  }
  if (!config.split) return { frames: [resize(image, tile, tile)], rows: 0, cols: 0 };
  const [height, width] = wholeTiles(image, tile);
  image = resize(image, width, height);
  if (height <= tile && width <= tile) return { frames: [image], rows: 0, cols: 0 };
  const rows = height / tile, cols = width / tile, frames: Picture[] = [];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < cols; x++) frames.push(cropPicture(image, x * tile, y * tile, tile, tile));
  }
  frames.push(resize(image, tile, tile));
  return { frames, rows, cols };
}

/** The long edge as given, at most 4096, the other in proportion and even. */
function longEdgeSize({ width, height }: Picture, longest: number): [number, number] {
  const ratio = width / height, even = (n: number) => n + n % 2;
  const [h, w] = width >= height
    ? [even(Math.trunc(longest / ratio)), longest]
    : [longest, even(Math.trunc(longest * ratio))];
  return belowLongest(Math.max(h, 1), Math.max(w, 1));
}

function belowLongest(height: number, width: number): [number, number] {
  const ratio = width / height;
  if (width >= height && width > LONGEST) return [Math.max(1, Math.trunc(LONGEST / ratio)), LONGEST];
  if (height > width && height > LONGEST) return [LONGEST, Math.max(1, Math.trunc(LONGEST * ratio))];
  return [height, width];
}

/** The long edge up to whole tiles, then the other in proportion and up to whole tiles. */
function wholeTiles({ width, height }: Picture, tile: number): [number, number] {
  const ratio = width / height, up = (n: number) => Math.ceil(n / tile) * tile;
  if (width >= height) return [up(Math.trunc(up(width) / ratio)), up(width)];
  return [up(height), up(Math.trunc(up(height) * ratio))];
}
