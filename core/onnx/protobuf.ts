/**
 * The protobuf wire format, as much of it as ONNX files need: fields written in order into one list of byte pieces.
 * Refuses nothing itself: what a field means, and whether its value fits, is known where messages are put together.
 */

export type Bytes = Uint8Array<ArrayBuffer>;

/** Writes fields of one message; nested messages are writers of their own. */
export class Message {
  readonly #pieces: Bytes[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #push(bytes: Bytes): void {
    this.#pieces.push(bytes);
    this.#length += bytes.length;
  }

  /** An integer field, as uint64 or int64 (two's complement). */
  int(field: number, value: number | bigint): this {
    this.#push(varint(BigInt(field) << 3n));
    this.#push(varint(BigInt.asUintN(64, BigInt(value))));
    return this;
  }

  /** A 32-bit float field. */
  float(field: number, value: number): this {
    this.#push(varint(BigInt(field) << 3n | 5n));
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#push(bytes);
    return this;
  }

  /** Bytes, a text, or a nested message. */
  bytes(field: number, value: Bytes | string | Message): this {
    const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
    this.#push(varint(BigInt(field) << 3n | 2n));
    this.#push(varint(BigInt(content.length)));
    if (content instanceof Message) {
      this.#pieces.push(...content.#pieces);
      this.#length += content.length;
    } else this.#push(content);
    return this;
  }

  /** The same field once for each value. */
  each<T>(values: Iterable<T>, write: (message: this, value: T) => void): this {
    for (const value of values) write(this, value);
    return this;
  }

  /** The whole message, in one piece. */
  encode(): Bytes {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }
}

function varint(value: bigint): Bytes {
  const out: number[] = [];
  for (; value >= 0x80n; value >>= 7n) out.push(Number(value & 0x7fn | 0x80n));
  out.push(Number(value));
  return Uint8Array.from(out);
}
