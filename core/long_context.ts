/**
 * What the first Qwen does beyond the length it was trained on, in evaluation only: a larger rotary base and sharper
 * attention for late queries. Up to that length both leave everything as it is.
 */
import { type RopeConfig, ropeTables } from "./positions.ts";

export interface LongContext {
  /** Tokens of the training context. */
  trained: number;
  /** Dynamic NTK: a larger rotary base for the whole of a longer sequence. */
  ntk: boolean;
  /** Queries beyond the training context are multiplied by log(place) / log(context). */
  logn: boolean;
}

/** The factor of dynamic NTK for n tokens: 1 up to the training context, 3 up to twice as many, 7 up to four times. */
export function ntkAlpha(n: number, trained: number): number {
  return Math.max(1, 2 ** Math.ceil(Math.log2(n / trained) + 1) - 1);
}

/** What a query at a position (from 0) is multiplied by. */
export function lognScale(position: number, trained: number): number {
  return position + 1 > trained ? Math.log(position + 1) / Math.log(trained) : 1;
}

/** Packed samples: first rows and, last, the total; positions; and what each was read as part of at first. */
export interface LongSamples {
  starts: readonly number[];
  /** (T), one after another within a sample. */
  positions: readonly number[];
  /** Tokens of the prompt that a sample goes on from. Its base stays that of the prompt, whose keys are turned by it. */
  promptTokens?: readonly number[];
}

/** Whether a sample reaches beyond the training context. */
export function isLong({ starts, positions, promptTokens }: LongSamples, { trained }: LongContext): boolean {
  return starts.some((end, s) => s > 0 && positions[end - 1] >= trained) ||
    (promptTokens ?? []).some((n) => n > trained);
}

/** Rotary tables (T, D/2) of packed samples, each of its own length, and the factor of every query (T). */
export function longTables(
  { starts, positions: all, promptTokens }: LongSamples,
  rope: RopeConfig,
  { trained, ntk, logn }: LongContext,
) {
  const T = starts.at(-1) ?? 0, half = rope.D / 2;
  const cos = new Float32Array(T * half), sin = new Float32Array(T * half);
  const queryScale = new Float32Array(T).fill(1);
  for (let s = 0; s + 1 < starts.length; s++) {
    const positions = all.slice(starts[s], starts[s + 1]);
    const alpha = ntk ? ntkAlpha(promptTokens?.[s] ?? positions.length, trained) : 1;
    const theta = rope.theta * alpha ** (rope.D / (rope.D - 2));
    const tables = ropeTables(positions, { ...rope, theta });
    cos.set(tables.cos, starts[s] * half);
    sin.set(tables.sin, starts[s] * half);
    if (logn) queryScale.set(positions.map((i) => lognScale(i, trained)), starts[s]);
  }
  return { cos, sin, queryScale };
}
