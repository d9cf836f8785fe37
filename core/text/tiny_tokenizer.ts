/**
 * The built-in model's tokenizer in the form that every other one has. Like tiny.ts it refuses no text; ids past the
 * vocabulary are a RangeError.
 */
import { addedToken, splitterOf } from "./added_tokens.ts";
import { ASSISTANT, BOS, EOS, IMAGE, PAD, tinyTokenizer, USER } from "./tiny.ts";
import type { Tokenizer } from "./tokenizer.ts";

const { vocab } = tinyTokenizer;
const SPECIAL = [PAD, BOS, EOS, IMAGE, USER, ASSISTANT].map((id) => addedToken(id, vocab[id], true));
const IDS = new Map(vocab.map((token, id): [string, number] => [token, id]));
const split = splitterOf(SPECIAL);

function encode(text: string, { special = false } = {}): number[] {
  return split(text.toWellFormed(), !special)
    .flatMap((section) => typeof section === "string" ? tinyTokenizer.encode(section) : [section.id]);
}

function decode(ids: readonly number[], { special = false } = {}): string {
  if (!special) return tinyTokenizer.decode([...ids]);
  let text = "", run: number[] = [];
  for (const id of ids) {
    if (id < SPECIAL.length && vocab[id] !== undefined) {
      text += tinyTokenizer.decode(run) + vocab[id];
      run = [];
    } else run.push(id);
  }
  return text + tinyTokenizer.decode(run);
}

export const tinyAsTokenizer: Tokenizer = {
  encode,
  decode,
  idOf: (token) => IDS.get(token),
  size: vocab.length,
  bos: BOS,
  eos: EOS,
  stops: [EOS],
  addsBos: true,
};
