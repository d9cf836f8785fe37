/**
 * The tokenizer and chat form of the built-in model: specials, every printable ASCII character, and whole words.
 * A known word costs one token and swallows the space before it; everything else is spelled, so nothing is refused.
 */
import { InputError } from "../errors.ts";

const SPECIALS = ["<pad>", "<bos>", "<eos>", "<image>", "<user>", "<assistant>"];

/** Newline, then space to tilde. */
const CHARACTERS = ["\n", ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i))];

/** The words of questions about shapes, photographs and the people written on them; each is one token. */
const WORDS = `
  is are there a an the in of on to not no yes does do contain contains present image picture photo it this
  what What which where who how How many Is Does color colour shape shapes thing things object objects
  red green blue yellow teal gray brown black white orange purple pink cyan magenta
  ring square cross circle rectangle triangle star diamond disk bar
  left right top bottom middle center above below corner
  zero one two three four five six seven eight nine ten none
  photographer known unknown took taken by name person seen have you me tell answer
  username user_id gender age capture_time capture_location
  Male Female Non-binary Other male female city country
  and or with at has background
`.trim().split(/\s+/);

const VOCAB = [...SPECIALS, ...CHARACTERS, ...WORDS];
const FIRST_WORD = SPECIALS.length + CHARACTERS.length;
// Two maps, because "a" is a character and a word.
const CHARACTER_ID = new Map(CHARACTERS.map((character, i) => [character, SPECIALS.length + i]));
const WORD_ID = new Map(WORDS.map((word, i) => [word, FIRST_WORD + i]));

export const [PAD, BOS, EOS, IMAGE, USER, ASSISTANT] = SPECIALS.keys();

/** The label of a position that is not learnt, as transformers has it. */
export const IGNORE = -100;

/** Letters without an ASCII decomposition, and typographic punctuation. */
const FOLDS = new Map(
  "ß:ss æ:ae Æ:AE œ:oe Œ:OE ø:o Ø:O ł:l Ł:L đ:d Đ:D ð:d þ:th ı:i ‘:' ’:' “:\" ”:\" –:- —:-".split(" ")
    .map((pair) => [pair[0], pair.slice(2)]),
);

/** The text in printable ASCII and newlines: accents stripped (NFKD); what has no such form becomes "?". */
export function foldToAscii(text: string): string {
  const plain = text.replaceAll("\r\n", "\n").replaceAll("\t", " ").normalize("NFKD").replace(/\p{M}/gu, "");
  return Array.from(plain, (c) => CHARACTER_ID.has(c) ? c : FOLDS.get(c) ?? "?").join("");
}

/** Words are maximal runs of these letters: two word tokens in a row can only have had a space between them. */
const PIECE = /[A-Za-z_-]+|[^A-Za-z_-]/g;

function encode(text: string): number[] {
  const pieces = foldToAscii(text).match(PIECE) ?? [];
  const words = pieces.map((piece) => WORD_ID.get(piece));
  const ids: number[] = [];
  pieces.forEach((piece, i) => {
    if (words[i] !== undefined) return ids.push(words[i]);
    const isFree = piece === " " && words[i - 1] !== undefined && words[i + 1] !== undefined;
    if (!isFree) { for (const character of piece) ids.push(CHARACTER_ID.get(character)!); }
  });
  return ids;
}

function decode(ids: readonly number[]): string {
  let text = "", afterWord = false;
  for (const id of ids) {
    if (VOCAB[id] === undefined) {
      throw new RangeError(`Cannot decode the token ${id}: the vocabulary has 0 to ${VOCAB.length - 1}`);
    }
    if (id < SPECIALS.length) continue;
    const isWord = id >= FIRST_WORD;
    text += (isWord && afterWord ? " " : "") + VOCAB[id];
    afterWord = isWord;
  }
  return text;
}

/** `decode(encode(text)) === foldToAscii(text)`; specials are never encoded and not decoded. decode throws RangeError past the vocabulary. */
export const tinyTokenizer = { vocab: VOCAB, encode, decode };

/** Ids and labels of T tokens: labels are aligned with ids, unshifted, IGNORE where nothing is learnt. */
export interface Encoded {
  ids: number[];
  labels: number[];
}

function opening(imageTokens: number): number[] {
  if (!Number.isInteger(imageTokens) || imageTokens < 0) {
    throw new InputError(`Cannot place ${imageTokens} image tokens: expected a whole number, 0 or more`);
  }
  return [BOS, ...Array<number>(imageTokens).fill(IMAGE)];
}

/** `<bos> <image>*n (<user> <image>*m question <assistant> answer <eos>)*`; answers and their `<eos>` are learnt. @throws InputError without turns */
export function encodeConversation(
  turns: readonly { question: string; answer: string; imageTokens?: number }[],
  { imageTokens }: { imageTokens: number },
): Encoded {
  if (turns.length === 0) throw new InputError("Cannot encode a conversation: it has no turn");
  const ids = opening(imageTokens);
  const labels = ids.map(() => IGNORE);
  for (const { question, answer, imageTokens = 0 } of turns) {
    const asked = [USER, ...Array<number>(imageTokens).fill(IMAGE), ...encode(question), ASSISTANT];
    const answered = [...encode(answer), EOS];
    ids.push(...asked, ...answered);
    labels.push(...asked.map(() => IGNORE), ...answered);
  }
  return { ids, labels };
}

/** The same up to and with the first `<assistant>`: what the model is asked to go on from. */
export function encodePrompt(question: string, { imageTokens }: { imageTokens: number }): number[] {
  return [...opening(imageTokens), USER, ...encode(question), ASSISTANT];
}

/** The tokenizer as a JSON object, stored beside the weights so that a checkpoint says what its ids mean. */
export function tinyTokenizerJson(): {
  type: "builtin:tiny";
  version: 1;
  template: string;
  specials: Record<string, number>;
  firstWord: number;
  vocab: string[];
} {
  return {
    type: "builtin:tiny",
    version: 1,
    template: "<bos> <image>*n (<user> question <assistant> answer <eos>)*",
    specials: Object.fromEntries(SPECIALS.map((token, id) => [token, id])),
    firstWord: FIRST_WORD,
    vocab: [...VOCAB],
  };
}
