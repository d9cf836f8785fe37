/**
 * The tokenizer of Qwen's first generation, Qwen-VL-Chat among them: "qwen.tiktoken" holds the tokens in the order
 * they are merged in, the special ones follow from their number. Refuses lines of another form and gaps in the ranks.
 */
import { InputError } from "../errors.ts";
import { addedToken, splitterOf } from "./added_tokens.ts";
import { mergeParts } from "./merge.ts";
import { joinUtf8 } from "./token_bytes.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How a text is cut before merging (Qwen-VL-Chat, tokenization_qwen.py); \s there is Unicode's white space. */
const PIECE = new RegExp(
  String
    .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    .replaceAll(String.raw`\s`, String.raw`\p{White_Space}`)
    .replaceAll(String.raw`\S`, String.raw`\P{White_Space}`),
  "gu",
);

const END = "<|endoftext|>", TURN_END = "<|im_end|>";

/** In the order of their ids, the first one after the last rank: 151643 to 151859 in the published file. */
const SPECIALS = [
  END,
  "<|im_start|>",
  TURN_END,
  ...Array.from({ length: 205 }, (_, i) => `<|extra_${i}|>`),
  ..."<ref> </ref> <box> </box> <quad> </quad> <img> </img> <imgpad>".split(" "),
];

const utf8 = new TextEncoder();
const bytesOf = (binary: string) => Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
/** Bytes as a string of that many characters, so that they can be keys. */
const lettersOf = (bytes: Uint8Array) => Array.from(bytes, (byte) => String.fromCharCode(byte));

/** Lines "base64 rank" as tokens in the order of their ranks, each a string of bytes. @throws InputError naming `where` and the line */
export function parseTiktoken(text: string, where: string): string[] {
  const tokens: string[] = [];
  let lines = 0;
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    lines++;
    const [, encoded, rank] = /^([A-Za-z0-9+/]+={0,2}) (\d+)\r?$/.exec(line) ?? [];
    try {
      tokens[Number(rank)] = atob(encoded ?? "?");
    } catch {
      throw new InputError(
        `Cannot read ${where}: line ${i + 1} is ${
          JSON.stringify(line.slice(0, 40))
        }, expected base64 and a rank`,
      );
    }
  }
  if (lines === 0 || tokens.length !== lines || tokens.includes(undefined as unknown as string)) {
    throw new InputError(`Cannot read ${where}: ${lines} lines have ranks up to ${tokens.length - 1}`);
  }
  return tokens;
}

/** The tokenizer of such a file; `stops` are ids that end a text besides Qwen's own. @throws InputError as parseTiktoken, and without all 256 bytes */
export function tiktokenTokenizer(text: string, stops: readonly number[], where: string): Tokenizer {
  const tokens = parseTiktoken(text, where);
  const ranks = new Map(tokens.map((token, rank) => [token, rank]));
  for (let byte = 0; byte < 256; byte++) {
    if (!ranks.has(String.fromCharCode(byte))) {
      throw new InputError(`Cannot use ${where}: byte ${byte} is no token`);
    }
  }
  const specials = SPECIALS.map((content, i) => addedToken(tokens.length + i, content, true));
  const specialIds = new Map(specials.map(({ content, id }) => [content, id]));
  const split = splitterOf(specials);
  const size = tokens.length + specials.length;
  const end = specialIds.get(END)!;

  function encodePiece(piece: string): number[] {
    const letters = lettersOf(utf8.encode(piece));
    const whole = ranks.get(letters.join(""));
    if (whole !== undefined) return [whole];
    return mergeParts(letters, (joined) => ranks.get(joined)).map((part) => ranks.get(part)!);
  }

  function encode(text: string, { special = false } = {}): number[] {
    return split(text.toWellFormed().normalize("NFC"), !special).flatMap((section) =>
      typeof section === "string" ? (section.match(PIECE) ?? []).flatMap(encodePiece) : [section.id]
    );
  }

  function decode(ids: readonly number[], { special = false } = {}): string {
    const pieces = ids.map((id) => {
      if (tokens[id] !== undefined) return bytesOf(tokens[id]);
      const token = specials[id - tokens.length];
      if (token === undefined) {
        throw new RangeError(`Cannot decode the token ${id}: the vocabulary ends at ${size - 1}`);
      }
      return utf8.encode(special ? token.content : "");
    });
    return joinUtf8(pieces);
  }

  return {
    encode,
    decode,
    idOf: (token) => specialIds.get(token) ?? ranks.get(lettersOf(utf8.encode(token)).join("")),
    size,
    eos: end,
    stops: [...new Set([end, specialIds.get(TURN_END)!, ...stops])],
    addsBos: false,
  };
}
