/**
 * Image files: decoded as Pillow decodes them, refused by name where they are hostile, encoded the same every time.
 */
import assert from "node:assert/strict";
import { decodeImage, encodeImage, initCodecs } from "../core/image/codecs.ts";
import { guardImage } from "../core/image/guard.ts";
import { readHeader, sniffFormat } from "../core/image/header.ts";
import { ImageError } from "../core/image/image_error.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { crc32 } from "../core/image/png_header.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { InputError } from "../core/errors.ts";
import { Random } from "../core/random.ts";
import { FIXTURES } from "./check.ts";

const file = (name: string): Uint8Array<ArrayBuffer> => Deno.readFileSync(`${FIXTURES}/images/${name}`);
const expected: Record<string, [number, number, string]> = JSON.parse(
  Deno.readTextFileSync(`${FIXTURES}/images/decode.json`),
);

/** Fails unless decoding is refused with this code and a message that names the image. */
async function refused(code: string, bytes: Uint8Array, limits = {}): Promise<void> {
  await assert.rejects(decodeImage(bytes, { name: "x.bin", ...limits }), (error) => {
    assert(error instanceof ImageError && error instanceof InputError);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, /^Cannot read "x\.bin": .*[^.]$/);
    return true;
  });
}

function concat(...parts: (Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.map((p) => typeof p === "string" ? Uint8Array.from(p, (c) => c.charCodeAt(0)) : p);
  const out = new Uint8Array(bytes.reduce((n, b) => n + b.length, 0));
  bytes.reduce((at, b) => (out.set(b, at), at + b.length), 0);
  return out;
}

/** A PNG chunk with its length and checksum. */
function chunk(type: string, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = concat(new Uint8Array(4), type, body, new Uint8Array(4));
  const view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  view.setUint32(out.length - 4, crc32(out.subarray(4, out.length - 4)));
  return out;
}

function ihdr(width: number, height: number, depth = 8, color = 2): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(13);
  new DataView(body.buffer).setUint32(0, width);
  new DataView(body.buffer).setUint32(4, height);
  body.set([depth, color], 8);
  return chunk("IHDR", body);
}

const SIGNATURE = "\x89PNG\r\n\x1a\n";

async function deflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function noise(width: number, height: number, seed = 1): Picture {
  const random = new Random(seed), picture = blankPicture(width, height);
  for (let i = 0; i < picture.data.length; i++) picture.data[i] = random.int(256);
  return picture;
}

Deno.test("every file decodes to what Pillow reads: types, depths, interlacing, subsampling, alpha, orientation", async () => {
  assert(Object.keys(expected).length > 60);
  for (const [name, [width, height, hash]] of Object.entries(expected)) {
    const picture = await decodeImage(file(name), { name });
    assert.deepEqual([picture.width, picture.height], [width, height], name);
    assert.equal(await sha256(picture.data as Uint8Array<ArrayBuffer>), hash, name);
    assert.equal(picture.format, { png: "png", jpg: "jpeg", webp: "webp" }[name.split(".")[1]]);
  }
});

Deno.test("the eight orientations of one picture are eight different pictures", () => {
  const hashes = Array.from({ length: 8 }, (_, i) => expected[`turned${i + 1}.png`]);
  assert.equal(new Set(hashes.map(([, , hash]) => hash)).size, 8);
  assert.deepEqual(hashes.map(([width]) => width), [19, 19, 19, 19, 13, 13, 13, 13]);
});

Deno.test("PNG keeps every pixel; equal pictures give equal bytes; JPEG and WebP stay close at high quality", async () => {
  const picture = noise(23, 17);
  const png = await encodeImage(picture, "png");
  assert.deepEqual((await decodeImage(png)).data, picture.data);
  const soft = blankPicture(64, 48);
  for (let i = 0; i < soft.data.length; i++) soft.data[i] = (i / 3) % 64 * 2 + 40 * (i % 3);
  for (const format of ["png", "jpeg", "webp"] as const) {
    const first = await encodeImage(soft, format, { quality: 95 });
    assert.equal(sniffFormat(first), format);
    assert.deepEqual(await encodeImage(soft, format, { quality: 95 }), first);
    const back = await decodeImage(first);
    assert.deepEqual([back.width, back.height], [64, 48]);
    const error = soft.data.reduce((sum, value, i) => sum + Math.abs(value - back.data[i]), 0) /
      soft.data.length;
    assert(error < 4, `${format}: mean error ${error}`);
  }
  for (const format of ["jpeg", "webp"] as const) {
    const sizes = await Promise.all(
      [20, 60, 95].map((quality) => encodeImage(noise(64, 48), format, { quality })),
    );
    assert(sizes[0].length < sizes[1].length && sizes[1].length < sizes[2].length, format);
  }
});

