/**
 * A tokenizer.json run by @huggingface/tokenizers, with the cutting at added tokens and the decoding done here, where
 * the library only comes near. Refuses models other than BPE and steps that would not be exact.
 */
import { BPE, Tokenizer as Library } from "@huggingface/tokenizers";
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type AddedToken, addedTokenSchema, splitterOf } from "./added_tokens.ts";
import { bytesOfLetters, joinFallback, joinUtf8, spellTokens } from "./token_bytes.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { decoderSteps, exactNormalizer, exactPreTokenizer, type Step } from "./tokenizer_steps.ts";
import { endsOf, type TokenSettings, withSettings } from "./token_settings.ts";

const merges = z.union([z.array(z.string()), z.array(z.tuple([z.string(), z.string()]))]);
const fileSchema = z.looseObject({
  added_tokens: z.array(addedTokenSchema).nullish(),
  normalizer: z.unknown(),
  pre_tokenizer: z.unknown(),
  post_processor: z.unknown(),
  decoder: z.unknown(),
  model: z.looseObject({ type: z.string().optional(), vocab: z.unknown() }),
});
/** Not z.record, which copies 150,000 entries and leaves out a token spelled "__proto__". */
const vocab = z.custom<Record<string, number>>(
  (value) =>
    typeof value === "object" && value !== null &&
    Object.values(value).every((id) => Number.isInteger(id) && id >= 0),
  "expected an object of tokens and their ids",
);
const modelSchema = z.looseObject({
  vocab,
  merges,
  unk_token: z.string().nullish(),
  continuing_subword_prefix: z.literal("").nullish(),
  end_of_word_suffix: z.literal("").nullish(),
});

function check<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new InputError(`Cannot use ${where}: "${path.join(".")}": ${message}`);
}

/** Whether the checkpoint's own post-processor puts `bos` in front of a single text. */
function addsInFront(step: unknown, bos: string): boolean {
  const { type, single, processors } = (step ?? {}) as Record<string, unknown>;
  if (type === "Sequence" && Array.isArray(processors)) {
    return processors.some((each) => addsInFront(each, bos));
  }
  if (type !== "TemplateProcessing" || !Array.isArray(single)) return false;
  return single[0]?.SpecialToken?.id === bos;
}

/** Tokens to text by the steps of the file's decoder. */
function decoderOf(steps: readonly Step[]): (tokens: string[]) => string {
  const functions = steps.map((step): (tokens: string[]) => string[] => {
    const content = String(step.content ?? "");
    switch (step.type) {
      case "ByteLevel":
        return (tokens) => [joinUtf8(tokens.map(bytesOfLetters))];
      case "ByteFallback":
        return joinFallback;
      case "Fuse":
        return (tokens) => [tokens.join("")];
      case "Replace": {
        const { String: text, Regex } = step.pattern as { String?: string; Regex?: string };
        const pattern = text ?? new RegExp(Regex!, "gu");
        return (tokens) => tokens.map((token) => token.replaceAll(pattern, () => content));
      }
      case "Metaspace": {
        const sign = String(step.replacement ?? "▁"), strips = step.prepend_scheme !== "never";
        return (tokens) =>
          tokens.map((token, i) => {
            const bare = i === 0 && strips && token.startsWith(sign) ? token.slice(sign.length) : token;
            return bare.replaceAll(sign, " ");
          });
      }
      default: // Strip
        return (tokens) =>
          tokens.map((token) => {
            let start = 0, stop = token.length;
            while (start < Number(step.start) && token[start] === content) start++;
            while (
              token.length - stop < Number(step.stop) && stop > start && token[stop - 1] === content
            ) stop--;
            return token.slice(start, stop);
          });
    }
  });
  // Without a decoder the pieces stand apart, as tokenizers has it.
  if (functions.length === 0) return (tokens) => tokens.join(" ");
  return (tokens) => functions.reduce((pieces, step) => step(pieces), tokens).join("");
}

/**
 * The tokenizer of a parsed tokenizer.json; `where` names it in messages.
 * @throws InputError for models and steps that are not supported, and for a file of another form
 */
export function tokenizerFromJson(json: unknown, settings: TokenSettings, where: string): Tokenizer {
  const file = check(fileSchema, json, where);
  if ((file.model.type ?? "BPE") !== "BPE") {
    throw new InputError(`Cannot use ${where}: its model is "${file.model.type}", expected "BPE"`);
  }
  const model = { type: "BPE", ...check(modelSchema, file.model, where) };
  const library = new Library({
    normalizer: file.normalizer == null ? null : exactNormalizer(file.normalizer, where),
    pre_tokenizer: file.pre_tokenizer == null ? null : exactPreTokenizer(file.pre_tokenizer, where),
    model,
    post_processor: null,
    decoder: null,
    added_tokens: [],
  }, {});
  const bpe = library.model as BPE, { normalizer, pre_tokenizer: preTokenizer } = library;

  const ids = new Map(bpe.tokens_to_ids), tokens = [...bpe.vocab];
  const own = (file.added_tokens ?? []).map((token): AddedToken => ({
    ...token,
    normalized: token.normalized ?? !token.special,
  }));
  const vocabulary = { idOf: (token: string) => ids.get(token), size: tokens.length };
  const added = withSettings(own, settings, vocabulary);
  for (const { id, content } of added) {
    ids.set(content, id);
    tokens[id] = content;
  }
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  const splitRaw = splitterOf(added.filter((token) => !token.normalized));
  const splitNormalized = splitterOf(
    added.filter((token) => token.normalized),
    ({ content }) => normalizer ? normalizer(content) : content,
  );
  const decodeTokens = decoderOf(decoderSteps(file.decoder, where));
  const idOf = (token: string) => ids.get(token);
  const { bos, eos, stops } = endsOf(settings, idOf);

  function encode(text: string, { special: asSpecial = false } = {}): number[] {
    const found: number[] = [];
    let isStart = true; // Whether nothing of the text lies before the section.
    for (const section of splitRaw(text.toWellFormed(), !asSpecial)) {
      const normal = typeof section !== "string" ? [section] : splitNormalized(
        normalizer ? normalizer(section) : section,
        !asSpecial,
      );
      for (const part of normal) {
        if (typeof part !== "string") {
          found.push(part.id);
        } else {
          const pieces = preTokenizer ? preTokenizer(part, { section_index: isStart ? 0 : 1 }) : [part];
          for (const token of bpe(pieces)) found.push(bpe.tokens_to_ids.get(token) ?? bpe.unk_token_id!);
        }
        isStart = false;
      }
    }
    return found;
  }

  function decode(wanted: readonly number[], { special: withSpecial = false } = {}): string {
    return decodeTokens(spellTokens(wanted, tokens, (id) => !withSpecial && special.has(id)));
  }

  return {
    encode,
    decode,
    idOf,
    size: tokens.length,
    bos,
    eos,
    stops,
    addsBos: bos !== undefined && (settings.addsBos ?? addsInFront(file.post_processor, tokens[bos])),
  };
}
