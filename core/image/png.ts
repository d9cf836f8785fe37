/**
 * PNG decoding to 8-bit RGB: every colour type and depth, interlaced or not; alpha dropped, 16 bits cut to their upper 8.
 * Written here because the WebAssembly decoder at hand keeps a picture's worth of memory for each broken file; refuses
 * streams that end early and inflates little more than the picture needs.
 */
import { ImageError } from "./image_error.ts";
import { blankPicture, type Picture } from "./picture.ts";
import type { PngHeader } from "./png_header.ts";

const CHANNELS: Record<number, number> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
/** Adam7: x start, y start, x step, y step of the seven passes. */
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [
  0,
  1,
  1,
  2,
]];
/** Compressed bytes fed at once; deflate's limit is 1 : 1032, so after a piece that grew large they are fewer. */
const SLICE = 16_384, SMALL_SLICE = 1024, LARGE = 1_000_000;

interface Pass {
  x0: number;
  y0: number;
  dx: number;
  dy: number;
  width: number;
  height: number;
  /** Bytes of a row, without its filter byte. */
  stride: number;
}

/** Decodes a PNG whose header has passed the guard. @throws ImageError "truncated" or "malformed" */
export async function decodePng(header: PngHeader, name: string): Promise<Picture> {
  const bits = CHANNELS[header.colorType] * header.bitDepth;
  const passes: Pass[] = (header.interlaced ? ADAM7 : [[0, 0, 1, 1]]).map(([x0, y0, dx, dy]) => {
    const width = Math.ceil((header.width - x0) / dx), height = Math.ceil((header.height - y0) / dy);
    return { x0, y0, dx, dy, width, height, stride: Math.ceil((width * bits) / 8) };
  }).filter((pass) => pass.width > 0 && pass.height > 0);
  const size = passes.reduce((n, p) => n + (p.stride + 1) * p.height, 0);
  const out = blankPicture(header.width, header.height),
    longest = Math.max(...passes.map((p) => p.stride)) + 1;
  // Row by row: a whole picture of 16 bits would take up to eight bytes a pixel beside the result.
  let row = new Uint8Array(longest), previous = new Uint8Array(longest), filled = 0, total = 0;
  let at = 0, y = 0; // the pass, and the row in it
  for await (const piece of inflate(header.data, name)) {
    for (let from = 0; from < piece.length && at < passes.length;) {
      const pass = passes[at], length = pass.stride + 1;
      const part = piece.subarray(from, from + length - filled);
      row.set(part, filled);
      [from, filled, total] = [from + part.length, filled + part.length, total + part.length];
      if (filled < length) break;
      const samples = row.subarray(1, length);
      unfilter(row[0], samples, previous.subarray(1, length), Math.max(1, bits >> 3), name);
      writeRow(out, header, pass, y, samples);
      [row, previous, filled] = [previous, row, 0];
      if (++y < pass.height) continue;
      [at, y] = [at + 1, 0];
      previous.fill(0); // a pass's first row has none above it
    }
    if (at === passes.length) return out;
  }
  throw new ImageError("truncated", `the PNG holds ${total} of ${size} bytes`, name);
}

/** The zlib stream in these pieces, inflated no further than it is asked for. @throws ImageError "malformed" */
async function* inflate(pieces: Uint8Array[], name: string): AsyncGenerator<Uint8Array> {
  let piece = 0, offset = 0, slice = SLICE;
  const source = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      while (piece < pieces.length && offset >= pieces[piece].length) [piece, offset] = [piece + 1, 0];
      if (piece >= pieces.length) return controller.close();
      controller.enqueue(pieces[piece].slice(offset, offset += slice));
    },
  }, { highWaterMark: 0 });
  const reader = source.pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new ImageError("malformed", "the PNG's compressed data is broken", name);
      });
      if (done) return;
      slice = value.length > LARGE ? SMALL_SLICE : SLICE;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Undoes a row's filter in place (PNG, 9.2); `unit` is the distance to the pixel on the left, in bytes. */
function unfilter(type: number, row: Uint8Array, up: Uint8Array, unit: number, name: string): void {
  if (type > 4) throw new ImageError("malformed", `the PNG uses filter ${type}, the last one is 4`, name);
  const n = row.length;
  if (type === 1) { for (let i = unit; i < n; i++) row[i] += row[i - unit]; }
  else if (type === 2) { for (let i = 0; i < n; i++) row[i] += up[i]; }
  else if (type === 3) {
    for (let i = 0; i < n; i++) row[i] += ((i >= unit ? row[i - unit] : 0) + up[i]) >> 1;
  } else if (type === 4) {
    for (let i = 0; i < n; i++) {
      const a = i >= unit ? row[i - unit] : 0, b = up[i], c = i >= unit ? up[i - unit] : 0;
      const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
      row[i] += pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
    }
  }
}

/** Spreads a row of samples over the picture's pixels. */
function writeRow(out: Picture, header: PngHeader, pass: Pass, y: number, row: Uint8Array): void {
  const { colorType, bitDepth, palette } = header;
  const channels = CHANNELS[colorType], wide = bitDepth === 16 ? 2 : 1, colored = colorType & 2;
  const scale = colorType === 3 ? 1 : 255 / (2 ** Math.min(bitDepth, 8) - 1);
  for (let x = 0; x < pass.width; x++) {
    const to = ((pass.y0 + y * pass.dy) * out.width + pass.x0 + x * pass.dx) * 3;
    if (colored && colorType !== 3) {
      const from = x * channels * wide;
      for (let c = 0; c < 3; c++) out.data[to + c] = row[from + c * wide];
      continue;
    }
    const value = bitDepth >= 8
      ? row[x * channels * wide]
      : ((row[(x * bitDepth) >> 3] >> (8 - bitDepth - ((x * bitDepth) & 7))) & ((1 << bitDepth) - 1)) * scale;
    // A colour beyond the palette's end reads as black, as it does in other decoders.
    for (let c = 0; c < 3; c++) out.data[to + c] = colorType === 3 ? palette[value * 3 + c] ?? 0 : value;
  }
}
