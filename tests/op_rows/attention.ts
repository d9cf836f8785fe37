/**
 * Rows of gpu/ops/attention.ts: rows around pairs and blocks of eight, segments of one row, grouped heads, widths that
 * are not powers of two, queries other than keys, ranges that do not fit into a panel, empty ranges.
 */
import assert from "node:assert/strict";
import { causalRanges, fullRanges, type Ranges, ranges } from "../../core/ranges.ts";
import { attentionReference, cachedAttentionReference } from "../../core/reference/attention.ts";
import { attention, cachedAttention, uploadPairs, uploadRanges } from "../../gpu/ops/attention.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, constant, type Row } from "./row.ts";

interface Case {
  name: string;
  ranges: Ranges;
  H: number;
  K: number;
  D: number;
  scale?: number;
}

function row({ name, ranges, H, K, D, scale }: Case): Row {
  const T = ranges.queryLo.length, S = ranges.keyLo.length;
  return {
    op: ["attention", "uploadRanges"],
    name: `${name}, ${H}/${K} heads of ${D}`,
    inputs: [activation([T, H * D]), activation([S, K * D]), activation([S, K * D])],
    gpu: (tape, [q, k, v]) => attention(tape, q, k, v, uploadRanges(tape.gpu, ranges), { headDim: D, scale }),
    reference: ([q, k, v]) => attentionReference(q, k, v, ranges, { H, K, D, scale }),
    tuned: true,
  };
}

/** Three cached keys before the queries; then queries that see a middle part, or nothing at all. */
const cached = ranges({
  queryLo: [0, 0, 0, 0],
  queryHi: [4, 5, 6, 7],
  keyLo: [0, 0, 0, 0, 1, 2, 3],
  keyHi: [4, 4, 4, 4, 4, 4, 4],
});
const sparse = ranges({
  queryLo: [2, 2, 0, 7, 0],
  queryHi: [7, 7, 0, 8, 0],
  keyLo: [0, 0, 0, 0, 0, 0, 0, 3, 0],
  keyHi: [0, 0, 2, 2, 2, 2, 2, 4, 0],
});

/** Queries of 150 keys: some see nothing, some the first 100, some the others. */
const farAndNear = ranges({
  queryLo: [0, 0, 0, 0, 100, 100],
  queryHi: [0, 100, 100, 0, 150, 150],
  keyLo: Array.from({ length: 150 }, (_, s) => s < 100 ? 1 : 4),
  keyHi: Array.from({ length: 150 }, (_, s) => s < 100 ? 3 : 6),
});

const cases: Case[] = [
  ...[1, 2, 7, 8, 9, 16, 17].flatMap((T): Case[] => [
    { name: `causal ${T}`, ranges: causalRanges([0, T]), H: 2, K: 2, D: 4 },
    { name: `full ${T}`, ranges: fullRanges([0, T]), H: 2, K: 1, D: 12 },
  ]),
  { name: "causal, segments of 1, 1, 3, 1, 9", ranges: causalRanges([0, 1, 2, 5, 6, 15]), H: 4, K: 2, D: 16 },
  { name: "full, segments of 1, 1, 3, 1, 9", ranges: fullRanges([0, 1, 2, 5, 6, 15]), H: 4, K: 4, D: 16 },
  { name: "cached keys", ranges: cached, H: 6, K: 2, D: 8 },
  { name: "a range for some", ranges: sparse, H: 3, K: 3, D: 20 },
  { name: "full 33, 31", ranges: fullRanges([0, 33, 64]), H: 3, K: 1, D: 64 },
  { name: "causal 11", ranges: causalRanges([0, 11]), H: 2, K: 2, D: 72 },
  { name: "causal 9", ranges: causalRanges([0, 4, 9]), H: 2, K: 1, D: 80, scale: 0.3 },
  { name: "causal 5", ranges: causalRanges([0, 5]), H: 1, K: 1, D: 104 },
  { name: "causal 10", ranges: causalRanges([0, 10]), H: 4, K: 1, D: 128 },
  { name: "several panels, segments of 30", ranges: causalRanges([0, 30, 60, 90]), H: 8, K: 4, D: 32 },
  { name: "more than a panel", ranges: causalRanges([0, 70]), H: 8, K: 8, D: 32 },
  { name: "rows too long for panels", ranges: causalRanges([0, 17]), H: 40, K: 40, D: 32 },
  { name: "slices, segments across them", ranges: causalRanges([0, 20, 121]), H: 9, K: 3, D: 64 },
  { name: "slices, full, of 70 and 31", ranges: fullRanges([0, 70, 101]), H: 8, K: 8, D: 36 },
  { name: "slices, some see nothing", ranges: farAndNear, H: 6, K: 6, D: 48 },
];

