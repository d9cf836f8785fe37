/**
 * Cross-entropy in f64 on plain arrays, the truth that tests hold the GPU against.
 * Refuses nothing: shapes are the caller's word.
 */
export interface CrossEntropyReference {
  C: number;
  rows: ArrayLike<number>;
  targets: ArrayLike<number>;
}

/** -log softmax(hidden[row] head^T)[target] of each row, from hidden (T, C) and head (V, C). */
export function crossEntropyReference(
  hidden: Float64Array,
  head: Float64Array,
  { C, rows, targets }: CrossEntropyReference,
): Float64Array {
  return Float64Array.from(Array.from(rows), (row, m) => {
    const logits = logitsReference(hidden, head, C, row);
    const top = logits.reduce((a, b) => Math.max(a, b));
    const sum = logits.reduce((total, logit) => total + Math.exp(logit - top), 0);
    return top + Math.log(sum) - logits[targets[m]];
  });
}

/** hidden[row] head^T (V). */
export function logitsReference(
  hidden: Float64Array,
  head: Float64Array,
  C: number,
  row: number,
): Float64Array {
  return Float64Array.from({ length: head.length / C }, (_, v) => {
    let logit = 0;
    for (let c = 0; c < C; c++) logit += hidden[row * C + c] * head[v * C + c];
    return logit;
  });
}
