/**
 * Image files that mean harm, by a seed: bombs, false headers, polyglots, thousands of scans, and mutations of good files.
 * Each comes with the media type that a liar would give it; what is made from one seed is the same on every machine.
 */
import { crc32 } from "node:zlib";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { Random } from "../core/random.ts";

export interface HostileImage {
  /** What was done to it, in words. */
  name: string;
  type: string;
  bytes: Uint8Array<ArrayBuffer>;
}

const IMAGES = new URL("./fixtures/images/", import.meta.url);
const TYPES = ["image/png", "image/jpeg", "image/webp"];
const SIGNATURE = "\x89PNG\r\n\x1a\n", END = chunk("IEND", new Uint8Array(0));

function concat(...parts: (Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.map((p) => typeof p === "string" ? Uint8Array.from(p, (c) => c.charCodeAt(0)) : p);
  const out = new Uint8Array(bytes.reduce((n, b) => n + b.length, 0));
  bytes.reduce((at, b) => (out.set(b, at), at + b.length), 0);
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

/** `megabytes` of zeros as a zlib stream, a thousandth of their size. */
async function zeros(megabytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const block = new Uint8Array(1_000_000);
  let left = megabytes;
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => left-- > 0 ? controller.enqueue(block) : controller.close(),
  }).pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const indexOfMarker = (jpeg: Uint8Array, marker: number): number =>
  jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === marker);

/** A copy with a big-endian 16-bit number put at `at`. */
function put16(bytes: Uint8Array<ArrayBuffer>, at: number, value: number): Uint8Array<ArrayBuffer> {
  const out = bytes.slice();
  new DataView(out.buffer).setUint16(at, value);
  return out;
}

/** An EXIF segment whose directory points at itself or promises `entries` that are not there. */
function exif(entries: number, next: number): Uint8Array<ArrayBuffer> {
  const tiff = concat(
    "II*\0",
    Uint8Array.of(8, 0, 0, 0, entries & 255, entries >> 8, 0x12, 1, 3, 0, 1, 0, 0, 0),
  );
  const body = concat("Exif\0\0", tiff, Uint8Array.of(99, 0, 0, 0, next & 255, next >> 8, 0, 0));
  return concat(Uint8Array.of(0xff, 0xe1, 0, body.length + 2), body);
}

type Files = Map<string, Uint8Array<ArrayBuffer>>;

