/**
 * Attention over ranges in f64 on plain arrays, the truth that tests hold the GPU against.
 * Refuses nothing: shapes are the caller's word.
 */
import type { Ranges } from "../ranges.ts";

export interface AttentionShape {
  H: number;
  K: number;
  D: number;
  scale?: number;
}

/** softmax(scale q (T, H, D) k (S, K, D)^T) v (S, K, D) over each query's range, two passes. Vaswani et al. 2017. */
export function attentionReference(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  { queryLo, queryHi }: Ranges,
  { H, K, D, scale = 1 / Math.sqrt(D) }: AttentionShape,
): Float64Array {
  const out = new Float64Array(q.length);
  for (let t = 0; t < queryLo.length; t++) {
    for (let h = 0; h < H; h++) {
      const o = (t * H + h) * D, kv = (s: number) => (s * K + Math.floor(h / (H / K))) * D;
      const scores: number[] = [];
      for (let s = queryLo[t]; s < queryHi[t]; s++) {
        let dot = 0;
        for (let d = 0; d < D; d++) dot += q[o + d] * k[kv(s) + d];
        scores.push(scale * dot);
      }
      const max = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - max));
      const total = weights.reduce((a, b) => a + b, 0);
      weights.forEach((weight, i) => {
        const row = kv(queryLo[t] + i);
        for (let d = 0; d < D; d++) out[o + d] += weight / total * v[row + d];
      });
    }
  }
  return out;
}

/**
 * The same where each query t also sees rows lo[t] to hi[t] - 1 of earlier keys and values: query by query over both,
 * laid end to end.
 */
export function cachedAttentionReference(
  q: Float64Array,
  fresh: readonly [Float64Array, Float64Array],
  { queryLo, queryHi }: Pick<Ranges, "queryLo" | "queryHi">,
  past: readonly [Float64Array, Float64Array],
  { lo, hi }: { lo: ArrayLike<number>; hi: ArrayLike<number> },
  shape: AttentionShape,
): Float64Array {
  const { H, K, D } = shape, width = K * D, none = new Uint32Array(0);
  const out = new Float64Array(q.length);
  for (let t = 0; t < queryLo.length; t++) {
    const [k, v] = [0, 1].map((i) =>
      Float64Array.of(
        ...past[i].subarray(lo[t] * width, hi[t] * width),
        ...fresh[i].subarray(queryLo[t] * width, queryHi[t] * width),
      )
    );
    const range = { queryLo: Uint32Array.of(0), queryHi: Uint32Array.of(k.length / width) };
    const row = q.subarray(t * H * D, (t + 1) * H * D);
    out.set(attentionReference(row, k, v, { ...range, keyLo: none, keyHi: none }, shape), t * H * D);
  }
  return out;
}
