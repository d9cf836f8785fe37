/**
 * Qwen2-VL's and Qwen2.5-VL's two peculiarities: the size that keeps proportions, and the order of patches.
 * Refuses pictures more than 200 times as long as wide, as the original does.
 */
import { InputError } from "../errors.ts";
import type { Picture } from "./picture.ts";

/** Python's round: halves go to the even neighbour. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x), rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/**
 * Height and width: multiples of `factor`, close to the picture's proportions, with minPixels to maxPixels pixels.
 * Source: `smart_resize` of Qwen2-VL. @throws InputError naming the proportions
 */
export function smartResize(
  { width, height }: Pick<Picture, "width" | "height">,
  factor: number,
  minPixels: number,
  maxPixels: number,
  name: string,
): [number, number] {
  if (Math.max(width, height) / Math.min(width, height) > 200) {
    throw new InputError(
      `Cannot process a picture of ${width}x${height} with "${name}": proportions over 200 to 1`,
    );
  }
  const rows = roundHalfEven(height / factor) * factor, columns = roundHalfEven(width / factor) * factor;
  if (rows * columns > maxPixels) {
    const shrink = Math.sqrt((height * width) / maxPixels);
    const side = (length: number) => Math.max(factor, Math.floor(length / shrink / factor) * factor);
    return [side(height), side(width)];
  }
  if (rows * columns < minPixels) {
    const grow = Math.sqrt(minPixels / (height * width));
    const side = (length: number) => Math.ceil((length * grow) / factor) * factor;
    return [side(height), side(width)];
  }
  return [rows, columns];
}

/**
 * Planes (3, H, W) as patches (rows * columns, 3 * frames * p * p): squares of merge x merge patches one after another,
 * each patch by channel, frame (a still picture repeats), row, column.
 */
export function qwenPatches(
  planes: Float32Array,
  height: number,
  width: number,
  { patch, merge, frames, name }: { patch: number; merge: number; frames: number; name: string },
): { pixelValues: Float32Array; shape: number[]; grid: [number, number, number] } {
  const block = patch * merge;
  if (height % block || width % block) {
    throw new InputError(
      `Cannot process a picture of ${width}x${height} with "${name}": sides must be multiples of ${block}`,
    );
  }
  const pixelValues = new Float32Array(planes.length * frames);
  let at = 0;
  for (let by = 0; by < height; by += block) {
    for (let bx = 0; bx < width; bx += block) {
      for (let m = 0; m < merge * merge; m++) {
        const y = by + Math.floor(m / merge) * patch, x = bx + (m % merge) * patch;
        for (let c = 0; c < 3; c++) {
          for (let row = 0; row < patch * frames; row++, at += patch) {
            const from = (c * height + y + row % patch) * width + x;
            pixelValues.set(planes.subarray(from, from + patch), at);
          }
        }
      }
    }
  }
  const rows = height / patch, columns = width / patch;
  return { pixelValues, shape: [rows * columns, 3 * frames * patch * patch], grid: [1, rows, columns] };
}
