/**
 * core/ranges.ts against visibility matrices: segments seen fully or causally, and the check of two sides that are
 * given by hand, which must accept exactly those that describe one matrix.
 */
import assert from "node:assert/strict";
import { Random } from "../core/random.ts";
import { causalRanges, EMPTY, fullRanges, type Ranges, ranges } from "../core/ranges.ts";

/** Who sees whom, from the queries' side. */
function matrixOf({ queryLo, queryHi, keyLo }: Ranges): boolean[][] {
  return Array.from(queryLo, (lo, t) => Array.from(keyLo, (_, s) => s >= lo && s < queryHi[t]));
}

/** Who sees whom, from the keys' side. */
function turnedMatrixOf({ queryLo, keyLo, keyHi }: Ranges): boolean[][] {
  return Array.from(queryLo, (_, t) => Array.from(keyLo, (lo, s) => t >= lo && t < keyHi[s]));
}

Deno.test("segments are seen fully or causally, and nothing across them", () => {
  const starts = [0, 1, 4, 9], segment = (t: number) => starts.findLastIndex((start) => start <= t);
  const expected = (sees: (t: number, s: number) => boolean) =>
    Array.from(
      { length: 9 },
      (_, t) => Array.from({ length: 9 }, (_, s) => segment(s) === segment(t) && sees(t, s)),
    );
  for (const side of [matrixOf, turnedMatrixOf]) {
    assert.deepEqual(side(fullRanges(starts)), expected(() => true));
    assert.deepEqual(side(causalRanges(starts)), expected((t, s) => s <= t));
  }
});

Deno.test("ranges by hand are accepted exactly when both sides say the same", () => {
  const random = new Random(1, "ranges"), T = 4, S = 3;
  let accepted = 0;
  for (let trial = 0; trial < 3000; trial++) {
    const [queryLo, queryHi] = [0, 1].map(() => Array.from({ length: T }, () => random.int(S + 1)));
    const [keyLo, keyHi] = [0, 1].map(() => Array.from({ length: S }, () => random.int(T + 1)));
    const sides = { queryLo, queryHi, keyLo, keyHi };
    const raw = Object.fromEntries(Object.entries(sides).map(([k, v]) => [k, Uint32Array.from(v)]));
    const same =
      matrixOf(raw as unknown as Ranges).join() === turnedMatrixOf(raw as unknown as Ranges).join();
    if (same) {
      assert.deepEqual(matrixOf(ranges(sides)), matrixOf(raw as unknown as Ranges));
      accepted++;
    } else assert.throws(() => ranges(sides), /not exactly those/);
  }
  assert(accepted > 5, `only ${accepted} trials had two sides that agree`);
});

Deno.test("an empty range becomes [EMPTY, 0); what leaves the rows is refused", () => {
  const { queryLo, queryHi } = ranges({ queryLo: [1, 0], queryHi: [1, 1], keyLo: [1], keyHi: [2] });
  assert.deepEqual([queryLo[0], queryHi[0]], [EMPTY, 0]);
  const sides = { queryLo: [0], queryHi: [2], keyLo: [0], keyHi: [1] };
  assert.throws(() => ranges(sides), /range \[0, 2\) of query 0: there are 1 rows/);
  assert.throws(() => ranges({ ...sides, queryHi: [1, 1] }), /1 starts with 2 ends of query ranges/);
  assert.throws(() => fullRanges([0, 3, 3]), /segments at \[0,3,3\]/);
  assert.throws(() => causalRanges([1, 3]), /expected 0 first/);
});
