/**
 * Rotary position tables (Su et al. 2021) as Hugging Face computes them: cos and sin of position * theta^(-2i/D).
 * Refuses scaling schemes it does not know by name.
 */
import { InputError } from "./errors.ts";

export interface RopeConfig {
  /** Head width. */
  D: number;
  theta: number;
  /** "default", "linear" with a factor, "llama3" with all below, or "factors". */
  type?: string;
  factor?: number;
  /** Of llama3: wavelengths beyond `original / low` are stretched, those below `original / high` are not. */
  low?: number;
  high?: number;
  original?: number;
  /** What each frequency is divided by, as GGUF files keep llama3's scaling. (D/2) */
  factors?: readonly number[];
}

/** theta^(-2i/D) for i < D/2, every step rounded to f32 as torch rounds it: at most one of 64 differs, by one bit. */
export function ropeFrequencies(D: number, theta: number): number[] {
  return Array.from(
    { length: D / 2 },
    (_, i) => Math.fround(1 / Math.fround(theta ** Math.fround(2 * i / D))),
  );
}

/** Frequencies after scaling; "linear" scales positions instead. @throws InputError for a scaling it does not know */
function scaledFrequencies(rope: RopeConfig): number[] {
  const { D, theta, type = "default", factors } = rope;
  // Rounded once, closer to the formula than torch: what was trained here was trained with these.
  const frequencies = Array.from({ length: D / 2 }, (_, i) => Math.fround(theta ** (-2 * i / D)));
  switch (type) {
    case "default":
    case "linear":
      return frequencies;
    case "llama3":
      return frequencies.map((frequency) => Math.fround(stretched(frequency, rope)));
    case "factors":
      if (factors?.length !== D / 2) {
        throw new InputError(`Cannot divide ${D / 2} rotary frequencies by ${factors?.length ?? 0} factors`);
      }
      return frequencies.map((frequency, i) => Math.fround(frequency / factors[i]));
  }
  throw new InputError(
    `Cannot use the rotary scaling "${type}": only default, linear, llama3 and factors are known`,
  );
}

/** Llama 3.1's scaling of one frequency, as modeling_rope_utils.py of transformers has it. */
function stretched(frequency: number, { factor = 1, low, high, original }: RopeConfig): number {
  if (!low || !high || !original) {
    throw new InputError(
      'Cannot use the rotary scaling "llama3" without low_freq_factor, high_freq_factor and original_max_position_embeddings',
    );
  }
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const share = (original / wavelength - low) / (high - low);
  return (1 - share) * frequency / factor + share * frequency;
}

/** cos and sin, each (T, D/2), for one position a token. @throws InputError for an unknown scaling */
export function ropeTables(
  positions: ArrayLike<number>,
  rope: RopeConfig,
): { cos: Float32Array<ArrayBuffer>; sin: Float32Array<ArrayBuffer> } {
  const { D, type, factor = 1 } = rope, half = D / 2, T = positions.length;
  const frequencies = scaledFrequencies(rope);
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
