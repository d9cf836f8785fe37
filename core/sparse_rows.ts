/**
 * Sparse matrices over whole rows, listed on the host: they say which rows of a tensor an op reads, and their
 * transposes which results a row's gradient comes from. A column outside the matrix is refused.
 */

/** A sparse (R, columns) matrix in compressed rows: row r has the entries starts[r] to starts[r + 1]. */
export interface SparseRows {
  readonly columns: number;
  /** R + 1 positions in `entries`, ascending. */
  readonly starts: Uint32Array;
  /** The column of each entry. */
  readonly entries: Uint32Array;
  /** The value of each entry; all 1 when absent. */
  readonly weights?: Float32Array;
}

/** Row r has the columns `lists[r]`, in that order, all with the weight `weigh(r)`. @throws RangeError beyond `columns` */
export function sparseRows(
  lists: readonly ArrayLike<number>[],
  columns: number,
  weigh?: (row: number) => number,
): SparseRows {
  const starts = new Uint32Array(lists.length + 1);
  lists.forEach((list, r) => starts[r + 1] = starts[r] + list.length);
  const entries = new Uint32Array(starts[lists.length]);
  const weights = weigh && new Float32Array(entries.length);
  lists.forEach((list, r) => {
    checkIndices(list, columns);
    entries.set(list, starts[r]);
    weights?.fill(weigh!(r), starts[r], starts[r + 1]);
  });
  return { columns, starts, entries, weights };
}

/** Row r has the single column `index[r]`, or none where that is negative. @throws RangeError beyond `columns` */
export function selectRows(index: ArrayLike<number>, columns: number): SparseRows {
  const starts = new Uint32Array(index.length + 1), entries = new Uint32Array(index.length);
  checkIndices(index, columns, -Infinity);
  let count = 0;
  for (let r = 0; r < index.length; r++) {
    if (index[r] >= 0) entries[count++] = index[r];
    starts[r + 1] = count;
  }
  return { columns, starts, entries: entries.subarray(0, count) };
}

/** The transpose (columns, R); the entries of each row ascend, so that sums over them have one order. */
export function transposeRows({ columns, starts, entries, weights }: SparseRows): SparseRows {
  const R = starts.length - 1;
  const turned = new Uint32Array(columns + 1);
  for (const column of entries) turned[column + 1]++;
  for (let c = 0; c < columns; c++) turned[c + 1] += turned[c];
  const next = turned.slice(), rows = new Uint32Array(entries.length);
  const turnedWeights = weights && new Float32Array(entries.length);
  for (let r = 0; r < R; r++) {
    for (let e = starts[r]; e < starts[r + 1]; e++) {
      const place = next[entries[e]]++;
      rows[place] = r;
      if (turnedWeights) turnedWeights[place] = weights![e];
    }
  }
  return { columns: R, starts: turned, entries: rows, weights: turnedWeights };
}

/** @throws RangeError naming the first index that is not an integer from `least` to `columns` - 1 */
export function checkIndices(index: ArrayLike<number>, columns: number, least = 0): void {
  for (let i = 0; i < index.length; i++) {
    if (!(index[i] >= least && index[i] < columns && Number.isInteger(index[i]))) {
      throw new RangeError(`Cannot read row ${index[i]} (index ${i}): there are ${columns} rows`);
    }
  }
}
