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
import panelNarrow from "./attention_panel_narrow.wgsl" with { type: "text" };
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

const sizes: Record<string, Scalar> = {
  rows: "u32",
  row0: "u32",
  far0: "u32",
  stats0: "u32",
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
const wideByStorage = kernelsOf("attention_storage_wide", storageWide);
const NARROW = 32;
const delta = kernel("attention", storageNarrow + body, "delta", { rows: "u32", D4: "u32" }, 3, 1);

/** Copies ranges to the device, in the innermost scope; submits recorded work, so once a micro-batch. */
export function uploadRanges(gpu: Gpu, ranges: Ranges): DeviceRanges {
  const pairs = (lo: Uint32Array, hi: Uint32Array) => {
    const both = new Uint32Array(2 * lo.length);
    lo.forEach((start, i) => both.set([start, hi[i]], 2 * i));
    return gpu.upload(both, [lo.length, 2]);
  };
  return {
    ...ranges,
    queries: pairs(ranges.queryLo, ranges.queryHi),
    keys: pairs(ranges.keyLo, ranges.keyHi),
  };
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
  const { T, S, Q, C } = dims("T Q", q, "S C", k, "S C", v);
  const H = Q / D, K = C / D;
  if (D % 4 !== 0 || D < 4 || D > 128) {
    throw new RangeError(`Cannot attend with a head width of ${D}: expected a multiple of 4 up to 128`);
  }
  if (!Number.isInteger(H) || !Number.isInteger(K) || H % K !== 0) {
    throw new RangeError(
      `Cannot cut queries of ${Q} and keys of ${C} into heads of ${D} whose counts divide`,
    );
  }
  if (ranges.queryLo.length !== T || ranges.keyLo.length !== S) {
    throw new RangeError(
      `Cannot attend ${T} queries to ${S} keys: the ranges are for ${ranges.queryLo.length} and ${ranges.keyLo.length}`,
    );
  }
  const wanted = tape.recording && (q.requiresGrad || k.requiresGrad || v.requiresGrad);
  const SIZE = gpu.isCpu ? 16 : 64;

  /** Runs a kernel for all owners of ranges, window by window where the far rows come as panels. */
  const each = (
    which: "forward" | "queries" | "keys",
    far: readonly Tensor[],
    near: readonly Tensor[],
    outputs: readonly (Tensor | undefined)[],
    wants = 0,
  ) => {
    const [lo, hi] = which === "keys" ? [ranges.keyLo, ranges.keyHi] : [ranges.queryLo, ranges.queryHi];
    const heads = which === "keys" ? K : H;
    const windows = gpu.isCpu && D <= NARROW ? windowsOf(lo, hi, far) : undefined;
    const kernels = D > NARROW ? wideByStorage : windows ? byPanels : byStorage;
    for (
      const { row0, rows, starts } of windows ?? [{ row0: 0, rows: lo.length, starts: far.map(() => 0) }]
    ) {
      const [far0, , stats0 = 0] = starts;
      const bound = far.map((x, i) => rowsOf(x, starts[i], x.shape[0] - starts[i]));
      const grid = [Math.ceil(rows / 2 / SIZE), heads] as const;
      const sizes = { rows, row0, far0, stats0, H, K, D4: D / 4, scale, wants };
      gpu.run(kernels[which], sizes, [...bound, ...near], outputs, grid, { SIZE });
    }
  };

  const out = tape.empty([T, Q]);
  const lse = wanted ? tape.empty([T, H]) : undefined;
  each("forward", [k, v], [q, ranges.queries], [out, lse], lse && LSE);
  return tape.record(out, [q, k, v], (dy) => {
    const stats = tape.empty([T, 2 * H]);
    gpu.run(delta, { rows: T * H, D4: D / 4 }, [out, dy, lse], [stats], gridFor(T * H, SIZE), { SIZE });
    const [dq, dk, dv] = [q, k, v].map((x) => x.requiresGrad ? tape.empty(x.shape) : undefined);
    if (dq) each("queries", [k, v], [q, dy, stats, ranges.queries], [dq]);
    if (dk || dv) {
      each("keys", [q, dy, stats], [k, v, ranges.keys], [dk, dv], (dk ? DK : 0) + (dv ? DV : 0));
    }
    return [dq, dk, dv];
  });
}

interface Window {
  /** Owned rows, and the far row at which each far tensor's panel starts. */
  row0: number;
  rows: number;
  starts: number[];
}

/** Runs of owners whose ranges fit into one panel of every far tensor; undefined when one range alone does not. */
function windowsOf(lo: Uint32Array, hi: Uint32Array, far: readonly Tensor[]): Window[] | undefined {
  const panels = far.map(({ shape: [, C] }) => ({
    step: rowStep(4 * C),
    rows: Math.floor(PANEL_BYTES / (4 * C)),
  }));
  const startOf = (first: number, step: number) => first - first % step;
  const fits = (first: number, end: number) =>
    panels.every(({ step, rows }) => end - startOf(first, step) <= rows);
  const windows: Window[] = [];
  let row0 = 0, first = EMPTY, end = 0;
  const close = (row: number) => {
    const seen = first === EMPTY ? 0 : first;
    windows.push({ row0, rows: row - row0, starts: panels.map(({ step }) => startOf(seen, step)) });
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
