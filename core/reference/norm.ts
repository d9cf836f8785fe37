/**
 * RMSNorm and LayerNorm in f64 on plain arrays, the truth that tests hold the GPU against.
 * Refuses nothing: shapes are the caller's word.
 */
export interface NormShape {
  T: number;
  C: number;
  eps: number;
}

/** Per row of x (T, C): x / sqrt(mean(x^2) + eps) * w (C). Zhang & Sennrich 2019, eq. 4. */
export function rmsnormReference(x: Float64Array, w: Float64Array, { T, C, eps }: NormShape): Float64Array {
  const y = new Float64Array(T * C);
  for (let t = 0; t < T; t++) {
    const row = x.subarray(t * C, (t + 1) * C);
    const rstd = 1 / Math.sqrt(meanOf(row, (v) => v * v) + eps);
    for (let c = 0; c < C; c++) y[t * C + c] = row[c] * rstd * w[c];
  }
  return y;
}

/** Per row of x (T, C): (x - mean) / sqrt(var + eps) * w (C) + b (C), var being the biased one. Ba et al. 2016. */
export function layernormReference(
  x: Float64Array,
  w: Float64Array,
  b: Float64Array,
  { T, C, eps }: NormShape,
): Float64Array {
  const y = new Float64Array(T * C);
  for (let t = 0; t < T; t++) {
    const row = x.subarray(t * C, (t + 1) * C);
    const mean = meanOf(row, (v) => v);
    const rstd = 1 / Math.sqrt(meanOf(row, (v) => (v - mean) ** 2) + eps);
    for (let c = 0; c < C; c++) y[t * C + c] = (row[c] - mean) * rstd * w[c] + b[c];
  }
  return y;
}

function meanOf(row: Float64Array, of: (value: number) => number): number {
  let sum = 0;
  for (const value of row) sum += of(value);
  return sum / row.length;
}
