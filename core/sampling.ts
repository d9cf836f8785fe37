/**
 * From logits to the next token: repetition penalty, temperature, the k likeliest, the nucleus, and a seeded draw, in
 * the order in which transformers applies them. Refuses settings outside their range.
 */
import { InputError } from "./errors.ts";
import type { Random } from "./random.ts";

export interface Sampling {
  /** 0 takes the likeliest token; above 0 logits are divided by it before the draw. */
  temperature?: number;
  /** Draws among the k likeliest; 0 for all. */
  topK?: number;
  /** Draws among the fewest likeliest tokens that hold this share of the probability; 1 for all. */
  topP?: number;
  /** Logits of tokens seen before are divided by it where positive, multiplied where negative; 1 for none. */
  repetitionPenalty?: number;
}

/** @throws InputError naming the setting and its range */
export function checkSampling(
  { temperature = 0, topK = 0, topP = 1, repetitionPenalty = 1 }: Sampling,
): void {
  const refuse = (wrong: boolean, name: string, value: number, range: string) => {
    if (wrong) throw new InputError(`Cannot sample with ${name} ${value}: expected ${range}`);
  };
  refuse(!(temperature >= 0 && temperature < Infinity), "temperature", temperature, "0 or more");
  refuse(!(Number.isInteger(topK) && topK >= 0), "top-k", topK, "a whole number, 0 for all tokens");
  refuse(!(topP > 0 && topP <= 1), "top-p", topP, "above 0, up to 1");
  refuse(!(repetitionPenalty > 0), "repetition penalty", repetitionPenalty, "above 0");
}

/** log softmax of logits (V), in f64. */
export function logSoftmax(logits: ArrayLike<number>): Float64Array<ArrayBuffer> {
  const out = Float64Array.from(logits), most = out.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = out.reduce((sum, x) => sum + Math.exp(x - most), 0);
  const shift = most + Math.log(total);
  return out.map((x) => x - shift);
}

/** Logits (V) as the settings leave them: -Infinity where a token is out. `seen` are the tokens so far. */
export function adjustLogits(
  logits: ArrayLike<number>,
  { temperature = 0, topK = 0, topP = 1, repetitionPenalty = 1 }: Sampling,
  seen: Iterable<number>,
): Float64Array<ArrayBuffer> {
  const scores = Float64Array.from(logits);
  if (repetitionPenalty !== 1) penalise(scores, new Set(seen), repetitionPenalty);
  return temperature === 0 ? scores : nucleus(topOf(scores.map((x) => x / temperature), topK), topP);
}

/** The next token from its logits (V); `seen` are the tokens so far, for the penalty. */
export function pickToken(
  logits: ArrayLike<number>,
  sampling: Sampling,
  seen: Iterable<number>,
  random: Random,
): number {
  const kept = adjustLogits(logits, sampling, seen);
  if (!sampling.temperature) return likeliest(kept);
  const weights = logSoftmax(kept).map(Math.exp);
  let left = random.float() * weights.reduce((a, b) => a + b, 0);
  const drawn = weights.findIndex((weight) => (left -= weight) < 0);
  return drawn >= 0 ? drawn : likeliest(kept); // rounding may leave a crumb after the last token
}

function likeliest(scores: Float64Array): number {
  return scores.reduce((best, score, i) => score > scores[best] ? i : best, 0);
}

/** Keskar et al. 2019 (CTRL), 4.1, with the sign that later practice gave it. */
function penalise(scores: Float64Array, seen: ReadonlySet<number>, penalty: number): void {
  for (const id of seen) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
}

/** Scores below the k-th largest become -Infinity; equals of the k-th stay. Fan et al. 2018. */
function topOf(scores: Float64Array<ArrayBuffer>, k: number): Float64Array<ArrayBuffer> {
  if (k === 0 || k >= scores.length) return scores;
  const least = scores.slice().sort()[scores.length - k];
  return scores.map((x) => x < least ? -Infinity : x);
}

/** The unlikeliest tokens that together hold at most 1 - p become -Infinity. Holtzman et al. 2020, 3.1. */
function nucleus(scores: Float64Array<ArrayBuffer>, p: number): Float64Array<ArrayBuffer> {
  if (p === 1) return scores;
  const out = scores.slice(), weights = logSoftmax(scores).map(Math.exp);
  const rising = Array.from(weights.keys()).sort((a, b) => weights[a] - weights[b]);
  let below = 0;
  for (const i of rising.slice(0, -1)) {
    below += weights[i];
    if (below > 1 - p) break;
    out[i] = -Infinity;
  }
  return out;
}
