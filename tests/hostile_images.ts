/**
 * Image files that mean harm, by a seed: bombs, false headers, polyglots, thousands of scans, and mutations of good files.
 * Each comes with the media type that a liar would give it; what is made from one seed is the same on every machine.
 */
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { Random } from "../core/random.ts";
import { concat, type Files, paethPng, pngs, repaired, repeated, SIGNATURE, zeros } from "./hostile_png.ts";

export interface HostileImage {
  /** What was done to it, in words. */
  name: string;
  type: string;
  bytes: Uint8Array<ArrayBuffer>;
}

const IMAGES = new URL("./fixtures/images/", import.meta.url);
const TYPES = ["image/png", "image/jpeg", "image/webp"];
const indexOfMarker = (jpeg: Uint8Array, marker: number): number =>
  jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === marker);

/** A copy with a big-endian 16-bit number put at `at`. */
function put16(bytes: Uint8Array<ArrayBuffer>, at: number, value: number): Uint8Array<ArrayBuffer> {
  const out = bytes.slice();
  new DataView(out.buffer).setUint16(at, value);
  return out;
}

/** An EXIF segment whose directory points at itself or promises `entries` that are not there. */
function exif(entries: number, next: number, orientation = 0): Uint8Array<ArrayBuffer> {
  const tiff = concat(
    "II*\0",
    Uint8Array.of(8, 0, 0, 0, entries & 255, entries >> 8, 0x12, 1, 3, 0, 1, 0, 0, 0),
  );
  const value = Uint8Array.of(orientation & 255, orientation >> 8, 0, 0, next & 255, next >> 8, 0, 0);
  const body = concat("Exif\0\0", tiff, value);
  return concat(Uint8Array.of(0xff, 0xe1, 0, body.length + 2), body);
}

/** A segment of `length` zeros. */
function segment(marker: number, length: number): Uint8Array<ArrayBuffer> {
  return concat(Uint8Array.of(255, marker, (length + 2) >> 8, (length + 2) & 255), new Uint8Array(length));
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
        repeated(scan, 20),
        eoi,
      ),
    ],
    ["JPEG with 5,000 scans", concat(progressive.subarray(0, -2), repeated(scan, 5000), eoi)],
    ["JPEG with 50 scans", concat(progressive.subarray(0, -2), repeated(scan, 50), eoi)],
    ["JPEG without its end", base.subarray(0, -2)],
    ["JPEG with two ends", concat(base, eoi)],
    ["JPEG twice", concat(base, base)],
    ["JPEG with a second frame", concat(base.subarray(0, -2), base.subarray(frame, frame + 19), eoi)],
    [
      "JPEG of restarts",
      concat(base.subarray(0, -2), new Uint8Array(200_000).map((_, i) => i % 2 ? 0xd0 : 255), eoi),
    ],
    ["JPEG of fill bytes", concat(base.subarray(0, 2), new Uint8Array(500_000).fill(255), base.subarray(2))],
    ["JPEG with 10,000 comments", after(repeated(Uint8Array.of(255, 0xfe, 0, 2), 10_000))],
    [
      "JPEG with a comment that is a web page",
      after(concat(Uint8Array.of(255, 0xfe, 0, 27), "<script>alert(1)</script>")),
    ],
    ["JPEG with a segment of length 0", after(Uint8Array.of(255, 0xfe, 0, 0))],
    ["JPEG whose directory points at itself", after(exif(1, 8))],
    ["JPEG with 65,535 directory entries", after(exif(65_535, 0))],
    ...[0, 9, 65_535].map((orientation): [string, Uint8Array] => [
      `JPEG of orientation ${orientation}`,
      after(exif(1, 0, orientation)),
    ]),
    ["JPEG with 100 segments of 64 kB", after(repeated(segment(0xe1, 65_533), 100))],
    ["JPEG with 10,000 empty tables", after(repeated(segment(0xc4, 0), 10_000))],
    ["JPEG that restarts after each block", after(Uint8Array.of(255, 0xdd, 0, 4, 0, 1))],
    ["JPEG of 12 bits", put16(base, frame + 3, 0x0b0c)],
    ["JPEG of 255 components", base.map((byte, i) => i === frame + 9 ? 255 : byte)],
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
    ["WebP of 20,000 frames", riff(vp8x(2, 1), repeated(piece("ANMF", new Uint8Array(16)), 20_000))],
    ["WebP on a canvas of 16,777,216", riff(vp8x(0, 2 ** 24), lossy.subarray(12))],
    ["WebP with 100,000 pieces", riff(vp8x(0, 1), repeated(piece("JUNK", new Uint8Array(0)), 100_000))],
    ["WebP signature alone", concat("RIFF\x04\0\0\0WEBP")],
  ];
}

/** A piece of a RIFF file, of even length. */
function piece(type: string, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, body.length, true);
  return concat(type, size, body);
}

/** WebP's extended header. */
function vp8x(flags: number, side: number): Uint8Array<ArrayBuffer> {
  const last = side - 1, sides = [last & 255, (last >> 8) & 255, last >> 16];
  return piece("VP8X", Uint8Array.of(flags, 0, 0, 0, ...sides, ...sides));
}

const riff = (...pieces: Uint8Array[]): Uint8Array<ArrayBuffer> => piece("RIFF", concat("WEBP", ...pieces));

/** Files of other formats, and of none. */
function strangers(files: Files, bomb: Uint8Array, gzipped: Uint8Array): [string, Uint8Array][] {
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
    "JPEG XL": "\xff\x0a\xfa\x1f\x01\x91",
    "HEIC": "\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "icon": "\0\0\x01\0\x01\0\0\0\0\0\x01\0\x20\0\xff\xff\xff\x7f\x16\0\0\0",
    "data address": "data:image/png;base64,iVBORw0KGgo=",
    "PNG in the letters of another code": "\xff\xfe\x89\0P\0N\0G\0",
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
    ["gzip bomb", gzipped],
    // A local header that promises deflated data; without its two bytes of head a zlib stream is that.
    ["zip bomb", concat("PK\x03\x04\x14\0\0\0\x08\0", new Uint8Array(16), "\x01\0\0\0a", bomb.subarray(2))],
    ["gzip bomb behind a PNG", concat(rgb, gzipped)],
    ["zlib bomb", bomb],
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
  const lossy = await Promise.all(
    formats.map(async (format): Promise<[string, Uint8Array]> => [
      `${format} of 4 noisy megapixels`,
      await encodeImage(picture, format, { quality: 90 }),
    ]),
  );
  return [...lossy, ["PNG of 4 megapixels and 16 bits, filtered the dear way", paethPng()]];
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

export interface HostileOptions {
  /** What a bomb inflates to; 400 unless told. */
  megabytes?: number;
  /** With good pictures that cost the most that is allowed; they take seconds to make. */
  heavy?: boolean;
}

/** `count` hostile files in a random order: each fixture as it is, over a hundred made by hand, the others mutants. */
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
  const gzipped = await zeros(megabytes, "gzip");
  const made = [
    ...[...files].map(([name, bytes]): [string, Uint8Array] => [`${name} as it is`, bytes]),
    ...pngs(files, bomb, small),
    ...jpegs(files),
    ...webps(files),
    ...strangers(files, bomb, gzipped),
  ];
  if (withHeavy) made.push(...await heavy());
  while (made.length < count) made.push(mutant(files, random));
  return random.shuffle(made).map(([name, bytes]) => ({
    name,
    type: random.pick(TYPES),
    bytes: bytes.slice() as Uint8Array<ArrayBuffer>,
  }));
}
