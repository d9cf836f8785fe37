/**
 * Generation: several prompts at once, read in one go and continued token by token out of a cache, greedily or by a
 * seeded draw. Refuses sampling settings outside their range and stop texts without a decoder.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { Random } from "../core/random.ts";
import { checkSampling, logSoftmax, pickToken, type Sampling } from "../core/sampling.ts";
import { firstStop } from "../core/text/stop_texts.ts";
import { addTokens, closeContext, readPrompts } from "./context.ts";
import type { Gpu } from "./device.ts";
import type { Model } from "./models/model.ts";

export interface GenerateOptions extends Sampling {
  /** Most tokens to generate. */
  maxTokens: number;
  /** Tokens that end a text. */
  eos?: readonly number[];
  /** Texts that end a text; the result is cut before them. */
  stop?: readonly string[];
  decode?: (ids: readonly number[]) => string;
  /** Of the draws; each prompt has a stream of its own, by its place. */
  seed?: number;
  /** Tokens that one pass over prompts packs. */
  microTokens?: number;
  signal?: AbortSignal;
  /** Called for every new token with the prompt's place and all tokens so far. */
  onToken?: (prompt: number, ids: readonly number[]) => void;
}

export interface Generated {
  /** New tokens, the one that ended the text included. */
  ids: number[];
  /** log p of each under the model's own distribution, before temperature and truncation. */
  logProbs: number[];
  /** Decoded without the ending token and cut before a stop text; empty without a decoder. */
  text: string;
  ended: "eos" | "stop" | "length";
}

/** Room for generated tokens that a cache starts with, at most. */
const ROOM = 256;

/** @returns one result a prompt, in order. @throws InputError for settings that do not fit, the signal's reason */
export async function generate(
  gpu: Gpu,
  model: Model,
  prompts: readonly EncodedSample[],
  options: GenerateOptions,
): Promise<Generated[]> {
  const { maxTokens, eos = [], stop = [], decode, seed = 0, microTokens, signal, onToken } = options;
  checkSampling(options);
  if (!(Number.isInteger(maxTokens) && maxTokens > 0)) {
    throw new InputError(`Cannot generate ${maxTokens} tokens: expected a positive whole number`);
  }
  if (stop.length && !decode) throw new InputError("Cannot look for stop texts: there is no decoder");
  if (stop.includes("")) throw new InputError("Cannot stop at an empty text: it is everywhere");
  const streams = prompts.map((_, i) => new Random(seed).split("generate", i));
  const results = prompts.map((): Generated => ({ ids: [], logProbs: [], text: "", ended: "length" }));
  const context = await readPrompts(gpu, model, prompts, { room: Math.min(maxTokens, ROOM), microTokens });
  try {
    for (let open = [...prompts.keys()]; open.length;) {
      signal?.throwIfAborted();
      open = open.filter((i) => {
        const { ids: seen, logits } = context.sequences[i], result = results[i];
        const id = pickToken(logits, options, seen, streams[i]);
        result.ids.push(id);
        result.logProbs.push(logSoftmax(logits)[id]);
        const over = finish(result, { eos, stop, decode });
        onToken?.(i, result.ids);
        return !over && result.ids.length < maxTokens;
      });
      if (open.length) await addTokens(context, open, open.map((i) => results[i].ids.at(-1)!));
    }
    return results;
  } finally {
    closeContext(context);
  }
}

/** Brings text and end up to date; true when the text is over. */
function finish(
  result: Generated,
  { eos, stop, decode }: {
    eos: readonly number[];
    stop: readonly string[];
    decode?: GenerateOptions["decode"];
  },
): boolean {
  const ended = eos.includes(result.ids.at(-1)!);
  if (ended) result.ended = "eos";
  if (!decode) return ended;
  const text = decode(ended ? result.ids.slice(0, -1) : result.ids);
  const cut = firstStop(text, stop);
  result.text = cut < 0 ? text : text.slice(0, cut);
  if (cut >= 0 && !ended) result.ended = "stop";
  return ended || cut >= 0;
}
