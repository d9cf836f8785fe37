/**
 * SentencePiece's BPE as Llama uses it: pieces with scores, spaces as "▁", bytes for what no piece spells, and the
 * added tokens of the checkpoint around it. Refuses vocabularies with unused pieces, or with neither bytes nor unknown.
 */
import { InputError } from "../errors.ts";
import { type AddedToken, addedToken, splitterOf } from "./added_tokens.ts";
import { mergeParts } from "./merge.ts";
import { type Piece, PieceType, type SentencePieceModel } from "./sentencepiece_model.ts";
import { fallbackByte, joinFallback, spellTokens } from "./token_bytes.ts";
import { endsOf, type TokenSettings, withSettings } from "./token_settings.ts";
import type { Tokenizer } from "./tokenizer.ts";

const SPACE = "▁";
const utf8 = new TextEncoder();

/** Characters of a text, with the symbols that were defined by the user kept whole, longest first. */
function symbolsOf(text: string, defined: readonly string[]): { text: string; isDefined: boolean }[] {
  const symbols: { text: string; isDefined: boolean }[] = [];
  for (let at = 0; at < text.length;) {
    const found = defined.find((symbol) => text.startsWith(symbol, at));
    const symbol = found ?? String.fromCodePoint(text.codePointAt(at)!);
    symbols.push({ text: symbol, isDefined: found !== undefined });
    at += symbol.length;
  }
  return symbols;
}

/**
 * Text to ids by a model alone, without added tokens: SentencePiece's bpe_model.cc. The result differs from a lookup of
 * a tokenizer.json's merges only where pieces share a score.
 */
function encoderOf(model: SentencePieceModel, where: string): (text: string, prefix: boolean) => number[] {
  const { pieces } = model;
  const byType = (type: number) => [...pieces.entries()].filter(([, piece]) => piece.type === type);
  if (byType(PieceType.unused).length > 0) {
    throw new InputError(
      `Cannot use ${where}: it has ${byType(PieceType.unused).length} unused pieces, expected none`,
    );
  }
  const mergeable = [...byType(PieceType.normal), ...byType(PieceType.userDefined)];
  const ids = new Map(mergeable.map(([id, piece]) => [piece.text, id]));
  const defined = byType(PieceType.userDefined).map(([, piece]) => piece.text)
    .sort((a, b) => b.length - a.length);
  const unknown = byType(PieceType.unknown)[0]?.[0];
  const byteIds = new Map(byType(PieceType.byte).map(([id, piece]) => [fallbackByte(piece.text), id]));
  const hasBytes = byteIds.size === 256;
  if (!hasBytes && unknown === undefined) {
    throw new InputError(`Cannot use ${where}: it has neither 256 byte pieces nor an unknown one`);
  }
  const costOf = (joined: string) => {
    const id = ids.get(joined);
    return id === undefined ? undefined : -pieces[id].score;
  };

  return (text, prefix) => {
    const trimmed = model.removesExtraSpaces ? text.replace(/^ +| +$/g, "").replace(/ {2,}/g, " ") : text;
    if (trimmed === "") return [];
    const escaped = (prefix ? SPACE : "") + trimmed.replaceAll(" ", SPACE);
    const parts: string[] = [];
    let run: string[] = []; // Symbols of the user are never merged with their neighbours.
    const endRun = () => {
      for (const part of mergeParts(run, costOf)) parts.push(part);
      run = [];
    };
    for (const symbol of symbolsOf(escaped, defined)) {
      if (!symbol.isDefined) {
        run.push(symbol.text);
        continue;
      }
      endRun();
      parts.push(symbol.text);
    }
    endRun();
    const found: number[] = [];
    for (const part of parts) {
      const id = ids.get(part);
      if (id !== undefined) found.push(id);
      else if (hasBytes) { for (const byte of utf8.encode(part)) found.push(byteIds.get(byte)!); }
      // Neighbouring unknown parts are one token.
      else if (found.at(-1) !== unknown) found.push(unknown);
    }
    return found;
  };
}

/** The control and unknown pieces, which are special tokens of the checkpoint too. */
function ownTokens(pieces: readonly Piece[]): AddedToken[] {
  return [...pieces.entries()]
    .filter(([, { type }]) => type === PieceType.control || type === PieceType.unknown)
    .map(([id, { text }]) => addedToken(id, text, true));
}

/**
 * The tokenizer of a model's pieces in the order of their ids. `legacy` (transformers' name) puts a space in front of
 * every stretch of text between special tokens, otherwise only in front of the first; absent means true.
 * @throws InputError for vocabularies it refuses, naming `where`
 */
export function sentencePieceTokenizer(
  model: SentencePieceModel,
  settings: TokenSettings,
  where: string,
): Tokenizer {
  const encodeText = encoderOf(model, where);
  const tokens = model.pieces.map(({ text }) => text);
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const vocabulary = { idOf: (token: string) => ids.get(token), size: tokens.length };
  const added = withSettings(ownTokens(model.pieces), settings, vocabulary);
  for (const { id, content } of added) {
    ids.set(content, id);
    tokens[id] = content;
  }
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  const split = splitterOf(added);
  const addsPrefix = settings.addsPrefixSpace ?? model.addsDummyPrefix;
  const legacy = settings.legacy ?? true;
  const idOf = (token: string) => ids.get(token);
  const ends = endsOf(settings, idOf);
  const bos = ends.bos ?? controlPiece(model.pieces, "<s>"),
    eos = ends.eos ?? controlPiece(model.pieces, "</s>");

  function encode(text: string, { special: asSpecial = false } = {}): number[] {
    const found: number[] = [];
    for (const [i, section] of split(text.toWellFormed(), !asSpecial).entries()) {
      const more = typeof section !== "string"
        ? [section.id]
        : encodeText(section, addsPrefix && (legacy || i === 0));
      for (const id of more) found.push(id);
    }
    return found;
  }

  function decode(wanted: readonly number[], { special: withSpecial = false } = {}): string {
    const spelled = spellTokens(wanted, tokens, (id) => !withSpecial && special.has(id));
    const text = joinFallback(spelled.map((token) => token.replaceAll(SPACE, " "))).join("");
    return addsPrefix && text.startsWith(" ") ? text.slice(1) : text;
  }

  return {
    encode,
    decode,
    idOf,
    size: tokens.length,
    bos,
    eos,
    stops: [...new Set([...(eos === undefined ? [] : [eos]), ...ends.stops])],
    addsBos: bos !== undefined && (settings.addsBos ?? true),
  };
}

function controlPiece(pieces: readonly Piece[], text: string): number | undefined {
  const id = pieces.findIndex((piece) => piece.type === PieceType.control && piece.text === text);
  return id < 0 ? undefined : id;
}
