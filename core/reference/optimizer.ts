/**
 * AdamW and the global gradient norm in f64 on plain arrays, the truth that tests hold the GPU against.
 * Refuses nothing: sizes are the caller's word.
 */
export interface AdamwReference {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** Counts from 1. */
  step: number;
  /** Gradients of a larger norm are scaled down to it; absent: none are. */
  maxNorm?: number;
}

/** One step in place over param, m and v, clipped by the norm of `grad` alone. Loshchilov & Hutter 2019, algorithm 2. */
export function adamwReference(
  { param, m, v }: Record<"param" | "m" | "v", Float64Array>,
  grad: Float64Array,
  { lr, beta1, beta2, eps, weightDecay, step, maxNorm = Infinity }: AdamwReference,
): void {
  const factor = Math.min(1, maxNorm / (gradNormReference([grad]) + 1e-6));
  for (let i = 0; i < param.length; i++) {
    const g = factor * grad[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    const mean = m[i] / (1 - beta1 ** step), square = v[i] / (1 - beta2 ** step);
    param[i] -= lr * weightDecay * param[i] + lr * mean / (Math.sqrt(square) + eps);
  }
}

/** The Euclidean norm of all values together. */
export function gradNormReference(grads: readonly Float64Array[]): number {
  let sum = 0;
  for (const grad of grads) for (const g of grad) sum += g * g;
  return Math.sqrt(sum);
}