interface CachedCase extends Case {
  /** Rows of the cache, and which of them each query sees. */
  rows: number;
  lo: number[];
  hi: number[];
}

function cachedRow({ rows, lo, hi, ...rest }: CachedCase): Row {
  const { name, ranges, H, K, D, scale } = rest, T = ranges.queryLo.length, S = ranges.keyLo.length;
  const [from, to] = [lo, hi].map((ends) => Uint32Array.from(ends));
  return {
    op: ["cachedAttention", "uploadPairs"],
    name: `${name}, ${H}/${K} heads of ${D}`,
    inputs: [[T, H * D], [S, K * D], [S, K * D], [rows, K * D], [rows, K * D]].map((shape) =>
      constant(shape)
    ),
    gpu: (tape, [q, k, v, pastK, pastV]) => {
      const past = { k: pastK, v: pastV, lo: from, hi: to, ranges: uploadPairs(tape.gpu, from, to) };
      return cachedAttention(tape, q, k, v, uploadRanges(tape.gpu, ranges), past, { headDim: D, scale });
    },
    reference: ([q, k, v, pastK, pastV]) =>
      cachedAttentionReference(q, [k, v], ranges, [pastK, pastV], { lo, hi }, { H, K, D, scale }),
    tuned: true,
  };
}

/** Two sequences, one token each, in a cache with gaps; a first pass that sees none of it; many behind one prompt. */
const cachedCases: CachedCase[] = [
  {
    name: "a step of two",
    ranges: causalRanges([0, 1, 2]),
    H: 4,
    K: 2,
    D: 8,
    rows: 30,
    lo: [2, 17],
    hi: [9, 30],
  },
  {
    name: "nothing cached for some",
    ranges: causalRanges([0, 3, 5]),
    H: 2,
    K: 2,
    D: 16,
    rows: 7,
    lo: [0, 0, 0, 1, 1],
    hi: [0, 0, 0, 7, 7],
  },
  {
    name: "25 candidates after one prompt",
    ranges: causalRanges(Array.from({ length: 26 }, (_, i) => 3 * i)),
    H: 6,
    K: 2,
    D: 32,
    rows: 90,
    lo: Array(75).fill(0),
    hi: Array(75).fill(83),
  },
  {
    name: "beyond a panel",
    ranges: causalRanges([0, 2]),
    H: 8,
    K: 8,
    D: 32,
    rows: 80,
    lo: [0, 0],
    hi: [75, 75],
  },
  {
    name: "wide",
    ranges: causalRanges([0, 4]),
    H: 4,
    K: 1,
    D: 128,
    rows: 20,
    lo: [3, 3, 3, 3],
    hi: [19, 19, 19, 19],
  },
];

export const rows: Row[] = [
  ...cases.map(row),
  ...cachedCases.map(cachedRow),
  {
    op: "attention",
    name: "refuses what does not fit",
    check: (gpu) => {
      const tape = new Tape(gpu), x = gpu.empty([3, 24]), y = gpu.empty([3, 16]);
      const seen = uploadRanges(gpu, causalRanges([0, 3])), short = uploadRanges(gpu, causalRanges([0, 2]));
      assert.throws(() => attention(tape, x, x, x, seen, { headDim: 6 }), /head width of 6/);
      assert.throws(() => attention(tape, x, y, y, seen, { headDim: 8 }), /heads of 8 whose counts divide/);
      assert.throws(() => attention(tape, x, x, x, short, { headDim: 8 }), /ranges are for 2 and 2/);
      const lo = Uint32Array.of(0, 0, 0), hi = Uint32Array.of(3, 3, 4);
      const past = { k: x, v: x, lo, hi, ranges: uploadPairs(gpu, lo, hi) };
      assert.throws(() => cachedAttention(tape, x, x, x, seen, past, { headDim: 8 }), /to 3 cached keys/);
      const wanting = { ...x, requiresGrad: true };
      assert.throws(() => cachedAttention(tape, wanting, x, x, seen, past, { headDim: 8 }), /no backward/);
    },
  },
];
