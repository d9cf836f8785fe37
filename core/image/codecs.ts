/**
 * Image files to pictures and back: PNG, JPEG and WebP, the same bytes on every machine.
 * Nothing is decoded that the guard has not passed, and whatever a decoder throws becomes an ImageError.
 */
import decodeJpeg, { init as initJpegDecoder } from "@jsquash/jpeg/decode.js";
import encodeJpeg, { init as initJpegEncoder } from "@jsquash/jpeg/encode.js";
import encodePng, { init as initPngEncoder } from "@jsquash/png/encode.js";
import decodeWebp, { init as initWebpDecoder } from "@jsquash/webp/decode.js";
import encodeWebp, { init as initWebpEncoder } from "@jsquash/webp/encode.js";
import { messageOf } from "../errors.ts";
import { guardImage, type ImageLimits } from "./guard.ts";
import type { ImageFormat, ImageHeader } from "./header.ts";
import { ImageError } from "./image_error.ts";
import { orientPicture, type Picture } from "./picture.ts";
import { decodePng } from "./png.ts";
import type { PngHeader } from "./png_header.ts";

/** The codecs' WebAssembly, for hosts that compile none at run time; a codec left out loads its own file. */
export interface CodecModules {
  jpegDecoder?: WebAssembly.Module;
  jpegEncoder?: WebAssembly.Module;
  /** `squoosh_png_bg.wasm` */
  pngEncoder?: WebAssembly.Module;
  webpDecoder?: WebAssembly.Module;
  /** The SIMD build, `webp_enc_simd.wasm`. */
  webpEncoder?: WebAssembly.Module;
}

/** Their declarations leave the Module out, which the functions themselves take first. */
type Init = (
  ...given: (WebAssembly.Module | { printErr?: (line: string) => void } | undefined)[]
) => Promise<unknown>;
let modules: CodecModules = {};
/** Broken files decoded since the decoder's memory was last fresh: each may have kept some of it. */
const broken = { jpeg: 0, webp: 0 };
const BROKEN_LIMIT = 64;

/** Hands over compiled codecs, before the first picture is read or written. */
export async function initCodecs(given: CodecModules): Promise<void> {
  modules = given;
  jpegReady = undefined;
  if (given.jpegEncoder) await (initJpegEncoder as Init)(given.jpegEncoder);
  if (given.pngEncoder) await (initPngEncoder as Init)(given.pngEncoder);
  if (given.webpDecoder) await (initWebpDecoder as Init)(given.webpDecoder);
  if (given.webpEncoder) await (initWebpEncoder as Init)(given.webpEncoder);
}

/** What the JPEG library would print about the file it reads; it warns of missing data but draws grey over it. */
let complaints: string[] = [];
const LOST_DATA = /premature end|bad Huffman/;
let jpegReady: Promise<unknown> | undefined;
/** Resolves when the latest JPEG is done: they go one by one, so that complaints belong to their own file. */
let jpegTurn: Promise<unknown> = Promise.resolve();

function startJpegDecoder(): Promise<unknown> {
  const options = { printErr: (line: string) => void complaints.push(line) };
  const init = initJpegDecoder as Init;
  return modules.jpegDecoder ? init(modules.jpegDecoder, options) : init(options);
}

function decodeJpegInTurn(buffer: ArrayBuffer): ReturnType<typeof decodeJpeg> {
  const turn = jpegTurn.then(async () => {
    await (jpegReady ??= startJpegDecoder());
    complaints = [];
    const picture = await decodeJpeg(buffer).catch((thrown) => {
      if (thrown instanceof WebAssembly.RuntimeError) jpegReady = undefined;
      throw new Error(complaints.at(-1) ?? messageOf(thrown));
    });
    const lost = complaints.find((line) => LOST_DATA.test(line));
    if (lost) throw new Error(lost);
    return picture;
  });
  jpegTurn = turn.catch(() => {});
  return turn;
}

/** A decoded file: upright RGB and what it was stored as. */
export interface DecodedImage extends Picture {
  format: ImageFormat;
}

/**
 * Decodes an image file to upright RGB: the EXIF orientation is applied, alpha is dropped, not blended (as PIL's
 * `convert("RGB")` does), 16-bit samples keep their upper 8 bits (PIL agrees for colour; it clips 16-bit grey).
 * @throws ImageError, with a stable code, for whatever the guard or the decoder refuses
 */
export async function decodeImage(bytes: Uint8Array, limits: ImageLimits = {}): Promise<DecodedImage> {
  return await decodeGuarded(bytes, guardImage(bytes, limits), limits.name);
}

/** The same for a file whose header the guard has passed already. @throws ImageError for what the decoder refuses */
export async function decodeGuarded(
  bytes: Uint8Array,
  header: ImageHeader,
  name: string = "image",
): Promise<DecodedImage> {
  const picture = header.format === "png"
    ? await decodePng(header as PngHeader, name)
    : await decodeLossy(header.format, bytes, name);
  if (picture.width !== header.width || picture.height !== header.height) {
    const [actual, expected] = [picture, header].map((p) => `${p.width}x${p.height}`);
    throw new ImageError("malformed", `it decodes to ${actual}, its header says ${expected}`, name);
  }
  return { ...orientPicture(picture, header.orientation), format: header.format };
}

async function decodeLossy(format: "jpeg" | "webp", bytes: Uint8Array, name: string): Promise<Picture> {
  // The glue takes the whole buffer of a view, so a part of a larger one is copied out first.
  const whole = bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
  const decode = format === "jpeg" ? decodeJpegInTurn : decodeWebp;
  try {
    const { width, height, data } = await decode(whole.buffer as ArrayBuffer);
    return { width, height, data: dropAlpha(data) };
  } catch (thrown) {
    if (++broken[format] >= BROKEN_LIMIT || thrown instanceof WebAssembly.RuntimeError) await restart(format);
    const why = thrown instanceof Error ? messageOf(thrown) : "the decoder gave up";
    throw new ImageError(
      "undecodable",
      `its ${format === "jpeg" ? "JPEG" : "WebP"} data is broken: ${why}`,
      name,
    );
  }
}

/** Starts a decoder anew after an abort, or after a few broken files, so that leaked memory cannot add up. */
async function restart(format: "jpeg" | "webp"): Promise<void> {
  broken[format] = 0;
  if (format === "jpeg") jpegReady = undefined;
  else await (initWebpDecoder as Init)(modules.webpDecoder, {});
}

function dropAlpha(rgba: ArrayLike<number>): Uint8Array {
  const out = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    out[to] = rgba[from];
    out[to + 1] = rgba[from + 1];
    out[to + 2] = rgba[from + 2];
  }
  return out;
}

export interface EncodeOptions {
  /** 1 to 100 for JPEG and WebP, 90 unless told; PNG keeps every bit. */
  quality?: number;
}

/** Encodes a picture; equal pictures and options give equal bytes. */
export async function encodeImage(
  picture: Picture,
  format: ImageFormat,
  { quality = 90 }: EncodeOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const { width, height } = picture;
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; to < data.length; from += 3, to += 4) {
    data[to] = picture.data[from];
    data[to + 1] = picture.data[from + 1];
    data[to + 2] = picture.data[from + 2];
  }
  const image = { data, width, height, colorSpace: "srgb" } as Parameters<typeof encodePng>[0];
  if (format === "png") return new Uint8Array(await encodePng(image));
  if (format === "jpeg") return new Uint8Array(await encodeJpeg(image, { quality }));
  return new Uint8Array(await encodeWebp(image, { quality }));
}
