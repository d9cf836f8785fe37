/**
 * Text of tokens as they come: a character whose bytes are spread over several tokens is given when it is whole. It
 * refuses what the tokenizer refuses.
 */
import type { Tokenizer } from "./tokenizer.ts";

export interface TextStream {
  /** What this token adds; "" while a character is incomplete. */
  push(id: number): string;
  /** What is left at the end: an incomplete character as U+FFFD. */
  end(): string;
}

/**
 * A stream whose pieces, joined, are `tokenizer.decode` of all tokens, unless a run of bytes turns out broken after a
 * whole character of it was given. Each token costs the same, however many came before.
 */
export function textStream(tokenizer: Pick<Tokenizer, "decode">): TextStream {
  // Text depends on what stands in front (a first space is dropped), so each piece is decoded behind the last given one.
  let given: number[] = [], waiting: number[] = [];
  const next = () => {
    const before = tokenizer.decode(given), all = tokenizer.decode([...given, ...waiting]);
    return all.slice(before.length);
  };
  return {
    push(id) {
      waiting.push(id);
      const text = next();
      if (text === "" || text.endsWith("\ufffd")) return "";
      [given, waiting] = [waiting, []];
      return text;
    },
    end() {
      const text = next();
      [given, waiting] = [[], []];
      return text;
    },
  };
}
