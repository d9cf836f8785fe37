/**
 * Scalars as TensorBoard's event files: length-prefixed records with masked CRC-32C, each a protocol buffer `Event`.
 * Reads back what it writes; a record whose checksum is wrong is refused, half a record at the end is what a kill left.
 */
import { InputError } from "../errors.ts";

export interface ScalarEvent {
  step: number;
  /** Seconds since 1970. */
  time: number;
  /** Value by tag: { "train/loss": 1.5 }. */
  scalars: Record<string, number>;
}

/** Castagnoli's polynomial, reversed: RFC 3720, appendix B.4. */
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0x82f63b78 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** CRC-32C of bytes, unsigned. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** TFRecord's checksum: turned right by 15 bits, plus a constant. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** A whole event file: the version first, then every event. */
export function encodeEvents(events: readonly ScalarEvent[]): Uint8Array<ArrayBuffer> {
  const time = events[0]?.time ?? 0;
  const version = join([tag(1, 1), double(time), text(3, "brain.Event:2")]);
  return join([record(version), ...events.map((event) => record(encodeEvent(event)))]);
}

/** Event: wall_time 1, step 2, summary 5; Summary: value 1; Value: tag 1, simple_value 2. */
function encodeEvent({ step, time, scalars }: ScalarEvent): Uint8Array<ArrayBuffer> {
  const values = Object.entries(scalars).map(([name, value]) =>
    message(1, join([text(1, name), tag(2, 5), float(value)]))
  );
  return join([tag(1, 1), double(time), tag(2, 0), varint(step), message(5, join(values))]);
}

function record(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const length = new Uint8Array(8);
  new DataView(length.buffer).setUint32(0, data.length, true);
  return join([length, word(masked(length)), data, word(masked(data))]);
}

const tag = (field: number, wire: number) => Uint8Array.of(field << 3 | wire);
const text = (field: number, value: string) => message(field, new TextEncoder().encode(value));
const message = (field: number, bytes: Uint8Array<ArrayBuffer>) =>
  join([tag(field, 2), varint(bytes.length), bytes]);
const double = (value: number) => new Uint8Array(Float64Array.of(value).buffer);
const float = (value: number) => new Uint8Array(Float32Array.of(value).buffer);
const word = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);

function varint(value: number): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
  return Uint8Array.from([...bytes, value]);
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The scalar events of a file that `encodeEvents` wrote. @throws InputError naming file and record of a wrong checksum */
export function decodeEvents(bytes: Uint8Array<ArrayBuffer>, name: string): ScalarEvent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), events: ScalarEvent[] = [];
  for (let at = 0, number = 1; at + 12 <= bytes.length; number++) {
    const length = Number(view.getBigUint64(at, true)), start = at + 12, end = start + length;
    const wrong = () => new InputError(`Cannot read "${name}": the checksum of record ${number} is wrong`);
    if (view.getUint32(at + 8, true) !== masked(bytes.subarray(at, at + 8))) throw wrong();
    if (end + 4 > bytes.length) break;
    if (view.getUint32(end, true) !== masked(bytes.subarray(start, end))) throw wrong();
    const event = decodeEvent(bytes.subarray(start, end));
    if (Object.keys(event.scalars).length) events.push(event);
    at = end + 4;
  }
  return events;
}

function decodeEvent(bytes: Uint8Array<ArrayBuffer>): ScalarEvent {
  const event: ScalarEvent = { step: 0, time: 0, scalars: {} };
  for (const [field, value] of fields(bytes)) {
    if (field === 1) event.time = numbers(value).getFloat64(0, true);
    else if (field === 2) event.step = value as number;
    else if (field === 5) {
      for (const [, one] of fields(value as Uint8Array<ArrayBuffer>)) {
        const parts = new Map(fields(one as Uint8Array<ArrayBuffer>));
        const tag = new TextDecoder().decode(parts.get(1) as Uint8Array<ArrayBuffer>);
        event.scalars[tag] = numbers(parts.get(2)!).getFloat32(0, true);
      }
    }
  }
  return event;
}

function numbers(value: number | Uint8Array<ArrayBuffer>): DataView {
  const bytes = value as Uint8Array<ArrayBuffer>;
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Number and value of each field of a protocol buffer: varints as numbers, everything else as bytes. */
function fields(bytes: Uint8Array<ArrayBuffer>): [number, number | Uint8Array<ArrayBuffer>][] {
  const found: [number, number | Uint8Array<ArrayBuffer>][] = [];
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1;
    for (;; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint(), wire = key & 7;
    if (wire === 0) found.push([key >> 3, varint()]);
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : varint();
      found.push([key >> 3, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return found;
}