Deno.test("codecs run from modules compiled elsewhere", async () => {
  const compile = (path: string) =>
    Deno.readFile(new URL(import.meta.resolve(path))).then((bytes) => WebAssembly.compile(bytes));
  const webp = await encodeImage(noise(9, 9), "webp");
  await initCodecs({
    jpegDecoder: await compile("@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm"),
    jpegEncoder: await compile("@jsquash/jpeg/codec/enc/mozjpeg_enc.wasm"),
    pngEncoder: await compile("@jsquash/png/codec/pkg/squoosh_png_bg.wasm"),
    webpDecoder: await compile("@jsquash/webp/codec/dec/webp_dec.wasm"),
    webpEncoder: await compile("@jsquash/webp/codec/enc/webp_enc_simd.wasm"),
  });
  assert.deepEqual(await encodeImage(noise(9, 9), "webp"), webp);
  for (const name of ["baseline.jpg", "lossy.webp"]) {
    const picture = await decodeImage(file(name));
    assert.equal(await sha256(picture.data as Uint8Array<ArrayBuffer>), expected[name][2]);
  }
  await initCodecs({});
});

Deno.test("format is told by content; what is no PNG, JPEG or WebP is refused and named", async () => {
  assert.equal((await decodeImage(file("rgb.png"), { name: "photo.jpg" })).format, "png");
  await refused("unknown-format", new Uint8Array(0));
  await refused("unknown-format", concat("GIF89a", new Uint8Array(20)));
  await refused("unknown-format", concat("<svg xmlns='http://www.w3.org/2000/svg'/>"));
  await refused("unknown-format", file("rgb.png").subarray(1));
  await assert.rejects(decodeImage(concat("GIF89a")), /it is a GIF, expected PNG, JPEG or WebP/);
});

Deno.test("pictures with too many pixels are refused by their header alone, in all three formats", async () => {
  const png = concat(
    SIGNATURE,
    ihdr(20_000, 20_000),
    chunk("IDAT", new Uint8Array(9)),
    chunk("IEND", new Uint8Array(0)),
  );
  await refused("too-many-pixels", png);
  const jpeg = file("baseline.jpg");
  const frame = jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xc0);
  jpeg.set([0xff, 0xff, 0xff, 0xff], frame + 5);
  await refused("too-many-pixels", jpeg);
  const webp = file("lossy.webp");
  webp.set([0xff, 0x3f, 0xff, 0x3f], 26);
  await refused("too-many-pixels", webp);
  await refused("too-many-pixels", file("rgb.png"), { maxPixels: 19 * 13 - 1 });
  assert.equal(guardImage(file("rgb.png"), { maxPixels: 19 * 13 }).width, 19);
});

Deno.test("a file cut anywhere is refused as truncated, even with a false end marker", async () => {
  for (const name of ["rgb.png", "baseline.jpg", "progressive.jpg", "lossy.webp", "turned6.webp"]) {
    const bytes = file(name);
    for (let n = 1; n <= 12; n++) {
      await refused(
        "truncated",
        bytes.subarray(0, bytes.length - n * Math.floor(bytes.length / 16) + (n - 1)),
      );
    }
  }
  const jpeg = await encodeImage(noise(64, 64), "jpeg");
  await refused("undecodable", concat(jpeg.subarray(0, jpeg.length >> 1), "\xff\xd9"));
  const rows = await deflate(new Uint8Array(10 * 31));
  await refused(
    "truncated",
    concat(SIGNATURE, ihdr(10, 11), chunk("IDAT", rows), chunk("IEND", new Uint8Array(0))),
  );
});

