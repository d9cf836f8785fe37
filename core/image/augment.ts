/**
 * The image control of the study: a picture turned with expansion, mirrored, made brighter and richer in contrast, all
 * by draws of one seed. Each step gives Pillow's own bytes; it refuses nothing that is a picture.
 */
import type { Random } from "../random.ts";
import { blankPicture, type Picture } from "./picture.ts";

export interface Augmentation {
  /** Degrees counter-clockwise. */
  angle: number;
  mirrored: boolean;
  brightness: number;
  contrast: number;
}

/** The study's ranges: rotation U[-30, 30], mirrored half of the time, brightness and contrast U(.8, 1.2). */
export function drawAugmentation(random: Random): Augmentation {
  return {
    angle: random.uniform(-30, 30),
    mirrored: random.int(2) === 1,
    brightness: random.uniform(0.8, 1.2),
    contrast: random.uniform(0.8, 1.2),
  };
}

/** The picture so changed; it grows by the corners of the turn, which are black. */
export function augmentPicture(
  picture: Picture,
  { angle, mirrored, brightness, contrast }: Augmentation,
): Picture {
  const turned = rotatePicture(picture, angle);
  return adjustContrast(adjustBrightness(mirrored ? mirrorPicture(turned) : turned, brightness), contrast);
}

/**
 * Pillow's `rotate(angle, expand=True)`: nearest neighbours, found in 16.16 fixed point, black where nothing was.
 * @param angle degrees counter-clockwise
 */
export function rotatePicture(picture: Picture, angle: number): Picture {
  const { width, height } = picture;
  if (angle % 360 === 0) return { ...picture, data: picture.data.slice() };
  const radians = -(((angle % 360) + 360) % 360) * Math.PI / 180;
  const cos = round15(Math.cos(radians)), sin = round15(Math.sin(radians));
  const [a, b, d, e] = [cos, sin, round15(-Math.sin(radians)), cos];
  const turn = (x: number, y: number, c: number, f: number) => [a * x + b * y + c, d * x + e * y + f];
  let [c, f] = turn(-width / 2, -height / 2, 0, 0);
  [c, f] = [c + width / 2, f + height / 2];
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => turn(x, y, c, f));
  const span = (axis: number) => {
    const values = corners.map((corner) => corner[axis]);
    return Math.ceil(Math.max(...values)) - Math.floor(Math.min(...values));
  };
  const [w, h] = [span(0), span(1)];
  [c, f] = turn(-(w - width) / 2, -(h - height) / 2, c, f);
  const out = blankPicture(w, h);
  const [a0, a1, a3, a4] = [fix(a), fix(b), fix(d), fix(e)];
  let rowX = fix(c + a * 0.5 + b * 0.5), rowY = fix(f + d * 0.5 + e * 0.5);
  for (let y = 0; y < h; y++, rowX += a1, rowY += a4) {
    for (let x = 0, atX = rowX, atY = rowY; x < w; x++, atX += a0, atY += a3) {
      const fromX = Math.floor(atX / 65536), fromY = Math.floor(atY / 65536);
      if (fromX < 0 || fromX >= width || fromY < 0 || fromY >= height) continue;
      const from = (fromY * width + fromX) * 3, to = (y * w + x) * 3;
      for (let k = 0; k < 3; k++) out.data[to + k] = picture.data[from + k];
    }
  }
  return out;
}

const fix = (value: number): number => Math.floor(value * 65536 + 0.5);
const round15 = (value: number): number => Number(value.toFixed(15));

/** Left and right exchanged. */
export function mirrorPicture(picture: Picture): Picture {
  const { width, height, data } = picture, out = blankPicture(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * 3;
      out.data.set(data.subarray(from, from + 3), (y * width + width - 1 - x) * 3);
    }
  }
  return out;
}

/** Pillow's `ImageEnhance.Brightness`: every value times `factor`. */
export function adjustBrightness(picture: Picture, factor: number): Picture {
  return blendWith(picture, 0, factor);
}

/** Pillow's `ImageEnhance.Contrast`: distances from the mean grey times `factor`. */
export function adjustContrast(picture: Picture, factor: number): Picture {
  const { data } = picture, pixels = data.length / 3;
  let sum = 0;
  for (let i = 0; i < data.length; i += 3) {
    sum += (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
  }
  return blendWith(picture, Math.floor(sum / pixels + 0.5), factor);
}

/** Pillow's `Image.blend` of one grey and a picture, in 32-bit floats, cut to 0..255. */
function blendWith(picture: Picture, grey: number, factor: number): Picture {
  const alpha = Math.fround(factor);
  const table = Uint8Array.from({ length: 256 }, (_, value) => {
    const mixed = Math.fround(grey + Math.fround(alpha * (value - grey)));
    return mixed <= 0 ? 0 : mixed >= 255 ? 255 : Math.trunc(mixed);
  });
  const out = blankPicture(picture.width, picture.height);
  for (let i = 0; i < picture.data.length; i++) out.data[i] = table[picture.data[i]];
  return out;
}
