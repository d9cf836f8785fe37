/**
 * The directory of a ZIP file, zip64 included, for files whose entries lie in it uncompressed.
 * Refuses compressed and encrypted entries, entries outside the file, and two of one name.
 */
import { InputError } from "../errors.ts";
import type { ByteSource } from "./folder.ts";

export interface StoredEntry {
  readonly size: number;
  /** Of the local header, which stands in front of the data. */
  readonly header: number;
}

const END = 0x06054b50, END64 = 0x06064b50, LOCATOR64 = 0x07064b50, ENTRY = 0x02014b50, LOCAL = 0x04034b50;
const DIRECTORY_LIMIT = 256 * 2 ** 20;

/**
 * Entries by name. Layout: PKWARE's APPNOTE 6.3.10, sections 4.3.12 to 4.3.16.
 * @throws InputError naming the file and what is wrong with it
 */
export async function readZip(source: ByteSource): Promise<Map<string, StoredEntry>> {
  const fail = (why: string): never => {
    throw new InputError(`Cannot read "${source.name}": ${why}`);
  };
  const { size, offset, count } = await findDirectory(source, fail);
  if (size > DIRECTORY_LIMIT || offset + size > source.size) {
    fail(`its directory claims bytes ${offset} to ${offset + size}, the file has ${source.size}`);
  }
  const bytes = await source.readAt(offset, size), view = new DataView(bytes.buffer);
  const entries = new Map<string, StoredEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > size || view.getUint32(at, true) !== ENTRY) fail(`its directory breaks off at entry ${i}`);
    const nameLength = view.getUint16(at + 28, true), extraLength = view.getUint16(at + 30, true);
    const next = at + 46 + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > size) fail(`its directory breaks off at entry ${i}`);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (view.getUint16(at + 8, true) & 1) fail(`its entry "${name}" is encrypted`);
    const method = view.getUint16(at + 10, true);
    if (method !== 0) fail(`its entry "${name}" is compressed (method ${method}), expected stored`);
    const extra = new DataView(bytes.buffer, at + 46 + nameLength, extraLength);
    const [full, packed, header] = wide(extra, [
      view.getUint32(at + 24, true),
      view.getUint32(at + 20, true),
      view.getUint32(at + 42, true),
    ]);
    if (packed !== full || header + 30 + full > source.size) {
      fail(`its entry "${name}" claims ${full} bytes from byte ${header}, the file has ${source.size}`);
    }
    if (entries.has(name)) fail(`it has two entries "${name}"`);
    entries.set(name, { size: full, header });
    at = next;
  }
  return entries;
}

/** Where an entry's bytes start in the file. @throws InputError when its local header is damaged */
export async function dataStart(source: ByteSource, { header, size }: StoredEntry): Promise<number> {
  const view = new DataView((await source.readAt(header, 30)).buffer);
  const start = header + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (view.getUint32(0, true) !== LOCAL || start + size > source.size) {
    throw new InputError(`Cannot read "${source.name}": the entry at byte ${header} is damaged`);
  }
  return start;
}

type Fail = (why: string) => never;

async function findDirectory(source: ByteSource, fail: Fail) {
  const length = Math.min(source.size, 65557), base = source.size - length; // the longest comment and the record
  const bytes = await source.readAt(base, length), view = new DataView(bytes.buffer);
  let at = length - 22;
  while (at >= 0 && view.getUint32(at, true) !== END) at--;
  if (at < 0) fail("it has no ZIP directory at its end: it is cut off, or no file of torch.save");
  const found = {
    count: view.getUint16(at + 10, true),
    size: view.getUint32(at + 12, true),
    offset: view.getUint32(at + 16, true),
  };
  if (at < 20 || view.getUint32(at - 20, true) !== LOCATOR64) return found;
  const record = Number(view.getBigUint64(at - 12, true));
  if (record + 56 > source.size) fail(`its zip64 record claims byte ${record}, the file has ${source.size}`);
  const wide = new DataView((await source.readAt(record, 56)).buffer);
  if (wide.getUint32(0, true) !== END64) fail("its zip64 record is damaged");
  return {
    count: Number(wide.getBigUint64(32, true)),
    size: Number(wide.getBigUint64(40, true)),
    offset: Number(wide.getBigUint64(48, true)),
  };
}

/** Values of 32 bits that are all ones stand in the zip64 field of the extras, in order. */
function wide(extra: DataView, values: number[]): number[] {
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const id = extra.getUint16(at, true),
      end = Math.min(at + 4 + extra.getUint16(at + 2, true), extra.byteLength);
    at += 4;
    if (id === 1) {
      return values.map((value) => {
        if (value !== 0xffffffff || at + 8 > end) return value;
        at += 8;
        return Number(extra.getBigUint64(at - 8, true));
      });
    }
    at = end;
  }
  return values;
}
