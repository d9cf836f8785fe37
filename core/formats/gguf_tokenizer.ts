/**
 * The tokenizer inside a GGUF file as the files Hugging Face would have: tokenizer.json for byte-level BPE,
 * tokenizer.model for SentencePiece, tokenizer_config.json for both. Refuses other kinds and splits it does not know.
 */
import { InputError } from "../errors.ts";
import type { GgufHeader } from "./gguf.ts";
import { metadataOf } from "./gguf_llama.ts";
import { sentencePieceModel } from "./gguf_pieces.ts";

/** llama.cpp's kinds of token. */
const UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4;

interface Vocabulary {
  tokens: string[];
  types: number[];
}

/** File name -> content. @throws InputError naming what is missing or not known */
export function tokenizerFiles(
  header: GgufHeader,
  name: string,
): Record<string, string | Uint8Array<ArrayBuffer>> {
  const { metadata } = header, { string } = metadataOf(header, name);
  const kind = string("tokenizer.ggml.model");
  const list = <T>(key: string): T[] => {
    const value = metadata.get(`tokenizer.ggml.${key}`);
    if (Array.isArray(value)) return value as T[];
    throw new InputError(`Cannot use "${name}": its tokenizer has no ${key}`);
  };
  const tokens = list<string>("tokens");
  const types = metadata.has("tokenizer.ggml.token_type") ? list<number>("token_type") : tokens.map(() => 1);
  const config = JSON.stringify(tokenizerConfig(header, name, tokens, kind));
  if (kind === "gpt2") {
    const json = byteLevelBpe(
      { tokens, types },
      list("merges"),
      string("tokenizer.ggml.pre", "default"),
      name,
    );
    return { "tokenizer.json": JSON.stringify(json), "tokenizer_config.json": config };
  }
  if (kind === "llama") {
    const pieces = { tokens, types, scores: list<number>("scores") };
    const prefix = metadata.get("tokenizer.ggml.add_space_prefix") !== false;
    return { "tokenizer.model": sentencePieceModel(pieces, prefix), "tokenizer_config.json": config };
  }
  throw new InputError(
    `Cannot use "${name}": its tokenizer is of the kind "${kind}", expected gpt2 or llama`,
  );
}

function tokenizerConfig(header: GgufHeader, name: string, tokens: string[], kind: string) {
  const { metadata } = header, { number, string } = metadataOf(header, name);
  const special = Object.fromEntries(
    ([["bos", "bos"], ["eos", "eos"], ["unk", "unknown"], ["pad", "padding"]] as const)
      .filter(([, key]) => metadata.has(`tokenizer.ggml.${key}_token_id`))
      .map(([role, key]) => [`${role}_token`, tokens[number(`tokenizer.ggml.${key}_token_id`)]]),
  );
  const pre = string("tokenizer.ggml.pre", "default");
  // llama.cpp's own defaults where the file is silent.
  const bos = metadata.get("tokenizer.ggml.add_bos_token") ??
    (kind === "llama" || THREE_DIGITS.includes(pre));
  return {
    tokenizer_class: kind === "llama" ? "LlamaTokenizer" : "PreTrainedTokenizerFast",
    ...special,
    add_bos_token: "bos_token" in special && bos === true,
    add_eos_token: metadata.get("tokenizer.ggml.add_eos_token") === true,
    clean_up_tokenization_spaces: false,
    ...(metadata.has("tokenizer.chat_template") && { chat_template: string("tokenizer.chat_template") }),
  };
}

const LLAMA3 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}` +
  String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const QWEN2 = LLAMA3.replace("{1,3}", "");
const BYTES = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
const GPT2 = [{ ...BYTES, use_regex: true }];
const DIGITS = [{ type: "Digits", individual_digits: true }, ...GPT2];
const split = (regex: string) => [
  { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false },
  { ...BYTES, use_regex: false },
];
const THREE_DIGITS = ["llama3", "llama-v3", "llama-bpe"];

/** Pre-tokenizers by llama.cpp's names. */
function splitsOf(pre: string, name: string): object[] {
  if (["default", "gpt-2"].includes(pre)) return GPT2;
  if (["smollm", "starcoder", "refact", "command-r"].includes(pre)) return DIGITS;
  if (THREE_DIGITS.includes(pre)) return split(LLAMA3);
  if (["qwen2", "deepseek-r1-qwen"].includes(pre)) return split(QWEN2);
  throw new InputError(
    `Cannot use "${name}": it splits text as "${pre}", known are default, gpt-2, smollm, starcoder, refact, ` +
      `command-r, ${THREE_DIGITS.join(", ")}, qwen2, deepseek-r1-qwen`,
  );
}

/** A tokenizer.json of the `tokenizers` library. @throws InputError for a merge of other than two parts */
function byteLevelBpe({ tokens, types }: Vocabulary, merges: string[], pre: string, name: string) {
  const wrong = merges.find((merge) => merge.split(" ").length !== 2);
  if (wrong !== undefined) throw new InputError(`Cannot use "${name}": "${wrong}" is no merge of two tokens`);
  const isAdded = (id: number) => [CONTROL, USER_DEFINED].includes(types[id]);
  const added = tokens.flatMap((content, id) =>
    isAdded(id)
      ? [{
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: types[id] === CONTROL,
      }]
      : []
  );
  const unknown = types.indexOf(UNKNOWN);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: splitsOf(pre, name) },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown < 0 ? null : tokens[unknown],
      continuing_subword_prefix: "",
      end_of_word_suffix: "",
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: THREE_DIGITS.includes(pre), // a word that is a token stays one
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((merge) => merge.split(" ")),
    },
  };
}
