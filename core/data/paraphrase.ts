/**
 * The text control of the study: one or two small edits a turn, by seed. A rule set stands in for the language model
 * of the published study: synonyms, contractions and punctuation, nothing that changes what is asked or answered.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import type { Random } from "../random.ts";
import type { Turn } from "./sample.ts";

/** Groups of words that may stand for one another in questions and captions; the first spelling is kept where known. */
const SYNONYMS = [
  ["picture", "image", "photo"],
  ["what", "which"],
  ["color", "colour"],
  ["gray", "grey"],
  ["big", "large"],
  ["small", "little"],
  ["man", "guy"],
  ["woman", "lady"],
  ["kid", "child"],
  ["kids", "children"],
  ["sofa", "couch"],
  ["bike", "bicycle"],
  ["automobile", "car"],
  ["plane", "airplane"],
  ["tv", "television"],
  ["shown", "visible"],
  ["near", "close to", "next to"],
  ["beside", "alongside"],
  ["begin", "start"],
  ["tell", "say"],
  ["describe", "explain"],
  ["provide", "give"],
  ["contain", "include"],
  ["contains", "includes"],
  ["present", "there"],
  ["object", "thing"],
  ["objects", "things"],
  ["disk", "disc"],
  ["ring", "circle"],
  ["brief", "short"],
  ["phrase", "expression"],
  ["reply", "answer", "respond"],
  ["using", "with"],
  ["single", "lone"],
  ["many", "numerous"],
  ["several", "a number of"],
  ["wearing", "dressed in"],
  ["holding", "carrying"],
  ["is not", "isn't"],
  ["are not", "aren't"],
  ["does not", "doesn't"],
  ["there is", "there's"],
  ["what is", "what's"],
];

const OTHERS = new Map<string, string[]>();
for (const group of SYNONYMS) {
  for (const word of group) OTHERS.set(word, group.filter((other) => other !== word));
}
/** Longest first, so that "close to" is found before "close". */
const KNOWN = new RegExp(
  `(?<![\\w'])(?:${[...OTHERS.keys()].sort((a, b) => b.length - a.length).join("|")})(?![\\w'])`,
  "gi",
);

/** A file of paraphrases by question or answer, for those who have a language model's. */
export const paraphrasesSchema = z.record(z.string(), z.array(z.string().min(1)).min(1));
export type Paraphrases = z.infer<typeof paraphrasesSchema>;

/** @throws InputError naming the file and the entry */
export function readParaphrases(json: unknown, name: string): Paraphrases {
  const parsed = paraphrasesSchema.safeParse(json);
  if (!parsed.success) throw new InputError(`Cannot use "${name}": ${issueOf(parsed.error)}`);
  return parsed.data;
}

/**
 * The question with one or two edits. Answers of one word are what training measures and stay; longer ones are edited
 * too, as in the study. A text without a known word gets an edit of its punctuation.
 */
export function paraphraseTurn(turn: Turn, random: Random, given: Paraphrases = {}): Turn {
  return {
    question: paraphrase(turn.question, random.split("question"), given),
    answer: /\s/.test(turn.answer.trim())
      ? paraphrase(turn.answer, random.split("answer"), given)
      : turn.answer,
  };
}

/** One or two known words exchanged, else an edit of the punctuation; a given paraphrase goes first. */
export function paraphrase(text: string, random: Random, given: Paraphrases = {}): string {
  if (Object.hasOwn(given, text)) return random.pick(given[text]);
  const found = [...text.matchAll(KNOWN)];
  if (found.length === 0) return editPunctuation(text, random);
  const chosen = random.shuffle(found).slice(0, 1 + random.int(2)).sort((a, b) => b.index - a.index);
  let out = text;
  for (const { 0: word, index } of chosen) {
    const other = random.pick(OTHERS.get(word.toLowerCase())!);
    const cased = /^\p{Lu}/u.test(word) ? other[0].toUpperCase() + other.slice(1) : other;
    out = out.slice(0, index) + cased + out.slice(index + word.length);
  }
  return out;
}

/** Takes the last mark away, or adds one that fits. */
function editPunctuation(text: string, random: Random): string {
  const trimmed = text.trimEnd();
  if (/[.?!]$/.test(trimmed)) {
    return random.int(2) ? trimmed.slice(0, -1) : `${trimmed.slice(0, -1)} ${trimmed.at(-1)}`;
  }
  return trimmed + (/^(is|are|what|which|who|where|how|does|do)\b/i.test(trimmed) ? "?" : ".");
}
