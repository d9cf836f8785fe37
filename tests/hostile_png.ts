/**
 * PNG files that mean harm, and the pieces to make them: bombs, false sizes, thousands of chunks, animations.
 * Their checksums are right, so that the harm reaches the decoder.
 */
import { crc32, deflateSync } from "node:zlib";

export const SIGNATURE = "\x89PNG\r\n\x1a\n", END = chunk("IEND", new Uint8Array(0));

/** Bytes, and texts of one byte a letter, one after another. */
export function concat(...parts: (Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.map((p) => typeof p === "string" ? Uint8Array.from(p, (c) => c.charCodeAt(0)) : p);
  const out = new Uint8Array(bytes.reduce((n, b) => n + b.length, 0));
  bytes.reduce((at, b) => (out.set(b, at), at + b.length), 0);
  return out;
}

/** The same bytes many times. */
export function repeated(bytes: Uint8Array, times: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length * times);
  for (let at = 0; at < out.length; at += bytes.length) out.set(bytes, at);
  return out;
}

/** A PNG chunk with its length and checksum. */
function chunk(type: string, body: Uint8Array | string): Uint8Array<ArrayBuffer> {
  const out = concat(new Uint8Array(4), type, body, new Uint8Array(4)), view = new DataView(out.buffer);
  view.setUint32(0, out.length - 12);
  view.setUint32(out.length - 4, crc32(out.subarray(4, out.length - 4)));
  return out;
}

function ihdr(width: number, height: number, depth = 8, color = 2): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(13), view = new DataView(body.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  body.set([depth, color], 8);
  return chunk("IHDR", body);
}

/** `megabytes` of zeros, packed to a thousandth of their size. */
export async function zeros(
  megabytes: number,
  format: CompressionFormat = "deflate",
): Promise<Uint8Array<ArrayBuffer>> {
  const block = new Uint8Array(1_000_000);
  let left = megabytes;
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => left-- > 0 ? controller.enqueue(block) : controller.close(),
  }).pipeThrough(new CompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export type Files = Map<string, Uint8Array<ArrayBuffer>>;

/** By name; `bomb` and `small` are zeros. */
export function pngs(files: Files, bomb: Uint8Array, small: Uint8Array): [string, Uint8Array][] {
  const rgb = files.get("rgb.png")!, picture = (...chunks: Uint8Array[]) => concat(SIGNATURE, ...chunks, END);
  const sizes = [[20_000, 20_000], [65_535, 65_535], [2 ** 31 - 1, 2 ** 31 - 1], [2 ** 32 - 1, 1], [
    1,
    4_000_001,
  ], [
    0,
    0,
  ]];
  return [
    ...sizes.map(([w, h]): [string, Uint8Array] => [
      `PNG of ${w} x ${h}`,
      picture(ihdr(w, h), chunk("IDAT", bomb)),
    ]),
    ["PNG of 4 megapixels of nothing", picture(ihdr(2000, 2000), chunk("IDAT", bomb))],
    ["PNG of 4 megapixels and 16 bits", picture(ihdr(2000, 2000, 16, 6), chunk("IDAT", bomb))],
    [
      "PNG of 4 megapixels, interlaced by its header alone",
      interlaced(picture(ihdr(2000, 2000), chunk("IDAT", bomb))),
    ],
    ["PNG of one row, 4 million wide", picture(ihdr(4_000_000, 1), chunk("IDAT", bomb))],
    ["PNG of 1 x 1 over a bomb", picture(ihdr(1, 1), chunk("IDAT", bomb))],
    [
      "PNG with a bomb of text",
      picture(ihdr(1, 1), chunk("zTXt", concat("k\0\0", bomb)), chunk("IDAT", small)),
    ],
    [
      "PNG with a bomb of a profile",
      picture(ihdr(1, 1), chunk("iCCP", concat("p\0\0", bomb)), chunk("IDAT", small)),
    ],
    [
      "PNG with 100,000 empty chunks",
      picture(
        ihdr(1, 1),
        repeated(chunk("teSt", ""), 100_000),
        chunk("IDAT", small),
      ),
    ],
    [
      "PNG with 20,000 data chunks of one byte",
      picture(
        ihdr(200, 200),
        ...Array.from(bomb.subarray(0, 20_000), (byte) => chunk("IDAT", Uint8Array.of(byte))),
      ),
    ],
    [
      "PNG whose chunk is 2 GB long",
      concat(SIGNATURE, ihdr(1, 1), Uint8Array.of(0x7f, 255, 255, 255), "IDAT", small),
    ],
    ["PNG with two headers", picture(ihdr(1, 1), ihdr(9000, 9000), chunk("IDAT", small))],
    ["PNG with a palette of nothing", picture(ihdr(1, 1, 8, 3), chunk("PLTE", ""), chunk("IDAT", small))],
    ["PNG of depth 255", picture(ihdr(1, 1, 255, 255), chunk("IDAT", small))],
    [
      "PNG that says it is animated",
      picture(ihdr(1, 1), chunk("acTL", "\0\0\0\x09\0\0\0\0"), chunk("IDAT", small)),
    ],
    [
      "PNG that is a web page too",
      picture(
        ihdr(1, 1),
        chunk("tEXt", "k\0<script>alert(1)</script>"),
        chunk("IDAT", small),
      ),
    ],
    [
      "PNG of 5,000 frames",
      picture(
        ihdr(1, 1),
        chunk("acTL", "\0\0\x13\x88\0\0\0\0"),
        chunk("IDAT", small),
        ...Array.from(
          { length: 5000 },
          () =>
            concat(
              chunk("fcTL", concat("\0\0\0\0\0\0\0\x01\0\0\0\x01", new Uint8Array(14))),
              chunk("fdAT", "\0\0\0\0"),
            ),
        ),
      ),
    ],
    [
      "PNG whose orientation lies outside of its directory",
      picture(ihdr(1, 1), chunk("eXIf", "II*\0\xff\xff\xff\x7f"), chunk("IDAT", small)),
    ],
    ["PNG with an archive behind it", concat(rgb, "PK\x03\x04", rgb)],
    ["PNG twice", concat(rgb, rgb)],
    ["PNG signature alone", concat(SIGNATURE)],
  ];
}

function interlaced(png: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  png[28] = 1; // the last byte of IHDR
  new DataView(png.buffer).setUint32(29, crc32(png.subarray(12, 29)));
  return png;
}

/** A PNG with the checksums of its chunks made good again, so that the damage reaches the decoder. */
export function repaired(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes[0] !== 0x89) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 8 + view.getUint32(at);
    if (end + 4 > bytes.length) break;
    view.setUint32(end, crc32(bytes.subarray(at + 4, end)));
    at = end + 4;
  }
  return bytes;
}

/** A good one of 4 megapixels and 16 bits, each of whose rows is filtered by what lies left, above and between. */
export function paethPng(): Uint8Array<ArrayBuffer> {
  const rows = new Uint8Array(2000 * 16_001);
  for (let at = 0; at < rows.length; at += 16_001) rows[at] = 4;
  return concat(SIGNATURE, ihdr(2000, 2000, 16, 6), chunk("IDAT", new Uint8Array(deflateSync(rows))), END);
}
