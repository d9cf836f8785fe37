/**
 * Reads a SentencePiece "tokenizer.model": a protocol buffer of pieces, how they were trained and how text is
 * normalised. Refuses a file that breaks off, and models other than BPE.
 */
import { InputError } from "../errors.ts";

/** sentencepiece_model.proto, SentencePiece.Type. */
export const PieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Piece {
  text: string;
  score: number;
  /** One of PieceType. */
  type: number;
}

export interface SentencePieceModel {
  pieces: Piece[];
  /** Put a space in front of a text. */
  addsDummyPrefix: boolean;
  /** Drop spaces at both ends and all but one between. */
  removesExtraSpaces: boolean;
}

type Field = { field: number; value: number | Uint8Array };

/** The fields of one message: varints and 32-bit words as numbers, the rest as bytes (encoding of protobuf, wire types 0, 1, 2, 5). */
function* fieldsOf(bytes: Uint8Array, where: string): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const broken = () => new InputError(`Cannot read ${where}: it breaks off or is no SentencePiece model`);
  const varint = () => {
    // Numbers, not 32-bit shifts: negative ones take ten bytes, and only small ones are asked for.
    for (let value = 0, scale = 1, i = 0; i < 10; i++, scale *= 128) {
      if (at >= bytes.length) throw broken();
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw broken();
  };
  while (at < bytes.length) {
    const tag = varint(), field = Math.floor(tag / 8), wire = tag % 8;
    if (wire === 0) {
      yield { field, value: varint() };
      continue;
    }
    const length = wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? varint() : NaN;
    if (!(at + length <= bytes.length)) throw broken();
    yield { field, value: wire === 5 ? view.getFloat32(at, true) : bytes.subarray(at, at + length) };
    at += length;
  }
}

function bytesIn({ value }: Field, where: string): Uint8Array {
  if (typeof value !== "number") return value;
  throw new InputError(`Cannot read ${where}: it breaks off or is no SentencePiece model`);
}

const text = new TextDecoder("utf-8", { ignoreBOM: true });
const MODEL_TYPES = ["", "unigram", "BPE", "word", "character"];

/** @throws InputError naming `where` for damage, a model that is no BPE, and a table of characters to be replaced */
export function parseSentencePiece(bytes: Uint8Array, where: string): SentencePieceModel {
  const model: SentencePieceModel = { pieces: [], addsDummyPrefix: true, removesExtraSpaces: true };
  let kind = 1;
  for (const part of fieldsOf(bytes, where)) {
    if (part.field === 1) {
      const piece: Piece = { text: "", score: 0, type: PieceType.normal };
      for (const each of fieldsOf(bytesIn(part, where), where)) {
        if (each.field === 1) piece.text = text.decode(bytesIn(each, where));
        if (each.field === 2) piece.score = Number(each.value);
        if (each.field === 3) piece.type = Number(each.value);
      }
      model.pieces.push(piece);
    } else if (part.field === 2) {
      for (const each of fieldsOf(bytesIn(part, where), where)) {
        if (each.field === 3) kind = Number(each.value);
        if (each.field === 24 && each.value === 1) {
          throw new InputError(
            `Cannot use ${where}: it writes spaces behind words, expected in front of them`,
          );
        }
      }
    } else if (part.field === 3) {
      for (const each of fieldsOf(bytesIn(part, where), where)) {
        if (each.field === 2 && bytesIn(each, where).length > 0) {
          throw new InputError(`Cannot use ${where}: it replaces characters by a table, expected "identity"`);
        }
        if (each.field === 3) model.addsDummyPrefix = each.value === 1;
        if (each.field === 4) model.removesExtraSpaces = each.value === 1;
        if (each.field === 5 && each.value === 0) {
          throw new InputError(`Cannot use ${where}: it does not escape spaces`);
        }
      }
    }
  }
  if (kind !== 2) {
    throw new InputError(`Cannot use ${where}: its model is ${MODEL_TYPES[kind] ?? kind}, expected BPE`);
  }
  if (model.pieces.length === 0) throw new InputError(`Cannot read ${where}: it has no pieces`);
  return model;
}
