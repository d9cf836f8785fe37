/**
 * Softmax attention over ranges of keys with grouped heads; no (T, S) matrix is ever written.
 * Refuses head widths that are no multiple of 4 or above 128, and query heads that the kv-heads do not divide.
 */
import { dims } from "../../core/shape.ts";
import { EMPTY, type Ranges } from "../../core/ranges.ts";
import { type Gpu, gridFor } from "../device.ts";
import { type Kernel, kernel, PANEL_BYTES, type Scalar } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, rowStep, type Tensor } from "../tensor.ts";
import body from "./attention.wgsl" with { type: "text" };
import joinSource from "./attention_join.wgsl" with { type: "text" };
import panelNarrow from "./attention_panel_narrow.wgsl" with { type: "text" };
import panelWide from "./attention_panel_wide.wgsl" with { type: "text" };
import storageNarrow from "./attention_storage_narrow.wgsl" with { type: "text" };
import storageWide from "./attention_storage_wide.wgsl" with { type: "text" };

export interface AttentionOptions {
  /** Width of a head, a multiple of 4 up to 128. */
  headDim: number;
  /** Factor of the scores, 1 / sqrt(headDim) by default. */
  scale?: number;
}

/** Ranges that lie on the device as well: uploaded once a micro-batch, used by every layer. */
export interface DeviceRanges extends Ranges {
  /** (T, 2) and (S, 2), u32. */
  readonly queries: Tensor;
  readonly keys: Tensor;
}

/** Keys and values of an earlier pass, and the range of them that each new query sees. */
export interface PastKeys {
  /** (S, K*D) each; rows in no range may hold anything. */
  k: Tensor;
  v: Tensor;
  lo: Uint32Array;
  hi: Uint32Array;
  /** (T, 2) u32, the same ranges on the device. */
  ranges: Tensor;
}

const sizes: Record<string, Scalar> = {
  rows: "u32",
  row0: "u32",
  far0: "u32",
  stats0: "u32",
  begin: "u32",
  end: "u32",
  H: "u32",
  K: "u32",
  D4: "u32",
  scale: "f32",
  wants: "u32",
};
const LSE = 1, DK = 2, DV = 4;

/** The three kernels over far rows; those of `panels` read them as uniform windows. */
function kernelsOf(name: string, declarations: string, panels = false): Record<string, Kernel> {
  const source = declarations + body;
  return {
    forward: kernel(name, source, "forward", sizes, 4, 2, panels ? 2 : 0),
    queries: kernel(name, source, "queries", sizes, 6, 1, panels ? 2 : 0),
    keys: kernel(name, source, "keys", sizes, 6, 2, panels ? 3 : 0),
  };
}

const byPanels = kernelsOf("attention_panel_narrow", panelNarrow, true);
const byStorage = kernelsOf("attention_storage_narrow", storageNarrow);
const wideByPanels = kernelsOf("attention_panel_wide", panelWide, true);
const wideByStorage = kernelsOf("attention_storage_wide", storageWide);
const NARROW = 32, BY_PANELS = 64;
const delta = kernel("attention", storageNarrow + body, "delta", { rows: "u32", D4: "u32" }, 3, 1);

const join = kernel("attention_join", joinSource, "join", { rows: "u32", H: "u32", D4: "u32" }, 5, 1);

/** Copies ranges to the device, in the innermost scope; submits recorded work, so once a micro-batch. */
export function uploadRanges(gpu: Gpu, ranges: Ranges): DeviceRanges {
  return {
    ...ranges,
    queries: uploadPairs(gpu, ranges.queryLo, ranges.queryHi),
    keys: uploadPairs(gpu, ranges.keyLo, ranges.keyHi),
  };
}

/** Two lists as one tensor (n, 2), u32. */
export function uploadPairs(gpu: Gpu, lo: Uint32Array, hi: Uint32Array): Tensor {
  const both = new Uint32Array(2 * lo.length);
  lo.forEach((start, i) => both.set([start, hi[i]], 2 * i));
  return gpu.upload(both, [lo.length, 2]);
}

/**
 * q (T, H*D), k (S, K*D), v (S, K*D) -> (T, H*D): softmax(scale q k^T) v over each query's range, head by head; head h
 * reads kv-head floor(h K / H). A query with an empty range gets zeros. Vaswani et al. 2017, Dao et al. 2022.
 * @throws RangeError when the shapes, the head width or the ranges do not fit
 */
