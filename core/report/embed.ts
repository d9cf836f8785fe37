/**
 * Activations in two dimensions: principal components, and t-SNE on at most 100 of them, started from the first two.
 * The same rows give the same picture; fewer than four rows are refused, for they have no neighbourhoods.
 */
import { TSNE } from "@saehrimnir/druidjs";
import { PCA } from "ml-pca";
import { InputError } from "../errors.ts";

export interface Scatter {
  /** The first two principal components of every row. */
  pca: [number, number][];
  /** Shares of the variance that they hold. */
  explained: [number, number];
  tsne: [number, number][];
}

/** As the published study has it. */
const COMPONENTS = 100, SEED = 42, ITERATIONS = 1000;

/**
 * @param data (n, dim), row after row @returns principal components as scikit-learn's, its signs included: of each
 * component's loadings the largest in size is positive
 */
export function principalComponents(
  data: ArrayLike<number>,
  dim: number,
  count: number,
): { rows: number[][]; explained: number[] } {
  const n = data.length / dim;
  const matrix = Array.from(
    { length: n },
    (_, i) => Array.from({ length: dim }, (_, j) => data[i * dim + j]),
  );
  const pca = new PCA(matrix, { center: true, scale: false });
  const components = Math.min(count, n, dim);
  const loadings = pca.getEigenvectors().to2DArray(); // (dim, components)
  const signs = Array.from({ length: components }, (_, k) => {
    const column = loadings.map((row) => row[k]);
    return column.reduce((most, value) => Math.abs(value) > Math.abs(most) ? value : most, 0) < 0 ? -1 : 1;
  });
  const rows = pca.predict(matrix, { nComponents: components }).to2DArray()
    .map((row) => row.map((value, k) => signs[k] * value));
  return { rows, explained: pca.getExplainedVariance().slice(0, components) };
}

/** Both pictures of n rows of width `dim`. @throws InputError for fewer than four rows */
export function scatterOf(data: ArrayLike<number>, dim: number): Scatter {
  const n = data.length / dim;
  if (n < 4) throw new InputError(`Cannot draw ${n} activations as a scatter: expected at least 4`);
  const { rows, explained } = principalComponents(data, dim, COMPONENTS);
  const tsne = new TSNE(rows, { perplexity: Math.min(30, (n - 1) / 3), d: 2, seed: SEED });
  // scikit-learn's init="pca": the first two components, the first with a deviation of 1e-4.
  const spread = Math.sqrt(rows.reduce((sum, row) => sum + row[0] ** 2, 0) / n) || 1;
  rows.forEach((row, i) => {
    for (let k = 0; k < 2; k++) tsne.Y.set_entry(i, k, (row[k] ?? 0) / spread * 1e-4);
  });
  const placed = tsne.transform(ITERATIONS);
  const pair = (row: ArrayLike<number>): [number, number] => [rounded(row[0]), rounded(row[1] ?? 0)];
  return {
    pca: rows.map(pair),
    explained: [explained[0] ?? 0, explained[1] ?? 0],
    tsne: placed.map(pair),
  };
}

/** A picture needs no more digits than it has pixels. */
const rounded = (value: number): number => Number(value.toPrecision(5));
