/**
 * The structure of a WebP (RFC 9649): its RIFF chunks walked, the size read from the picture's own bits.
 * Refuses files shorter than they say, a canvas that disagrees with its picture, and files without a picture.
 */
import { exifOrientation } from "./exif.ts";
import type { ImageHeader } from "./header.ts";
import { ImageError } from "./image_error.ts";

/** Walks the chunks. @throws ImageError "truncated" or "malformed" */
export function readWebpHeader(bytes: Uint8Array, name: string): ImageHeader {
  const malformed = (why: string): never => {
    throw new ImageError("malformed", why, name);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = 8 + view.getUint32(4, true);
  if (end > bytes.length) {
    throw new ImageError("truncated", `the WebP says ${end} bytes, it has ${bytes.length}`, name);
  }
  let canvas: [number, number] | undefined, frame: [number, number] | undefined;
  let animated = false, orientation = 1;
  for (let at = 12; at + 8 <= end;) {
    const type = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    if (at + 8 + size > end) {
      throw new ImageError("truncated", `the WebP's "${type.trim()}" chunk breaks off`, name);
    }
    const body = bytes.subarray(at + 8, at + 8 + size);
    if (type === "VP8X") {
      if (size < 10) malformed("the WebP's VP8X chunk is too short");
      canvas = [1 + uint24(body, 4), 1 + uint24(body, 7)];
      animated ||= (body[0] & 2) !== 0;
    } else if (type === "VP8 " || type === "VP8L") {
      if (frame) malformed("the WebP holds two pictures");
      frame = (type === "VP8 " ? lossySize(body) : losslessSize(body)) ??
        malformed(`the WebP's "${type.trim()}" chunk does not start as one`);
    } else if (type === "ANIM" || type === "ANMF") animated = true;
    else if (type === "EXIF") orientation = exifOrientation(body);
    at += 8 + size + (size & 1);
  }
  const size = animated ? canvas ?? [0, 0] : frame;
  if (!size) return malformed("the WebP holds no picture");
  if (canvas && !animated && (canvas[0] !== size[0] || canvas[1] !== size[1])) {
    malformed(`the WebP's canvas is ${canvas.join("x")}, its picture ${size.join("x")}`);
  }
  return { format: "webp", width: size[0], height: size[1], orientation, scans: 1, animated, components: 3 };
}

const uint24 = (bytes: Uint8Array, at: number): number =>
  bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16;

/** RFC 6386, 9.1: a key frame's tag, start code, then 14-bit width and height below 2-bit scales. */
function lossySize(body: Uint8Array): [number, number] | undefined {
  const start = body.length >= 10 && !(body[0] & 1) && body[3] === 0x9d && body[4] === 0x01 &&
    body[5] === 0x2a;
  return start ? [(body[6] | body[7] << 8) & 0x3fff, (body[8] | body[9] << 8) & 0x3fff] : undefined;
}

/** RFC 9649, 3.4: a signature byte, then 14 bits each of width - 1 and height - 1. */
function losslessSize(body: Uint8Array): [number, number] | undefined {
  if (body.length < 5 || body[0] !== 0x2f) return undefined;
  const bits = (body[1] | body[2] << 8 | body[3] << 16 | body[4] << 24) >>> 0;
  return [1 + (bits & 0x3fff), 1 + ((bits >>> 14) & 0x3fff)];
}