export function attention(
  tape: Tape,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  ranges: DeviceRanges,
  { headDim: D, scale = 1 / Math.sqrt(D) }: AttentionOptions,
): Tensor {
  const { gpu } = tape;
  const shape = headsOf(q, k, v, D, scale), { T, Q, H } = shape;
  checkRanges(ranges, q, k);
  const wanted = tape.recording && (q.requiresGrad || k.requiresGrad || v.requiresGrad);
  const out = tape.empty([T, Q]);
  const lse = wanted ? tape.empty([T, H]) : undefined;
  const byQuery: Owners = [ranges.queryLo, ranges.queryHi], byKey: Owners = [ranges.keyLo, ranges.keyHi];
  launch(gpu, "forward", shape, byQuery, [k, v], [q, ranges.queries], [out, lse], lse && LSE);
  gpu.trace?.op("attention", [q, k, v], out, { ranges, headDim: D, scale });
  return tape.record(out, [q, k, v], (dy) => {
    const stats = tape.empty([T, 2 * H]), SIZE = groupSize(gpu);
    gpu.run(delta, { rows: T * H, D4: D / 4 }, [out, dy, lse], [stats], gridFor(T * H, SIZE), { SIZE });
    const [dq, dk, dv] = [q, k, v].map((x) => x.requiresGrad ? tape.empty(x.shape) : undefined);
    if (dq) launch(gpu, "queries", shape, byQuery, [k, v], [q, dy, stats, ranges.queries], [dq]);
    if (dk || dv) {
      const wants = (dk ? DK : 0) + (dv ? DV : 0);
      launch(gpu, "keys", shape, byKey, [q, dy, stats], [k, v, ranges.keys], [dk, dv], wants);
    }
    return [dq, dk, dv];
  });
}

/**
 * The same with more keys: each query sees its range of the new ones and its range of those of an earlier pass, which
 * is how a cache is read. Both parts are attended on their own and joined by their sums, so nothing of the cache moves.
 * @throws RangeError when shapes or ranges do not fit; Error where a gradient is wanted: there is no backward
 */
export function cachedAttention(
  tape: Tape,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  ranges: DeviceRanges,
  past: PastKeys,
  { headDim: D, scale = 1 / Math.sqrt(D) }: AttentionOptions,
): Tensor {
  const { gpu } = tape;
  if (tape.recording && [q, k, v].some(({ requiresGrad }) => requiresGrad)) {
    throw new Error("Cannot attend to cached keys where a gradient is wanted: there is no backward");
  }
  const fresh = headsOf(q, k, v, D, scale), shape = headsOf(q, past.k, past.v, D, scale), { T, Q, H } = shape;
  checkRanges(ranges, q, k);
  if (past.lo.length !== T || past.hi.some((hi) => hi > past.k.shape[0]) || fresh.K !== shape.K) {
    throw new RangeError(
      `Cannot attend ${T} queries to ${
        past.k.shape[0]
      } cached keys of ${shape.K} heads: there are ranges for ${past.lo.length}, new keys of ${fresh.K} heads`,
    );
  }
  const y = tape.empty([T, Q]);
  using _scope = gpu.pool.scope();
  const part = (keys: Tensor, values: Tensor, owners: Owners, pairs: Tensor) => {
    const out = gpu.empty([T, Q]), lse = gpu.empty([T, H]);
    launch(gpu, "forward", shape, owners, [keys, values], [q, pairs], [out, lse], LSE);
    return [out, lse];
  };
  const own = part(k, v, [ranges.queryLo, ranges.queryHi], ranges.queries);
  const far = part(past.k, past.v, [past.lo, past.hi], past.ranges);
  const sizes = { rows: T * H * D / 4, H, D4: D / 4 };
  gpu.run(join, sizes, [...own, ...far, past.ranges], [y], gridFor(sizes.rows));
  return y;
}

interface HeadShape {
  T: number;
  Q: number;
  H: number;
  K: number;
  D: number;
  scale: number;
}

function headsOf(q: Tensor, k: Tensor, v: Tensor, D: number, scale: number): HeadShape {
  const { T, Q, C } = dims("T Q", q, "S C", k, "S C", v);
  const H = Q / D, K = C / D;
  if (D % 4 !== 0 || D < 4 || D > 128) {
    throw new RangeError(`Cannot attend with a head width of ${D}: expected a multiple of 4 up to 128`);
  }
  if (!Number.isInteger(H) || !Number.isInteger(K) || H % K !== 0) {
    throw new RangeError(
      `Cannot cut queries of ${Q} and keys of ${C} into heads of ${D} whose counts divide`,
    );
  }
  return { T, Q, H, K, D, scale };
}

function checkRanges({ queryLo, keyLo }: Ranges, q: Tensor, k: Tensor): void {
  const [T] = q.shape, [S] = k.shape;
  if (queryLo.length !== T || keyLo.length !== S) {
    throw new RangeError(
      `Cannot attend ${T} queries to ${S} keys: the ranges are for ${queryLo.length} and ${keyLo.length}`,
    );
  }
}

