/**
 * Rotary position tables (Su et al. 2021) as Hugging Face computes them: cos and sin of position * theta^(-2i/D).
 * Refuses scaling schemes it does not know by name.
 */
import { InputError } from "./errors.ts";

export interface RopeConfig {
  /** Head width. */
  D: number;
  theta: number;
  /** "default" or "linear" with a factor. */
  type?: string;
  factor?: number;
}

/** theta^(-2i/D) for i < D/2, every step rounded to f32 as torch rounds it: at most one of 64 differs, by one bit. */
export function ropeFrequencies(D: number, theta: number): number[] {
  return Array.from(
    { length: D / 2 },
    (_, i) => Math.fround(1 / Math.fround(theta ** Math.fround(2 * i / D))),
  );
}

/** cos and sin, each (T, D/2), for one position a token. @throws InputError for an unknown scaling */
export function ropeTables(
  positions: ArrayLike<number>,
  { D, theta, type = "default", factor = 1 }: RopeConfig,
): { cos: Float32Array<ArrayBuffer>; sin: Float32Array<ArrayBuffer> } {
  if (type !== "default" && type !== "linear") {
    throw new InputError(`Cannot use the rotary scaling "${type}": only default and linear are known`);
  }
  const half = D / 2, T = positions.length;
  // Rounded once, closer to the formula than torch: what was trained here was trained with these.
  const frequencies = Array.from({ length: half }, (_, i) => Math.fround(theta ** (-2 * i / D)));
  const cos = new Float32Array(T * half), sin = new Float32Array(T * half);
  for (let t = 0; t < T; t++) {
    const position = positions[t] / (type === "linear" ? factor : 1);
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]);
      cos[t * half + i] = Math.cos(angle);
      sin[t * half + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}
