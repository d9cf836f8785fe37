/**
 * The structure of a PNG (W3C PNG, third edition): its chunks walked and their checksums verified.
 * Refuses files without an end chunk, critical chunks with a wrong checksum, and colour types that do not exist.
 */
import { exifOrientation } from "./exif.ts";
import type { ImageHeader } from "./header.ts";
import { ImageError } from "./image_error.ts";

export interface PngHeader extends ImageHeader {
  /** 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA. */
  colorType: number;
  /** Bits a sample: 1, 2, 4, 8, 16. */
  bitDepth: number;
  interlaced: boolean;
  /** RGB triples. */
  palette: Uint8Array;
  /** The pieces of the zlib stream, in order. */
  data: Uint8Array[];
}

const DEPTHS: Record<number, number[]> = {
  0: [1, 2, 4, 8, 16],
  2: [8, 16],
  3: [1, 2, 4, 8],
  4: [8, 16],
  6: [8, 16],
};

/** Walks the chunks. @throws ImageError "truncated", "malformed" or "unsupported" */
export function readPngHeader(bytes: Uint8Array, name: string): PngHeader {
  const malformed = (why: string): never => {
    throw new ImageError("malformed", why, name);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let header: PngHeader | undefined;
  for (let at = 8;;) {
    if (at + 12 > bytes.length) {
      throw new ImageError("truncated", "the PNG breaks off before its end chunk", name);
    }
    const length = view.getUint32(at), type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length) {
      throw new ImageError("truncated", `the PNG's "${printable(type)}" chunk breaks off`, name);
    }
    const body = bytes.subarray(at + 8, at + 8 + length);
    const critical = (bytes[at + 4] & 0x20) === 0;
    if (critical && crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      malformed(`the checksum of the PNG's "${printable(type)}" chunk is wrong`);
    }
    at += 12 + length;
    if (!header) {
      if (type !== "IHDR") return malformed("the PNG does not start with its IHDR chunk");
      header = readIhdr(body, name);
    } else if (type === "IHDR") malformed("the PNG has two IHDR chunks");
    else if (type === "PLTE") header.palette = body.subarray(0, 768);
    else if (type === "IDAT") header.data.push(body);
    else if (type === "acTL") header.animated = true;
    else if (type === "eXIf") header.orientation = exifOrientation(body);
    else if (type === "IEND") break;
    else if (critical) {
      throw new ImageError("unsupported", `the PNG has a "${printable(type)}" chunk nobody knows`, name);
    }
  }
  if (header.data.length === 0) malformed("the PNG has no IDAT chunk");
  if (header.colorType === 3 && header.palette.length === 0) malformed("the PNG has no palette");
  return header;
}

function readIhdr(body: Uint8Array, name: string): PngHeader {
  if (body.length !== 13) {
    throw new ImageError("malformed", `IHDR has ${body.length} bytes, expected 13`, name);
  }
  const view = new DataView(body.buffer, body.byteOffset, 13);
  const [bitDepth, colorType, compression, filter, interlace] = body.subarray(8);
  if (!DEPTHS[colorType]?.includes(bitDepth) || compression !== 0 || filter !== 0 || interlace > 1) {
    throw new ImageError(
      "malformed",
      `the PNG's colour type ${colorType} with ${bitDepth} bits does not exist`,
      name,
    );
  }
  return {
    format: "png",
    width: view.getUint32(0),
    height: view.getUint32(4),
    orientation: 1,
    scans: 1,
    animated: false,
    components: 3,
    colorType,
    bitDepth,
    interlaced: interlace === 1,
    palette: new Uint8Array(0),
    data: [],
  };
}

const printable = (type: string): string => type.replace(/[^A-Za-z]/g, "?");

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** CRC-32 as PNG and zip use it. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