function pngs(files: Files, bomb: Uint8Array, small: Uint8Array): [string, Uint8Array][] {
  const rgb = files.get("rgb.png")!, picture = (...chunks: Uint8Array[]) => concat(SIGNATURE, ...chunks, END);
  const emptyChunks = concat("", ...Array(10_000).fill(chunk("teSt", "")));
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
        ...Array(10).fill(emptyChunks),
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

function jpegs(files: Files): [string, Uint8Array][] {
  const base = files.get("baseline.jpg")!, progressive = files.get("progressive.jpg")!;
  const scan = progressive.subarray(indexOfMarker(progressive, 0xda), -2);
  const frame = indexOfMarker(base, 0xc0), eoi = Uint8Array.of(255, 0xd9);
  const after = (segment: Uint8Array) => concat(base.subarray(0, 2), segment, base.subarray(2));
  const sof = (marker: number) => {
    const out = base.slice();
    out[frame + 1] = marker;
    return out;
  };
  return [
    ["JPEG of 65,535 x 65,535", put16(put16(base, frame + 5, 65_535), frame + 7, 65_535)],
    ["JPEG of no height", put16(base, frame + 5, 0)],
    ["JPEG larger than its data", put16(put16(base, frame + 5, 1999), frame + 7, 2000)],
    [
      "JPEG with 31 scans on 4 megapixels",
      concat(
        put16(
          put16(progressive, indexOfMarker(progressive, 0xc2) + 5, 1999),
          indexOfMarker(progressive, 0xc2) + 7,
          2000,
        )
          .subarray(0, -2),
        ...Array(20).fill(scan),
        eoi,
      ),
    ],
    ["JPEG with 5,000 scans", concat(progressive.subarray(0, -2), ...Array(5000).fill(scan), eoi)],
    ["JPEG with 50 scans", concat(progressive.subarray(0, -2), ...Array(50).fill(scan), eoi)],
    ["JPEG without its end", base.subarray(0, -2)],
    ["JPEG with two ends", concat(base, eoi)],
    ["JPEG twice", concat(base, base)],
    ["JPEG with a second frame", concat(base.subarray(0, -2), base.subarray(frame, frame + 19), eoi)],
    [
      "JPEG of restarts",
      concat(base.subarray(0, -2), new Uint8Array(200_000).map((_, i) => i % 2 ? 0xd0 : 255), eoi),
    ],
    ["JPEG of fill bytes", concat(base.subarray(0, 2), new Uint8Array(500_000).fill(255), base.subarray(2))],
    ["JPEG with 10,000 comments", after(concat(...Array(10_000).fill(Uint8Array.of(255, 0xfe, 0, 2))))],
    [
      "JPEG with a comment that is a web page",
      after(concat(Uint8Array.of(255, 0xfe, 0, 27), "<script>alert(1)</script>")),
    ],
    ["JPEG with a segment of length 0", after(Uint8Array.of(255, 0xfe, 0, 0))],
    ["JPEG whose directory points at itself", after(exif(1, 8))],
    ["JPEG with 65,535 directory entries", after(exif(65_535, 0))],
    ["JPEG signature alone", Uint8Array.of(255, 0xd8)],
    ["JPEG start and end", concat(Uint8Array.of(255, 0xd8), eoi)],
    ...[0xc1, 0xc3, 0xc5, 0xc9, 0xcb, 0xcf].map((marker): [string, Uint8Array] => [
      `JPEG of kind ${marker.toString(16)}`,
      sof(marker),
    ]),
  ];
}

function webps(files: Files): [string, Uint8Array][] {
  const lossy = files.get("lossy.webp")!, lossless = files.get("lossless.webp")!;
  const size = (n: number) => {
    const out = lossy.slice();
    new DataView(out.buffer).setUint32(4, n, true);
    return out;
  };
  const vp8 = lossy.slice(); // 16383 x 16383 in the frame's own header
  vp8.set([0xff, 0x3f, 0xff, 0x3f], 26);
  const vp8l = lossless.slice();
  vp8l.set([0xff, 0xff, 0xff, 0x0f], 21);
  return [
    ["WebP of 16,383 x 16,383", vp8],
    ["WebP without loss of 16,384 x 16,384", vp8l],
    ["WebP whose RIFF is 0 long", size(0)],
    ["WebP whose RIFF is 4 GB long", size(2 ** 32 - 1)],
    ["WebP twice", concat(lossy, lossy)],
    ["WebP that is a WAV", concat(lossy.subarray(0, 8), "WAVE", lossy.subarray(12))],
    ["WebP with 4 GB of nothing", concat("RIFF\x20\0\0\0WEBPVP8 \xff\xff\xff\xff", new Uint8Array(20))],
    ["WebP signature alone", concat("RIFF\x04\0\0\0WEBP")],
  ];
}

/** Files of other formats, and of none. */
function strangers(files: Files): [string, Uint8Array][] {
  const rgb = files.get("rgb.png")!;
  return Object.entries({
    "nothing": "",
    "one byte": "\x89",
    "GIF":
      "GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "GIF that is a script": "GIF89a=1;alert(1)//",
    "BMP": "BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\xff\xff\xff\x7f\xff\xff\xff\x7f\x01\0\x18\0",
    "TIFF": "II*\0\x08\0\0\0\xff\xff",
    "AVIF": "\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B",
    "SVG": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "XML bomb": '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>',
    "PDF": "%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "HTML": "<!doctype html><script>alert(1)</script>",
    "JSON": '{"image":"../../etc/passwd"}',
    "program": "\x7fELF\x02\x01\x01\0",
    "gzip": "\x1f\x8b\x08\0\0\0\0\0\0\x03",
  }).map(([name, text]): [string, Uint8Array] => [name, concat(text)]).concat([
    ["GIF before a PNG", concat("GIF89a", rgb)],
    ["archive before a PNG", concat("PK\x03\x04", rgb)],
    ["8 MB of noise behind a PNG signature", concat(SIGNATURE, noise(7_900_000))],
    [
      "8 MB of end markers behind a JPEG signature",
      concat("\xff\xd8", new Uint8Array(7_900_000).map((_, i) => i % 2 ? 0xd9 : 255)),
    ],
    [
      "8 MB of scans behind a JPEG signature",
      concat("\xff\xd8", new Uint8Array(7_900_000).map((_, i) => i % 2 ? 0xda : 255)),
    ],
    ["more than a body may have", new Uint8Array(9_000_000)],
  ]);
}

function noise(length: number): Uint8Array {
  const random = new Random(7, "noise");
  return new Uint8Array(Uint32Array.from({ length: length >> 2 }, () => random.uint32()).buffer);
}

/** Good pictures that cost the most that is allowed. */
async function heavy(): Promise<[string, Uint8Array][]> {
  const picture = blankPicture(2000, 2000), random = new Random(3, "heavy");
  for (let i = 0; i < picture.data.length; i++) picture.data[i] = (i >> 6) * 37 + (random.uint32() & 63);
  const formats = ["jpeg", "webp"] as const;
  return await Promise.all(
    formats.map(async (format): Promise<[string, Uint8Array]> => [
      `${format} of 4 noisy megapixels`,
      await encodeImage(picture, format, { quality: 90 }),
    ]),
  );
}

/** One good file, damaged in one of seven ways. */
function mutant(files: Files, random: Random): [string, Uint8Array] {
  const names = [...files.keys()], name = random.pick(names), bytes = files.get(name)!.slice();
  const at = random.int(bytes.length), other = files.get(random.pick(names))!;
  switch (random.int(7)) {
    case 0:
      for (let k = 1 + random.int(8); k > 0; k--) bytes[random.int(bytes.length)] = random.int(256);
      return [`${name} with other bytes`, bytes];
    case 1:
      for (let k = 1 + random.int(4); k > 0; k--) bytes[random.int(bytes.length)] ^= 1 << random.int(8);
      return [`${name} with flipped bits`, repaired(bytes)];
    case 2:
      return [`${name} cut`, bytes.subarray(0, at)];
    case 3:
      return [
        `${name} without a piece`,
        concat(bytes.subarray(0, at), bytes.subarray(at + 1 + random.int(64))),
      ];
    case 4:
      return [
        `${name} with a piece twice`,
        concat(bytes.subarray(0, at), bytes.subarray(random.int(at + 1))),
      ];
    case 5:
      return [
        `${name} going on as another`,
        concat(bytes.subarray(0, at), other.subarray(random.int(other.length))),
      ];
    default:
      bytes.fill(random.pick([0, 255]), at, at + 1 + random.int(32));
      return [`${name} with a gap`, repaired(bytes)];
  }
}

/** A PNG with the checksums of its chunks made good again, so that the damage reaches the decoder. */
function repaired(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
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

export interface HostileOptions {
  /** What a bomb inflates to; 400 unless told. */
  megabytes?: number;
  /** With good pictures that cost the most that is allowed; they take seconds to make. */
  heavy?: boolean;
}

/** `count` hostile files in a random order: about a hundred made by hand, the others mutants of the fixtures. */
export async function hostileImages(
  seed: number,
  count: number,
  { megabytes = 400, heavy: withHeavy = true }: HostileOptions = {},
): Promise<HostileImage[]> {
  const files: Files = new Map();
  const names = Array.from(Deno.readDirSync(IMAGES), ({ name }) => name);
  for (const name of names.filter((name) => /\.(png|jpg|webp)$/.test(name)).sort()) {
    files.set(name, await Deno.readFile(new URL(name, IMAGES)));
  }
  const [bomb, small] = [await zeros(megabytes), await zeros(1)], random = new Random(seed, "hostile");
  const made = [...pngs(files, bomb, small), ...jpegs(files), ...webps(files), ...strangers(files)];
  if (withHeavy) made.push(...await heavy());
  while (made.length < count) made.push(mutant(files, random));
  return random.shuffle(made).map(([name, bytes]) => ({
    name,
    type: random.pick(TYPES),
    bytes: bytes.slice() as Uint8Array<ArrayBuffer>,
  }));
}
