/**
 * What an image file says about itself before anything is decoded: format by content, size, orientation.
 * Refuses files that are none of PNG, JPEG and WebP, that break off, or whose structure does not hold.
 */
import { ImageError } from "./image_error.ts";
import { readJpegHeader } from "./jpeg_header.ts";
import { readPngHeader } from "./png_header.ts";
import { readWebpHeader } from "./webp_header.ts";

export type ImageFormat = "png" | "jpeg" | "webp";

export interface ImageHeader {
  format: ImageFormat;
  /** As stored, before the orientation is applied. */
  width: number;
  height: number;
  /** EXIF, 1 to 8. */
  orientation: number;
  /** JPEG: how often the picture is passed over; 1 elsewhere. */
  scans: number;
  animated: boolean;
  /** JPEG: 1 grey, 3 colour, 4 CMYK; 3 elsewhere. */
  components: number;
}

const ascii = (bytes: Uint8Array, start: number, end: number): string =>
  String.fromCharCode(...bytes.subarray(start, end));

/** The format of these bytes by their first ones, whatever the file is called; undefined when it is none of ours. */
export function sniffFormat(bytes: Uint8Array): ImageFormat | undefined {
  if (ascii(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "jpeg";
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 12) === "WEBP") return "webp";
  return undefined;
}

/** What a refused file seems to be, to say so. */
function otherFormat(bytes: Uint8Array): string {
  if (bytes.length === 0) return "it is empty";
  const start = ascii(bytes, 0, 4);
  if (start === "GIF8") return "it is a GIF";
  if (start.startsWith("BM")) return "it is a BMP";
  if (start === "II*\0" || start === "MM\0*") return "it is a TIFF";
  if (ascii(bytes, 4, 8) === "ftyp") return "it is an AVIF, HEIF or MP4 file";
  if (/^\s*</.test(ascii(bytes, 0, 16))) return "it is text or markup";
  return "its first bytes are of no known image format";
}

/** Reads the header and walks the whole structure, decoding nothing. @throws ImageError naming the image */
export function readHeader(bytes: Uint8Array, name = "image"): ImageHeader {
  const format = sniffFormat(bytes);
  if (format === "png") return readPngHeader(bytes, name);
  if (format === "jpeg") return readJpegHeader(bytes, name);
  if (format === "webp") return readWebpHeader(bytes, name);
  throw new ImageError("unknown-format", `${otherFormat(bytes)}, expected PNG, JPEG or WebP`, name);
}
