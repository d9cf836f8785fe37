/**
 * The guard before every decoder: it reads headers only, so that hostile files cost nothing.
 * Refuses pictures with too many pixels or scans, animated ones and CMYK; what it lets pass is bounded in memory and time.
 */
import { type ImageHeader, readHeader } from "./header.ts";
import { ImageError } from "./image_error.ts";

export interface ImageLimits {
  /** What to call the image in messages. */
  name?: string;
  /** Width times height; 4 million unless told, which bounds a decoder's memory to about 40 MB. */
  maxPixels?: number;
  /** Passes over a progressive JPEG; 32 unless told: encoders write about 10. */
  maxScans?: number;
}

export const MAX_PIXELS = 4_000_000;
export const MAX_SCANS = 32;

/** The header of a picture that is safe to decode. @throws ImageError with a stable code otherwise */
export function guardImage(bytes: Uint8Array, limits: ImageLimits = {}): ImageHeader {
  const { name = "image", maxPixels = MAX_PIXELS, maxScans = MAX_SCANS } = limits;
  const header = readHeader(bytes, name);
  const { width, height, scans } = header;
  if (header.animated) throw new ImageError("animated", "it is animated, expected one still picture", name);
  if (width === 0 || height === 0) throw new ImageError("malformed", `its size is ${width}x${height}`, name);
  if (width * height > maxPixels) {
    const size = `${width}x${height} = ${width * height} pixels`;
    throw new ImageError("too-many-pixels", `it has ${size}, at most ${maxPixels} are read`, name);
  }
  if (header.components === 4) throw new ImageError("cmyk", "it is a CMYK JPEG, expected RGB or grey", name);
  if (scans > maxScans) {
    throw new ImageError("too-many-scans", `the JPEG has ${scans} scans, at most ${maxScans} are read`, name);
  }
  return header;
}
