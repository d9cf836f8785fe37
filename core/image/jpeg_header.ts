/**
 * The structure of a JPEG (ITU-T T.81, annex B): its segments walked from start to end marker.
 * Refuses a file without its end marker, with two frames, or coded in a way no browser shows.
 */
import { exifOrientation } from "./exif.ts";
import type { ImageHeader } from "./header.ts";
import { ImageError } from "./image_error.ts";

const SOI = 0xd8, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1, TEM = 0x01;
const isRestart = (marker: number): boolean => marker >= 0xd0 && marker <= 0xd7;
/** Start of frame: 0xc0 to 0xcf but for the tables (DHT, JPG, DAC) that share the range. */
const isFrame = (marker: number): boolean =>
  marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;

/** Walks the segments. @throws ImageError "truncated", "malformed" or "unsupported" */
export function readJpegHeader(bytes: Uint8Array, name: string): ImageHeader {
  const cut = (): never => {
    throw new ImageError("truncated", "the JPEG breaks off before its end marker", name);
  };
  const header: ImageHeader = {
    format: "jpeg",
    width: 0,
    height: 0,
    orientation: 1,
    scans: 0,
    animated: false,
    components: 0,
  };
  let at = 2, sawExif = false;
  for (;;) {
    while (at < bytes.length && bytes[at] !== 0xff) at++; // decoders skip stray bytes between segments too
    while (at < bytes.length && bytes[at] === 0xff) at++;
    if (at >= bytes.length) cut();
    const marker = bytes[at++];
    if (marker === EOI) break;
    if (marker === 0 || marker === SOI || marker === TEM || isRestart(marker)) continue;
    if (at + 2 > bytes.length) cut();
    const length = bytes[at] << 8 | bytes[at + 1];
    if (length < 2) throw new ImageError("malformed", "a JPEG segment has no length", name);
    if (at + length > bytes.length) cut();
    const body = bytes.subarray(at + 2, at + length);
    if (isFrame(marker)) readFrame(marker, body, header, name);
    if (marker === APP1 && !sawExif && String.fromCharCode(...body.subarray(0, 6)) === "Exif\0\0") {
      header.orientation = exifOrientation(body);
      sawExif = true;
    }
    at += length;
    if (marker === SOS) {
      header.scans++;
      at = endOfScan(bytes, at);
    }
  }
  if (header.components === 0) throw new ImageError("malformed", "the JPEG has no frame header", name);
  if (header.scans === 0) throw new ImageError("malformed", "the JPEG has no scan", name);
  return header;
}

function readFrame(marker: number, body: Uint8Array, header: ImageHeader, name: string): void {
  if (header.components) throw new ImageError("malformed", "the JPEG has two frame headers", name);
  if (marker > 0xc2) {
    throw new ImageError("unsupported", "it is a lossless, hierarchical or arithmetic-coded JPEG", name);
  }
  if (body.length < 6) throw new ImageError("malformed", "the JPEG's frame header is too short", name);
  if (body[0] !== 8) {
    throw new ImageError("unsupported", `the JPEG has ${body[0]} bits a sample, expected 8`, name);
  }
  header.height = body[1] << 8 | body[2];
  header.width = body[3] << 8 | body[4];
  header.components = body[5];
  if (![1, 3, 4].includes(header.components)) {
    throw new ImageError(
      "unsupported",
      `the JPEG has ${header.components} components, expected 1 or 3`,
      name,
    );
  }
  if (body.length < 6 + 3 * header.components) {
    throw new ImageError("malformed", "the JPEG's frame header is too short", name);
  }
}

/** The position of the first marker after entropy-coded data; stuffed zeros and restarts belong to the data. */
function endOfScan(bytes: Uint8Array, start: number): number {
  for (let at = start; at + 1 < bytes.length; at++) {
    if (bytes[at] !== 0xff) continue;
    const next = bytes[at + 1];
    if (next !== 0 && next !== 0xff && !isRestart(next)) return at;
  }
  return bytes.length;
}
