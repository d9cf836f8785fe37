/**
 * Activations, SwiGLU, rotary positions and dropout in f64 on plain arrays, the truth that tests hold the GPU against.
 * Refuses nothing: shapes are the caller's word.
 */
import { hash32 } from "../random.ts";

/** The kinds by their names in Hugging Face configurations; "gelu" is the exact one. */
export type ActivationKind = "gelu" | "gelu_tanh" | "quick_gelu" | "silu";

/** An activation, elementwise. Hendrycks & Gimpel 2016 for the three GELUs. */
export function activateReference(x: Float64Array, kind: ActivationKind): Float64Array {
  return x.map((v) => {
    if (kind === "gelu") return v * normalCdf(v);
    if (kind === "gelu_tanh") {
      return 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
    }
    return v * sigmoid(kind === "quick_gelu" ? 1.702 * v : v);
  });
}

/** silu(gate) * up, elementwise. Shazeer 2020, eq. 6 without its matrices. */
export function swigluReference(gate: Float64Array, up: Float64Array): Float64Array {
  return gate.map((g, i) => g * sigmoid(g) * up[i]);
}

/**
 * Rotary positions on x (T, H*D) with cos, sin (T, D/2): in each head, element i turns with element i + D/2 (the
 * "rotate half" order of Hugging Face). Su et al. 2021, eq. 34.
 */
export function rotaryReference(
  x: Float64Array,
  cos: Float64Array,
  sin: Float64Array,
  { T, H, D }: { T: number; H: number; D: number },
): Float64Array {
  const y = new Float64Array(T * H * D), half = D / 2;
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      for (let i = 0; i < half; i++) {
        const a = (t * H + h) * D + i, b = a + half;
        const c = cos[t * half + i], s = sin[t * half + i];
        y[a] = x[a] * c - x[b] * s;
        y[b] = x[b] * c + x[a] * s;
      }
    }
  }
  return y;
}

/** Keeps element i, scaled by 1 / (1 - p), where hash32(seed, i) >= p * 2^32; 0 elsewhere. */
export function dropoutReference(x: Float64Array, { p, seed }: { p: number; seed: number }): Float64Array {
  return x.map((v, i) => hash32(seed, i) >= p * 2 ** 32 ? v / (1 - p) : 0);
}

function sigmoid(v: number): number {
  return 1 / (1 + Math.exp(-v));
}

/** The standard normal distribution function: a series near 0, a continued fraction in the tails. */
function normalCdf(x: number): number {
  const density = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI), z = Math.abs(x);
  if (z < 4) { // Phi(z) = 1/2 + phi(z) * (z + z^3/3 + z^5/(3*5) + ...), Marsaglia 2004
    let term = z, sum = z;
    for (let k = 3; term > 1e-18 * sum; k += 2) sum += term *= z * z / k;
    return x < 0 ? 0.5 - density * sum : 0.5 + density * sum;
  }
  let fraction = z; // 1 - Phi(z) = phi(z) / (z + 1/(z + 2/(z + ...))), Laplace
  for (let k = 60; k >= 1; k--) fraction = z + k / fraction;
  return x < 0 ? density / fraction : 1 - density / fraction;
}