Deno.test("an end marker inside a thumbnail does not pass for the end of the file", async () => {
  const jpeg = file("baseline.jpg");
  const thumbnail = concat("\xff\xe1\x00\x0aExif\0\0\xff\xd9");
  const whole = concat(jpeg.subarray(0, 2), thumbnail, jpeg.subarray(2));
  assert.equal((await decodeImage(whole)).width, 19);
  await refused("truncated", whole.subarray(0, whole.length - 2));
});

Deno.test("too many scans, animations, CMYK and rare JPEGs are refused by name", async () => {
  const jpeg = file("progressive.jpg");
  const { scans } = readHeader(jpeg);
  assert(scans > 1 && scans < 32, `${scans} scans`);
  const scan = jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xda);
  const bomb = concat(jpeg.subarray(0, -2), ...Array(40).fill(jpeg.subarray(scan, -2)), "\xff\xd9");
  await refused("too-many-scans", bomb);
  await refused("too-many-scans", jpeg, { maxScans: scans - 1 });
  await refused("animated", file("animated.png"));
  await refused("animated", file("animated.webp"));
  await refused("cmyk", file("cmyk.jpg"));
  const arithmetic = file("baseline.jpg");
  arithmetic[arithmetic.findIndex((byte, i) => byte === 0xff && arithmetic[i + 1] === 0xc0) + 1] = 0xc9;
  await refused("unsupported", arithmetic);
});

Deno.test("structures that contradict themselves are refused as malformed", async () => {
  const end = chunk("IEND", new Uint8Array(0)), data = chunk("IDAT", await deflate(new Uint8Array(13)));
  await refused("malformed", concat(SIGNATURE, ihdr(0, 4), data, end));
  await refused("malformed", concat(SIGNATURE, ihdr(4, 1, 4, 2), data, end));
  await refused("malformed", concat(SIGNATURE, ihdr(4, 1), end));
  await refused("malformed", concat(SIGNATURE, data, end));
  await refused("malformed", concat(SIGNATURE, ihdr(4, 1), ihdr(4, 1), data, end));
  await refused("malformed", concat(SIGNATURE, ihdr(4, 1, 8, 3), data, end));
  await refused(
    "malformed",
    concat(SIGNATURE, ihdr(4, 1), chunk("IDAT", await deflate(Uint8Array.of(9, ...Array(12).fill(0)))), end),
  );
  const checksum = file("rgb.png");
  checksum[20] ^= 1;
  await refused("malformed", checksum);
  const webp = file("turned6.webp"); // has a VP8X canvas
  webp[24] += 1;
  await refused("malformed", webp);
});

Deno.test("a compressed bomb inflates no further than its picture needs", async () => {
  const rows = await deflate(new Uint8Array(60_000_000));
  const bomb = concat(SIGNATURE, ihdr(4, 2), chunk("IDAT", rows), chunk("IEND", new Uint8Array(0)));
  const before = performance.now();
  assert.deepEqual((await decodeImage(bomb)).data, new Uint8Array(24));
  assert(performance.now() - before < 1000);
});

Deno.test("600 mutated files: each decodes or is an ImageError", async () => {
  const random = new Random(11);
  const names = Object.keys(expected).sort();
  const seen = new Set<string>();
  for (let i = 0; i < 600; i++) {
    const name = random.pick(names), bytes = file(name);
    for (let k = 1 + random.int(6); k > 0; k--) bytes[random.int(bytes.length)] = random.int(256);
    // With the checksums of its chunks made good again, a broken PNG reaches the decoder.
    if (sniffFormat(bytes) === "png" && random.int(2)) repairChecksums(bytes);
    try {
      const { width, height, data } = await decodeImage(bytes, { maxPixels: 1_000_000 });
      assert.equal(data.length, width * height * 3);
      seen.add("decoded");
    } catch (error) {
      assert(error instanceof ImageError, `${name}: ${error}`);
      seen.add(error.code);
    }
  }
  for (const outcome of ["decoded", "malformed", "truncated", "undecodable"]) {
    assert(seen.has(outcome), outcome);
  }
});

function repairChecksums(bytes: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 8 + view.getUint32(at);
    if (end + 4 > bytes.length) return;
    view.setUint32(end, crc32(bytes.subarray(at + 4, end)));
    at = end + 4;
  }
}
