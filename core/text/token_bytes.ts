/**
 * Bytes of tokens back to text: the 256 letters that byte-level vocabularies write bytes in, the "<0x0A>" of
 * byte fallback, and joining pieces whose characters are spread over several tokens. Broken UTF-8 becomes U+FFFD.
 */

/**
 * The letter of each byte (GPT-2's encoder.py): printable Latin-1 stands for itself, the rest for U+0100 onwards.
 */
export const BYTE_LETTERS: readonly string[] = (() => {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();

const BYTE_OF = new Map(BYTE_LETTERS.map((letter, byte) => [letter, byte]));
const encoder = new TextEncoder();
const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** The bytes that a byte-level token spells; a token with any other letter stands for its own UTF-8. */
export function bytesOfLetters(token: string): Uint8Array {
  const bytes = Array.from(token, (letter) => BYTE_OF.get(letter));
  return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
}

/** One text of many pieces of UTF-8; a sequence may begin in one piece and end in the next. */
export function joinUtf8(pieces: readonly Uint8Array[]): string {
  const joined = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return lossy.decode(joined);
}

/** Spellings of ids, those that `isLeftOut` names not among them. @throws RangeError past the vocabulary */
export function spellTokens(
  ids: readonly number[],
  tokens: readonly (string | undefined)[],
  isLeftOut: (id: number) => boolean,
): string[] {
  const spelled: string[] = [];
  for (const id of ids) {
    if (!(Number.isInteger(id) && id >= 0 && id < tokens.length)) {
      throw new RangeError(`Cannot decode the token ${id}: the vocabulary ends at ${tokens.length - 1}`);
    }
    // Ids that no token has, in a padded vocabulary, have no text.
    const token = tokens[id];
    if (token !== undefined && !isLeftOut(id)) spelled.push(token);
  }
  return spelled;
}

const FALLBACK = /^<0x([0-9A-Fa-f]{2})>$/;

/** The byte of a token "<0x0A>", undefined for any other. */
export function fallbackByte(token: string): number | undefined {
  const match = FALLBACK.exec(token);
  return match ? parseInt(match[1], 16) : undefined;
}

/** A run of fallback bytes as text: broken UTF-8 gives one U+FFFD for each byte of the run, as tokenizers does. */
function textOfRun(bytes: readonly number[]): string {
  try {
    return strict.decode(Uint8Array.from(bytes));
  } catch {
    return "\ufffd".repeat(bytes.length);
  }
}

/** Tokens with every run of byte tokens replaced by its text. */
export function joinFallback(tokens: readonly string[]): string[] {
  const joined: string[] = [];
  let run: number[] = [];
  const end = () => {
    if (run.length > 0) joined.push(textOfRun(run));
    run = [];
  };
  for (const token of tokens) {
    const byte = fallbackByte(token);
    if (byte !== undefined) {
      run.push(byte);
      continue;
    }
    end();
    joined.push(token);
  }
  end();
  return joined;
}
