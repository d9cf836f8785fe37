/**
 * Writes the pieces of a GGUF file as a SentencePiece `tokenizer.model` of the BPE kind, a protocol buffer with the
 * fields of sentencepiece_model.proto. Refuses lists of pieces, scores and types that differ in length.
 */
import { InputError } from "../errors.ts";

export interface Pieces {
  tokens: readonly string[];
  scores: readonly number[];
  /** 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. */
  types: readonly number[];
}

const BPE = 2, CONTROL = 3, UNUSED = 5, BYTE = 6;

/** @param prefix whether a space is put in front of every text */
export function sentencePieceModel(
  { tokens, scores, types }: Pieces,
  prefix: boolean,
): Uint8Array<ArrayBuffer> {
  if (tokens.length !== scores.length || tokens.length !== types.length) {
    throw new InputError(
      `Cannot write a tokenizer.model: ${tokens.length} pieces, ${scores.length} scores, ${types.length} types`,
    );
  }
  const pieces = tokens.map((token, i) =>
    bytesField(1, [
      ...bytesField(1, new TextEncoder().encode(token)),
      ...floatField(2, scores[i]),
      ...intField(3, types[i] === UNUSED ? CONTROL : types[i]), // padding: never matched in a text
    ])
  );
  const trainer = [
    ...intField(3, BPE),
    ...intField(4, tokens.length),
    ...intField(35, Number(types.includes(BYTE))),
  ];
  // Nothing but the prefix and the visible spaces: no normalisation, no space removed.
  const normalizer = [
    ...bytesField(1, new TextEncoder().encode("identity")),
    ...intField(3, Number(prefix)),
    ...intField(4, 0),
    ...intField(5, 1),
  ];
  return Uint8Array.from([...pieces.flat(), ...bytesField(2, trainer), ...bytesField(3, normalizer)]);
}

function varint(value: number): number[] {
  const out = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push(value % 128 + 128);
  return [...out, value];
}

const intField = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];
const bytesField = (field: number, bytes: ArrayLike<number>): number[] => [
  ...varint(field * 8 + 2),
  ...varint(bytes.length),
  ...Array.from(bytes),
];
const floatField = (field: number, value: number): number[] => [
  ...varint(field * 8 + 5),
  ...new Uint8Array(new Float32Array([value]).buffer),
];
