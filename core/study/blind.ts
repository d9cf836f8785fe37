/**
 * What the pictures alone give away: their pixels, averaged down to a few, in place of a model's activations.
 * Refuses no pictures at all, which would be a baseline of nothing.
 */
import { InputError } from "../errors.ts";
import type { Picture } from "../image/picture.ts";
import type { FeatureData } from "../probe/activations.ts";

/** Mean colours of `side` x `side` cells of every picture, 0 to 255: (n, side * side * 3). @throws InputError for none */
export function blindPixels(pictures: readonly Picture[], side = 8): FeatureData {
  if (!pictures.length) throw new InputError("Cannot make a blind baseline: there is no picture");
  const dim = side * side * 3, data = new Float32Array(pictures.length * dim);
  pictures.forEach(({ width, height, data: pixels }, at) => {
    const counts = new Float64Array(side * side), sums = new Float64Array(dim);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const cell = Math.floor(y * side / height) * side + Math.floor(x * side / width);
        counts[cell]++;
        for (let k = 0; k < 3; k++) sums[cell * 3 + k] += pixels[(y * width + x) * 3 + k];
      }
    }
    // A picture smaller than the grid leaves cells empty: they stay black in all pictures of its size.
    for (let j = 0; j < dim; j++) data[at * dim + j] = sums[j] / Math.max(1, counts[Math.floor(j / 3)]);
  });
  return { dim, data };
}
