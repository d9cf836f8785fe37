/**
 * How near an answer comes to a reference: exactly, by edits, or as the VQA challenge counts it, on normalised text.
 * It knows English articles, number words and contractions alone, and refuses an answer without a reference.
 */
import { InputError } from "../errors.ts";

/** Lower case, any run of white space one space, nothing at the ends. */
export const normalise = (text: string): string =>
  text.normalize("NFKC").toLowerCase().trim().replace(/\s+/g, " ");

/** Whether two texts are the same but for case and white space. */
export const isExact = (said: string, truth: string): boolean => normalise(said) === normalise(truth);

/** Whether the truth stands anywhere in what was said. */
export const contains = (said: string, truth: string): boolean => normalise(said).includes(normalise(truth));

/** 1 - edits / length of the longer text, of normalised texts; 1 for two empty ones. */
export function fuzzy(said: string, truth: string): number {
  const a = [...normalise(said)], b = [...normalise(truth)];
  const longer = Math.max(a.length, b.length);
  return longer ? 1 - levenshtein(a, b) / longer : 1;
}

/** Fewest insertions, deletions and exchanges that turn one list into another. */
export function levenshtein<T>(a: readonly T[], b: readonly T[]): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  a.forEach((x, i) => {
    const next = [i + 1];
    b.forEach((y, j) => next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (x === y ? 0 : 1))));
    row = next;
  });
  return row[b.length];
}

const NUMBERS = new Map(
  "none zero one two three four five six seven eight nine ten".split(" ").map((word, i) => [
    word,
    String(Math.max(0, i - 1)),
  ]),
);
const ARTICLES = new Set(["a", "an", "the"]);
/** Contractions without their apostrophe that are no word of their own. */
const CONTRACTIONS = new Map(
  ("aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he's isn't it'd i'm i've mightn't " +
    "mustn't shouldn't she's that's there's they'd they're they've wasn't we've weren't what's where's who's " +
    "won't wouldn't you'd you'll you're you've").split(" ").map((word) => [word.replace("'", ""), word]),
);
/** Marks that become a space between words; at a word's edge they vanish. */
const MARKS = new Set([...'/[]"{}()=+\\_-><@`,?!;']);

/**
 * An answer as the VQA challenge's evaluation compares it (Antol et al. 2015 and its public evaluation code): lower case,
 * marks dropped where a space is beside them or a comma stands between digits, else made a space, full stops dropped but
 * before a digit, number words as digits, no articles, contractions with their apostrophe.
 */
export function normaliseVqa(answer: string): string {
  const text = answer.replace(/[\n\t]/g, " ").trim();
  const commaNumber = /\d,\d/.test(text);
  let out = text;
  for (const mark of MARKS) {
    const beside = text.includes(`${mark} `) || text.includes(` ${mark}`);
    out = out.replaceAll(mark, beside || commaNumber ? "" : " ");
  }
  out = out.replace(/\.(?!\d)/g, "");
  return out.toLowerCase().split(/\s+/).filter(Boolean)
    .map((word) => NUMBERS.get(word) ?? word)
    .filter((word) => !ARTICLES.has(word))
    .map((word) => CONTRACTIONS.get(word) ?? word)
    .join(" ");
}

/** References that must agree for a full score, if there are as many beside the one left out. */
const AGREEING = 3;

/**
 * The VQA challenge's accuracy: min(1, matches / 3), averaged over all ways to leave one reference out; with a single
 * reference whether it matches. @throws InputError without a reference
 */
export function vqaSoft(said: string, references: readonly string[]): number {
  if (!references.length) throw new InputError(`Cannot judge the answer "${said}": it has no reference`);
  const answer = normaliseVqa(said),
    matches = references.map((text) => Number(normaliseVqa(text) === answer));
  if (matches.length === 1) return matches[0];
  const all = matches.reduce((sum, match) => sum + match, 0);
  const needed = Math.min(AGREEING, matches.length - 1);
  return matches.reduce((sum, match) => sum + Math.min(1, (all - match) / needed), 0) / matches.length;
}

/** "yes" or "no" if that is an answer's first word, else null. */
export function yesNo(answer: string): "yes" | "no" | null {
  const [first] = normalise(answer).split(/[^a-z]+/).filter(Boolean);
  return first === "yes" || first === "no" ? first : null;
}

/** What was answered to one question, and what answers it rightly. */
export interface Answered {
  said: string;
  references: readonly string[];
}

export interface AnswerScores {
  exact: number;
  vqa_soft: number;
  /** Share right among questions whose references are yes or no; null where there is none. */
  yes_no: number | null;
  /** Share of the most frequent reference: what an answer that never looks would reach. */
  majority: number;
}

/** Shares over questions; the first reference is the one that exact matches are held against. @throws InputError without questions */
export function scoreAnswers(answers: readonly Answered[]): AnswerScores {
  if (!answers.length) throw new InputError("Cannot score answers: there is none");
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const soft = answers.map(({ said, references }) => vqaSoft(said, references));
  const counts = new Map<string, number>();
  for (const { references: [first] } of answers) {
    const key = normalise(first);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const closed = answers.filter(({ references }) =>
    references.every((text) => ["yes", "no"].includes(normaliseVqa(text)))
  );
  return {
    exact: mean(answers.map(({ said, references }) => Number(isExact(said, references[0])))),
    vqa_soft: mean(soft),
    yes_no: closed.length
      ? mean(closed.map(({ said, references }) => Number(yesNo(said) === normaliseVqa(references[0]))))
      : null,
    majority: Math.max(...counts.values()) / answers.length,
  };
}
