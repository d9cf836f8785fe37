/**
 * Pictures to pixel values as each family's own image processor makes them (transformers' Pillow back ends).
 * One picture in, one f32 array out; nothing random, and a picture a family cannot take is refused by name.
 */
import { InputError } from "../errors.ts";
import { blankPicture, cropPicture, type Picture } from "./picture.ts";
import {
  type ProcessorConfig,
  type ProcessorKind,
  readProcessorConfig,
  type Size,
} from "./processor_config.ts";
import { type PillowVersion, resizePicture } from "./resize.ts";
import { qwenPatches, smartResize } from "./processor_qwen2_vl.ts";
import { splitIntoTiles } from "./processor_idefics3.ts";

export interface Processed {
  /** Normalised, row-major in `shape`. */
  pixelValues: Float32Array;
  /** (1, 3, H, W); Qwen2-VL (patches, 3 * frames * p * p); Idefics3 and SmolVLM (1, tiles, 3, side, side). */
  shape: number[];
  /** Qwen2-VL: frames, rows, columns of patches, before merging. */
  grid?: [number, number, number];
  /** Idefics3 and SmolVLM: rows and columns of tiles; both 0 when the picture was not cut. */
  tiles?: { rows: number; cols: number };
}

export interface Processor {
  kind: ProcessorKind;
  config: ProcessorConfig;
  /** @throws InputError for a picture whose proportions the family does not take */
  process(picture: Picture): Processed;
}

/** The processor a parsed `preprocessor_config.json` describes. @throws InputError naming file and field */
export function createProcessor(json: unknown, name: string, pillow: PillowVersion = 12): Processor {
  const config = readProcessorConfig(json, name, pillow);
  const process = config.kind === "qwen2_vl"
    ? processQwen
    : config.kind === "idefics3"
    ? processTiles
    : processWhole;
  return { kind: config.kind, config, process: (picture) => process(picture, config) };
}

/** CLIP, LLaVA, SigLIP, Qwen-VL: pad, resize, cut from the middle. Pixel values (1, 3, H, W). */
function processWhole(picture: Picture, config: ProcessorConfig): Processed {
  let image = config.pad ? padToSquare(picture, config.mean.map((x) => Math.trunc(x * 255))) : picture;
  if (config.resize) image = resizeTo(image, config);
  if (config.crop) {
    const { height, width } = config.crop;
    const left = Math.floor((image.width - width) / 2), top = Math.floor((image.height - height) / 2);
    image = cropPicture(image, left, top, width, height);
  }
  return { pixelValues: toPlanes([image], config), shape: [1, 3, image.height, image.width] };
}

function resizeTo(picture: Picture, { size, filter, pillow, name }: ProcessorConfig): Picture {
  const [height, width] = targetSize(picture, size, name);
  return resizePicture(picture, width, height, filter, pillow);
}

/** Height and width: as given, or the short edge as given and the long one in proportion, rounded down. */
function targetSize({ width, height }: Picture, size: Size, name: string): [number, number] {
  if (size.height && size.width) return [size.height, size.width];
  const edge = size.shortest_edge;
  if (!edge || size.longest_edge) {
    throw new InputError(
      `Cannot use "${name}": "size" is ${
        JSON.stringify(size)
      }, expected "shortest_edge" or "height" and "width"`,
    );
  }
  return width <= height
    ? [Math.trunc((edge * height) / width), edge]
    : [edge, Math.trunc((edge * width) / height)];
}

/** The picture in the middle of a square of one colour; one odd pixel goes below or to the right. */
export function padToSquare(picture: Picture, color: readonly number[]): Picture {
  const { width, height } = picture;
  if (width === height) return picture;
  const side = Math.max(width, height);
  const out = blankPicture(side, side);
  for (let i = 0; i < out.data.length; i++) out.data[i] = color[i % 3];
  const left = (side - width) >> 1, top = (side - height) >> 1;
  for (let y = 0; y < height; y++) {
    const row = picture.data.subarray(y * width * 3, (y + 1) * width * 3);
    out.data.set(row, ((top + y) * side + left) * 3);
  }
  return out;
}

/** Qwen2-VL: both sides multiples of patch * merge, then patches in merging order. */
function processQwen(picture: Picture, config: ProcessorConfig): Processed {
  const { patch, merge, frames, size, filter, pillow, name } = config;
  let image = picture;
  if (config.resize) {
    const [height, width] = smartResize(
      picture,
      patch * merge,
      size.shortest_edge!,
      size.longest_edge!,
      name,
    );
    image = resizePicture(picture, width, height, filter, pillow);
  }
  return qwenPatches(toPlanes([image], config), image.height, image.width, { patch, merge, frames, name });
}

/** Idefics3 and SmolVLM: tiles and, last, the whole picture small. Pixel values (1, tiles, 3, side, side). */
function processTiles(picture: Picture, config: ProcessorConfig): Processed {
  const { frames, rows, cols } = splitIntoTiles(picture, config);
  const { width, height } = frames[0];
  return {
    pixelValues: toPlanes(frames, config),
    shape: [1, frames.length, 3, height, width],
    tiles: { rows, cols },
  };
}

/** n pictures of one size, rescaled and normalised in f32: (n, 3, H, W). */
function toPlanes(pictures: Picture[], { rescale, mean, std }: ProcessorConfig): Float32Array {
  const plane = pictures[0].width * pictures[0].height;
  const out = new Float32Array(pictures.length * 3 * plane);
  for (let c = 0; c < 3; c++) {
    // numpy multiplies in f64, rounds to f32, then subtracts and divides in f32: 256 results a channel.
    const m = Math.fround(mean[c]), s = Math.fround(std[c]);
    const value = Float32Array.from({ length: 256 }, (_, i) => Math.fround(Math.fround(i * rescale) - m) / s);
    pictures.forEach(({ data }, n) => {
      const to = (n * 3 + c) * plane;
      for (let i = 0; i < plane; i++) out[to + i] = value[data[i * 3 + c]];
    });
  }
  return out;
}

/**
 * Square patches of n images as rows: (n * P, 3 * p * p), P row by row, each in the order of a Conv2d weight (C, 3, p, p)
 * flattened. `shape` ends with (3, H, W); what stands before counts images. @throws RangeError unless p divides H and W
 */
export function toPatches(pixelValues: Float32Array, shape: readonly number[], patch: number): Float32Array {
  const [channels, height, width] = shape.slice(-3);
  if (height % patch || width % patch) {
    throw new RangeError(`Cannot cut ${height}x${width} into patches of ${patch}: it must divide both`);
  }
  const images = pixelValues.length / (channels * height * width);
  const out = new Float32Array(pixelValues.length);
  let at = 0;
  for (let n = 0; n < images; n++) {
    for (let y = 0; y < height; y += patch) {
      for (let x = 0; x < width; x += patch) {
        for (let c = 0; c < channels; c++) {
          for (let dy = 0; dy < patch; dy++, at += patch) {
            const from = ((n * channels + c) * height + y + dy) * width + x;
            out.set(pixelValues.subarray(from, from + patch), at);
          }
        }
      }
    }
  }
  return out;
}