function groupSize(gpu: Gpu): number {
  return gpu.isCpu ? 16 : 64;
}

/** Ends of the ranges, row by row of those who own them. */
type Owners = readonly [lo: Uint32Array, hi: Uint32Array];

/** Runs a kernel for all owners of ranges, window by window where the far rows come as panels. */
function launch(
  gpu: Gpu,
  which: "forward" | "queries" | "keys",
  { H, K, D, scale }: HeadShape,
  [lo, hi]: Owners,
  far: readonly Tensor[],
  near: readonly Tensor[],
  outputs: readonly (Tensor | undefined)[],
  wants = 0,
): void {
  const heads = which === "keys" ? K : H, SIZE = groupSize(gpu);
  const panels = gpu.isCpu && D <= BY_PANELS ? windowsOf(lo, hi, far) ?? slicesOf(lo, hi, far) : undefined;
  const windows = panels ?? [{ row0: 0, rows: lo.length, starts: far.map(() => 0), begin: 0, end: EMPTY }];
  const [narrow, wide] = panels ? [byPanels, wideByPanels] : [byStorage, wideByStorage];
  const kernels = D <= NARROW ? narrow : wide;
  if (which === "forward" && windows.length > 1 && !wants) {
    outputs = [outputs[0], gpu.empty([lo.length, H])]; // sums go on from slice to slice with lse
    wants = LSE;
  }
  for (const { row0, rows, starts, begin, end } of windows) {
    const [far0, , stats0 = 0] = starts;
    const bound = far.map((x, i) => rowsOf(x, starts[i], x.shape[0] - starts[i]));
    const grid = [Math.ceil(rows / 2 / SIZE), heads] as const;
    const sizes = { rows, row0, far0, stats0, begin, end, H, K, D4: D / 4, scale, wants };
    gpu.run(kernels[which], sizes, [...bound, ...near], outputs, grid, { SIZE });
  }
}

interface Window {
  /** Owned rows, and the far row at which each far tensor's panel starts. */
  row0: number;
  rows: number;
  starts: number[];
  /** The far rows that are seen of their ranges. */
  begin: number;
  end: number;
}

/** How many rows of each tensor a panel shows, and at multiples of how many it may start. */
function panelsOf(far: readonly Tensor[]): { step: number; rows: number }[] {
  return far.map(({ shape: [, C] }) => ({ step: rowStep(4 * C), rows: Math.floor(PANEL_BYTES / (4 * C)) }));
}

const startOf = (first: number, step: number) => first - first % step;

/** Fewer far rows in a panel are not worth a dispatch. */
const FEWEST = 16;

/** Slices of the far rows that panels show, in turn, each for the owners from the first to the last that see some of it. */
function slicesOf(lo: Uint32Array, hi: Uint32Array, far: readonly Tensor[]): Window[] | undefined {
  const panels = panelsOf(far), [S] = far[0].shape, slices: Window[] = [];
  for (let begin = 0, end; begin < S; begin = end) {
    const starts = panels.map(({ step }) => startOf(begin, step));
    end = Math.min(S, ...panels.map(({ rows }, i) => starts[i] + rows));
    if (end - begin < FEWEST && end < S) return undefined;
    // The first one is for all owners: it clears those that see nothing.
    const sees = (from: number, row: number) => begin === 0 || from < end && hi[row] > begin;
    const row0 = lo.findIndex(sees), rows = lo.findLastIndex(sees) + 1 - row0;
    if (row0 >= 0) slices.push({ row0, rows, starts, begin, end });
  }
  return slices;
}

/** Runs of owners whose ranges fit into one panel of every far tensor; undefined when one range alone does not. */
function windowsOf(lo: Uint32Array, hi: Uint32Array, far: readonly Tensor[]): Window[] | undefined {
  const panels = panelsOf(far);
  const fits = (first: number, end: number) =>
    panels.every(({ step, rows }) => end - startOf(first, step) <= rows);
  const windows: Window[] = [];
  let row0 = 0, first = EMPTY, end = 0;
  const close = (row: number) => {
    const seen = first === EMPTY ? 0 : first;
    const starts = panels.map(({ step }) => startOf(seen, step));
    windows.push({ row0, rows: row - row0, starts, begin: 0, end: EMPTY });
  };
  for (let row = 0; row < lo.length; row++) {
    let union = [Math.min(first, lo[row]), Math.max(end, hi[row])];
    if (union[0] < union[1] && !fits(union[0], union[1])) {
      if (!fits(lo[row], hi[row])) return undefined;
      close(row);
      row0 = row;
      union = [lo[row], hi[row]];
    }
    [first, end] = union;
  }
  if (row0 < lo.length) close(lo.length);
  return windows;
}
