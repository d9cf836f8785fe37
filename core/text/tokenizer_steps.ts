/**
 * The steps of a tokenizer.json put in words that @huggingface/tokenizers follows exactly: where it approximates a
 * step (digits, punctuation, white space), an equal split by a pattern takes its place. Refuses steps it does not know.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";

export type Step = { type: string } & Record<string, unknown>;

/** GPT-2's own split, used by ByteLevel unless it is told not to. */
const BYTE_LEVEL = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** What Rust's regular expressions call \w, which for the library leaves out the joiners. */
const WORD = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d`;

const isolated = (Regex: string): Step => ({
  type: "Split",
  pattern: { Regex },
  behavior: "Isolated",
  invert: false,
});
const kept = (Regex: string): Step => ({
  type: "Split",
  pattern: { Regex },
  behavior: "Removed",
  invert: true,
});
const sequence = (...pretokenizers: Step[]): Step => ({ type: "Sequence", pretokenizers });

const stepSchema = z.looseObject({ type: z.string() });

/** @throws InputError naming `where` for a step of another form */
export function asStep(step: unknown, where: string): Step {
  const parsed = stepSchema.safeParse(step);
  if (parsed.success) return parsed.data as Step;
  throw new InputError(
    `Cannot use ${where}: a step is ${JSON.stringify(step)}, expected an object with a "type"`,
  );
}

function listOf(step: Step, key: string, where: string): Step[] {
  const list = step[key];
  if (Array.isArray(list)) return list.map((each) => asStep(each, where));
  throw new InputError(`Cannot use ${where}: a "Sequence" has no list "${key}"`);
}

function refuse(where: string, kind: string, type: string, known: readonly string[]): never {
  throw new InputError(`Cannot use ${where}: its ${kind} is "${type}", expected one of ${known.join(", ")}`);
}

const NORMALIZERS = ["NFC", "NFD", "NFKC", "NFKD", "Replace", "Prepend", "Sequence"];

/** The normaliser in exact steps. @throws InputError naming `where` and a step whose result would not be exact */
export function exactNormalizer(step: unknown, where: string): Step {
  const given = asStep(step, where);
  if (!NORMALIZERS.includes(given.type)) refuse(where, "normalizer", given.type, NORMALIZERS);
  if (given.type === "Sequence") {
    return {
      ...given,
      normalizers: listOf(given, "normalizers", where).map((each) => exactNormalizer(each, where)),
    };
  }
  // The library hands the text to replaceAll, where "$" begins a reference.
  return given.type === "Replace"
    ? { ...given, content: String(given.content).replaceAll("$", "$$$$") }
    : given;
}

/** The pre-tokenizer in exact steps. @throws InputError naming `where` and an unknown step or split */
export function exactPreTokenizer(step: unknown, where: string): Step {
  const given = asStep(step, where);
  switch (given.type) {
    case "Sequence":
      return sequence(...listOf(given, "pretokenizers", where).map((each) => exactPreTokenizer(each, where)));
    case "ByteLevel":
      return sequence(
        ...(given.add_prefix_space ?? true
          ? [{ type: "Replace", pattern: { Regex: String.raw`\A[^ ]` }, content: " $&" }]
          : []),
        ...(given.use_regex ?? true ? [isolated(BYTE_LEVEL)] : []),
        { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      );
    case "Digits":
      return isolated(given.individual_digits ? String.raw`\p{N}` : String.raw`\p{N}+`);
    case "Punctuation": {
      const mark = String.raw`[!-/:-@\[-${"`"}{-~\p{P}]`;
      const behavior = String(given.behavior ?? "Isolated");
      if (behavior === "Isolated") return isolated(mark);
      if (behavior === "Contiguous") return isolated(`${mark}+`);
      return refuse(where, `punctuation's "behavior"`, behavior, ["Isolated", "Contiguous"]);
    }
    case "Whitespace":
      return kept(`[${WORD}]+|[^${WORD}\\s]+`);
    case "WhitespaceSplit":
      return kept(String.raw`\S+`);
    case "Metaspace":
      // A split puts every space-sign at the head of its own piece.
      return given.split ?? true ? sequence(given, isolated(`(?=${given.replacement ?? "▁"})`)) : given;
    case "Split": {
      const behavior = String(given.behavior).replace(/^./, (letter) => letter.toUpperCase());
      const isExact = given.invert ? behavior === "Removed" : ["Isolated", "Removed"].includes(behavior);
      if (!isExact) refuse(where, `split's "behavior"`, behavior, ["Isolated", "Removed"]);
      return given;
    }
    default:
      return refuse(where, "pre-tokenizer", given.type, [
        ..."Sequence, ByteLevel, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace, Split".split(
          ", ",
        ),
      ]);
  }
}

const DECODERS = ["ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];

/** The decoder as a flat list of steps. @throws InputError naming `where` and an unknown step */
export function decoderSteps(step: unknown, where: string): Step[] {
  if (step == null) return [];
  const given = asStep(step, where);
  if (given.type === "Sequence") {
    return listOf(given, "decoders", where).flatMap((each) => decoderSteps(each, where));
  }
  if (!DECODERS.includes(given.type)) refuse(where, "decoder", given.type, ["Sequence", ...DECODERS]);
  return [given];
}
