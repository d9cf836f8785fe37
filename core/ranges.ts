/**
 * Which keys a query attends to, as one half-open range a query, and the same from the keys' side: what attention
 * needs instead of a mask. Refuses a visibility that is not a range from both sides.
 */
/** Rows [lo, hi) of keys for every query and of queries for every key; an empty range is lo = EMPTY, hi = 0. */
export interface Ranges {
  readonly queryLo: Uint32Array;
  readonly queryHi: Uint32Array;
  readonly keyLo: Uint32Array;
  readonly keyHi: Uint32Array;
}

/** The lower end of an empty range: above every row, so that unions by min and max come out right. */
export const EMPTY = 0xffffffff;

/** Every position sees its own segment up to itself; `starts` are the segments' first rows and, last, the total. */
export function causalRanges(starts: readonly number[]): Ranges {
  const { queryLo, queryHi } = fullRanges(starts);
  const own = queryLo.map((_, t) => t), next = own.map((t) => t + 1);
  return { queryLo, queryHi: next, keyLo: own, keyHi: queryHi };
}

/** Every position sees its whole segment; `starts` are the segments' first rows and, last, the total. */
export function fullRanges(starts: readonly number[]): Ranges {
  const T = starts.at(-1) ?? 0;
  const lo = new Uint32Array(T), hi = new Uint32Array(T);
  for (let i = 0; i + 1 < starts.length; i++) {
    if (starts[0] !== 0 || starts[i + 1] <= starts[i]) {
      throw new RangeError(
        `Cannot cut rows into segments at [${starts}]: expected 0 first, then rising starts`,
      );
    }
    lo.fill(starts[i], starts[i], starts[i + 1]);
    hi.fill(starts[i + 1], starts[i], starts[i + 1]);
  }
  return { queryLo: lo, queryHi: hi, keyLo: lo, keyHi: hi };
}

/**
 * Ranges of any kind: queries may be others than keys (cross attention, a cache of keys).
 * @throws RangeError when a range leaves the rows, or when the two sides contradict each other
 */
export function ranges(sides: { [side in keyof Ranges]: ArrayLike<number> }): Ranges {
  const [queryLo, queryHi] = normalised("query", sides.queryLo, sides.queryHi, sides.keyLo.length);
  const [keyLo, keyHi] = normalised("key", sides.keyLo, sides.keyHi, sides.queryLo.length);
  agree(queryLo, queryHi, keyLo, keyHi);
  return { queryLo, queryHi, keyLo, keyHi };
}

function normalised(side: string, lo: ArrayLike<number>, hi: ArrayLike<number>, rows: number) {
  if (lo.length !== hi.length) {
    throw new RangeError(`Cannot pair ${lo.length} starts with ${hi.length} ends of ${side} ranges`);
  }
  const starts = Uint32Array.from(lo), ends = Uint32Array.from(hi);
  for (let i = 0; i < starts.length; i++) {
    if (lo[i] >= hi[i]) [starts[i], ends[i]] = [EMPTY, 0];
    else if (lo[i] < 0 || hi[i] > rows) {
      throw new RangeError(
        `Cannot use the range [${lo[i]}, ${hi[i]}) of ${side} ${i}: there are ${rows} rows`,
      );
    }
  }
  return [starts, ends];
}

/**
 * The queries that see a key must be exactly those of its own range. Among sets of n numbers with a given sum, n
 * neighbours have the smallest sum of squares and no other set has it: three running sums decide, in linear time.
 */
function agree(queryLo: Uint32Array, queryHi: Uint32Array, keyLo: Uint32Array, keyHi: Uint32Array): void {
  const S = keyLo.length;
  const change = [0, 1, 2].map(() => new Float64Array(S + 1));
  for (let t = 0; t < queryLo.length; t++) {
    if (queryLo[t] === EMPTY) continue;
    change.forEach((sums, power) => {
      sums[queryLo[t]] += t ** power;
      sums[queryHi[t]] -= t ** power;
    });
  }
  const seen = [0, 0, 0];
  for (let s = 0; s < S; s++) {
    const own = [0, 0, 0];
    seen.forEach((_, power) => {
      seen[power] += change[power][s];
      const hi = keyHi[s], lo = keyLo[s] === EMPTY ? 0 : keyLo[s];
      own[power] = powerSum(hi, power) - powerSum(lo, power);
    });
    if (own.some((sum, power) => sum !== seen[power])) {
      throw new RangeError(
        `Cannot use the range [${keyLo[s]}, ${keyHi[s]}) of key ${s}: ${
          seen[0]
        } queries see it, not exactly those`,
      );
    }
  }
}

/** The sum of t^power over t < n, for power 0 to 2: whole numbers, exact below 2^53. */
function powerSum(n: number, power: number): number {
  return power === 0 ? n : power === 1 ? n * (n - 1) / 2 : (n - 1) * n * (2 * n - 1) / 6;
}
