/**
 * The three products of a linear layer in f64 on plain arrays, the truth that the GPU is held against.
 * Refuses nothing: shapes are the caller's word.
 */
export interface MatmulShape {
  T: number;
  N: number;
  K: number;
}

/** x (T, K) w (N, K)^T: (T, N). */
export function matmulNTReference(x: Float64Array, w: Float64Array, { T, N, K }: MatmulShape): Float64Array {
  return product(T, N, K, (t, k) => x[t * K + k], (k, n) => w[n * K + k]);
}

/** dy (T, N) w (N, K): (T, K). */
export function matmulNNReference(dy: Float64Array, w: Float64Array, { T, N, K }: MatmulShape): Float64Array {
  return product(T, K, N, (t, n) => dy[t * N + n], (n, k) => w[n * K + k]);
}

/** dy (T, N)^T x (T, K): (N, K). */
export function matmulTNReference(dy: Float64Array, x: Float64Array, { T, N, K }: MatmulShape): Float64Array {
  return product(N, K, T, (n, t) => dy[t * N + n], (t, k) => x[t * K + k]);
}

type Entry = (row: number, column: number) => number;

function product(rows: number, columns: number, depth: number, a: Entry, b: Entry): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(i / columns), column = i % columns;
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += a(row, k) * b(k, column);
    return sum;
  });
}
