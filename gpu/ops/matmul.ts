/**
 * The three products behind every linear layer: x w^T, dy w and dy^T x, without a tape, cut where an operand is larger
 * than a binding. On a GPU they run as workgroup tiles of any shape; on software Vulkan as register blocks over panels,
 * where shapes allow it. Refuses shapes that do not fit.
 */
import { dims } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel, type Scalar } from "../kernel.ts";
import { panelRows } from "../panels.ts";
import { NF4_STEP, rowsOf, rowStep, type Tensor, tensorOver } from "../tensor.ts";
import { rowWindows, windowFits } from "../windows.ts";
import { decodeNf4 } from "./nf4.ts";
import { BLOCK, packColumns } from "./pack.ts";
import panelSource from "./matmul_panel.wgsl" with { type: "text" };
import tileSource from "./matmul_tile.wgsl" with { type: "text" };
import nf4Source from "./nf4.wgsl" with { type: "text" };

export interface MatmulOptions {
  /** Factor of the product, 1 by default. */
  alpha?: number;
  /** Adds to `out` instead of overwriting it. */
  accumulate?: boolean;
  /** (N), added to every row of a fresh result; only for `matmulNT` and not together with `accumulate`. */
  bias?: Tensor;
}

const panelSizes: Record<string, Scalar> = {
  T: "u32",
  N: "u32",
  K: "u32",
  row0: "u32",
  column0: "u32",
  width: "u32",
  alpha: "f32",
  accumulate: "u32",
  outColumn0: "u32",
  outWidth: "u32",
};
const none = { column0: 0, width: 0, outColumn0: 0, outWidth: 0 };
const panelNT = kernel("matmul_panel", panelSource, "nt", panelSizes, 3, 1, 2);
const panelNN = kernel("matmul_panel", panelSource, "nn", panelSizes, 2, 1, 2);
const panelTN = kernel("matmul_panel", panelSource, "tn", panelSizes, 2, 1, 2);
const tile = kernel(
  "matmul_tile",
  nf4Source + tileSource,
  "main",
  {
    ...{ M: "u32", N: "u32", K: "u32", a0: "u32", am: "u32", ak: "u32", bk: "u32", bn: "u32" },
    ...{ alpha: "f32", accumulate: "u32", column0: "u32", width: "u32", first: "u32", skip: "u32" },
  },
  4,
  1,
);

/** Invocations a workgroup of the panel kernels: few, so that small products still use every core. */
const SIZE = 16;

/** What is done with the result so far: nothing, added to, or nothing but the bias added. */
const SET = 0, ADD = 1, BIAS = 2;

/** Bytes of the rows of an NF4 matrix that are decoded at a time for panels. */
const DECODED_BYTES = 16 * 2 ** 20;

/** Where a product goes, and how: modes are those of the kernels. */
interface Target {
  out: Tensor;
  alpha: number;
  mode: number;
  row0?: number;
  column0?: number;
  /** First of the rows of w that take part: columns of the result of x w^T, columns of dy in dy w. */
  n0?: number;
}

/** out (T,N) = alpha * x (T,K) w (N,K)^T + bias; w may be packed bf16 or nf4. */
export function matmulNT(gpu: Gpu, x: Tensor, w: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { K } = dims("T K", x, "N K", w, "T N", out);
  const { alpha = 1, accumulate = false, bias } = options;
  const mode = accumulate ? ADD : bias ? BIAS : SET, path = pathOf(gpu, x, w);
  for (const [t0, rows] of rowWindows(gpu, [x, out])) {
    using _scope = gpu.pool.scope();
    const a = rowsOf(x, t0, rows), as = path === "blocks" ? packColumns(gpu, a) : [];
    const target = { out: rowsOf(out, t0, rows), alpha, mode };
    for (const [n0, b] of weightRows(gpu, w, path)) {
      if (path === "blocks") {
        packColumns(gpu, b).forEach((columns, k) =>
          panelsNT(gpu, as[k], columns, { ...target, n0, mode: k ? ADD : mode }, bias)
        );
      } else if (path === "panels") panelsNT(gpu, a, b, { ...target, n0 }, bias);
      else {runTile(gpu, [rows, b.shape[0], K], { am: K, ak: 1, bk: 1, bn: K }, a, b, {
          ...target,
          column0: n0,
        }, bias);}
    }
  }
}

/** out (T,K) = alpha * dy (T,N) w (N,K); w may be packed bf16 or nf4. */
export function matmulNN(gpu: Gpu, dy: Tensor, w: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { N, K } = dims("T N", dy, "N K", w, "T K", out);
  const { alpha = 1, accumulate = false } = options;
  const path = pathOf(gpu, dy, w), unit = { blocks: BLOCK, panels: 4, tiles: 1 }[path];
  for (const [t0, rows] of rowWindows(gpu, [dy, out])) {
    using _scope = gpu.pool.scope();
    const a = rowsOf(dy, t0, rows), as = path === "blocks" ? packColumns(gpu, a) : [];
    const target = { out: rowsOf(out, t0, rows), alpha };
    for (const [n0, b] of weightRows(gpu, w, path, unit)) {
      const mode = accumulate || n0 > 0 ? ADD : SET, depth = b.shape[0];
      if (path === "blocks") {
        packColumns(gpu, b).forEach((columns, k) => {
          for (let n = 0; n < depth; n += BLOCK) {
            const part = as[(n0 + n) / BLOCK];
            const place = { ...target, mode: n ? ADD : mode, column0: k * BLOCK };
            panelsNN(gpu, part, rowsOf(columns, n, part.shape[1]), place);
          }
        });
      } else if (path === "panels") panelsNN(gpu, a, b, { ...target, mode, n0 });
      else runTile(gpu, [rows, K, depth], { a0: n0, am: N, ak: 1, bk: K, bn: 1 }, a, b, { ...target, mode });
    }
  }
}

/** out (N,K) = alpha * dy (T,N)^T x (T,K). */
export function matmulTN(gpu: Gpu, dy: Tensor, x: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { N, K } = dims("T N", dy, "T K", x, "N K", out);
  const { alpha = 1, accumulate = false } = options;
  const blocks = usesBlocks(gpu, dy, x) && windowFits(gpu, out, BLOCK);
  const panels = !blocks && usesPanels(gpu, dy, x) && windowFits(gpu, out, N);
  for (const [t0, depth] of rowWindows(gpu, [dy, x])) {
    using _scope = gpu.pool.scope();
    const a = rowsOf(dy, t0, depth), b = rowsOf(x, t0, depth), mode = accumulate || t0 > 0 ? ADD : SET;
    if (panels) {
      panelsTN(gpu, a, b, { out, alpha, mode });
      continue;
    }
    const as = blocks ? packColumns(gpu, a) : [], bs = blocks ? packColumns(gpu, b) : [];
    for (const [n0, rows] of rowWindows(gpu, [out], { unit: blocks ? BLOCK : 1 })) {
      const target = { out: rowsOf(out, n0, rows), alpha, mode };
      if (!blocks) {
        runTile(gpu, [rows, K, depth], { a0: n0, am: 1, ak: N, bk: K, bn: 1 }, a, b, target);
        continue;
      }
      for (let row0 = 0; row0 < rows; row0 += BLOCK) {
        bs.forEach((columns, k) =>
          panelsTN(gpu, as[(n0 + row0) / BLOCK], columns, { ...target, row0, column0: k * BLOCK })
        );
      }
    }
  }
}

/** How a product with a weight runs: by packed blocks of columns, by panels of whole rows, or by tiles. */
type Path = "blocks" | "panels" | "tiles";

function pathOf(gpu: Gpu, a: Tensor, w: Tensor): Path {
  if (usesBlocks(gpu, a, w) && windowFits(gpu, asRead(w), BLOCK)) return "blocks";
  return usesPanels(gpu, a, w) ? "panels" : "tiles";
}

/**
 * A weight as bindings show it: rows of it, a stretch after the other, with the number of the first; decoded to f32
 * where panels read NF4. What it gives is valid until it is asked for more.
 */
function* weightRows(gpu: Gpu, w: Tensor, path: Path, unit = 1): Generator<[number, Tensor]> {
  const decoded = w.dtype === "nf4" && path !== "tiles";
  const limit = decoded ? Math.min(gpu.bindingLimit, DECODED_BYTES) : gpu.bindingLimit;
  for (const [first, rows] of rowWindows(gpu, [decoded ? asRead(w) : w], { limit, unit })) {
    using _scope = gpu.pool.scope();
    const part = rowsOf(w, first, rows);
    yield [first, decoded ? decodeNf4(gpu, part) : part];
  }
}

/** The shape and type in which panels read a weight. */
function asRead(w: Tensor): Tensor {
  return w.dtype === "nf4" ? tensorOver(w.buffer, w.shape) : w;
}

/** Whether rows of both operands come as panels: on the CPU, in fours. */
function usesPanels(gpu: Gpu, a: Tensor, b: Tensor): boolean {
  return [a, b].every((x) => panelRows(gpu, x.shape[1], widthOf(x)) >= 4);
}

/** Whether panels of whole rows would be too flat to keep the lanes busy, so that packing into blocks pays. */
function usesBlocks(gpu: Gpu, a: Tensor, b: Tensor): boolean {
  return gpu.isCpu && [a, b].every((x) => x.shape[1] * widthOf(x) % 16 === 0) &&
    [a, b].some((x) => panelRows(gpu, x.shape[1], widthOf(x)) < FLAT);
}

/** Rows under which a panel is flat. */
const FLAT = 64;

function widthOf({ dtype }: Tensor): number {
  return dtype === "bf16" ? 2 : 4;
}

function panelsNT(gpu: Gpu, x: Tensor, w: Tensor, { out, alpha, mode, n0 = 0 }: Target, bias?: Tensor): void {
  const { T, N, K } = dims("T K", x, "N K", w);
  const xRows = panelRows(gpu, K, 4), wRows = panelRows(gpu, K, widthOf(w));
  for (let row0 = 0; row0 < T; row0 += xRows) {
    const rows = Math.min(xRows, T - row0);
    for (let column0 = 0; column0 < N; column0 += wRows) {
      const columns = Math.min(wRows, N - column0);
      const place = { ...none, row0, column0: n0 + column0, width: out.shape[1] };
      const sizes = { ...place, T: rows, N: columns, K, alpha, accumulate: mode };
      const grid = gridFor(Math.ceil(rows / 16) * Math.ceil(columns / 8), SIZE);
      const panels = [rowsOf(x, row0, rows), rowsOf(w, column0, columns)];
      gpu.run(panelNT, sizes, [...panels, bias], [out], grid, overridesOf(w));
    }
  }
}

function panelsNN(
  gpu: Gpu,
  dy: Tensor,
  w: Tensor,
  { out, alpha, mode, column0: outColumn0 = 0, n0 = 0 }: Target,
): void {
  const [T, width] = dy.shape, [N, K] = w.shape, outWidth = out.shape[1];
  const dyRows = panelRows(gpu, width, 4), fitting = panelRows(gpu, K, widthOf(w));
  const wRows = fitting - fitting % 4; // rows of w are columns of dy, which is read in fours
  for (let row0 = 0; row0 < T; row0 += dyRows) {
    const rows = Math.min(dyRows, T - row0);
    for (let column0 = 0; column0 < N; column0 += wRows) {
      const depth = Math.min(wRows, N - column0);
      const place = { row0, column0: n0 + column0, width, outColumn0, outWidth };
      const sizes = { T: rows, N: depth, K, ...place, alpha, accumulate: column0 > 0 ? ADD : mode };
      const grid = gridFor(Math.ceil(rows / 8) * Math.ceil(K / 16), SIZE);
      gpu.run(
        panelNN,
        sizes,
        [rowsOf(dy, row0, rows), rowsOf(w, column0, depth)],
        [out],
        grid,
        overridesOf(w),
      );
    }
  }
}

function panelsTN(gpu: Gpu, dy: Tensor, x: Tensor, target: Target): void {
  const { T, N, K } = dims("T N", dy, "T K", x);
  const { out, alpha, mode, row0 = 0, column0: outColumn0 = 0 } = target;
  const place = { ...none, row0, outColumn0, outWidth: out.shape[1] };
  const most = Math.min(panelRows(gpu, N, 4), panelRows(gpu, K, 4));
  const depth = most - most % Math.max(rowStep(N * 4), rowStep(K * 4)); // panels of both start at the same rows
  for (let t = 0; t < T; t += depth) {
    const rows = Math.min(depth, T - t);
    const sizes = { T: rows, N, K, ...place, alpha, accumulate: t > 0 ? ADD : mode };
    const grid = gridFor(Math.ceil(N / 8) * Math.ceil(K / 16), SIZE);
    gpu.run(panelTN, sizes, [rowsOf(dy, t, rows), rowsOf(x, t, rows)], [out], grid, { SIZE });
  }
}

function overridesOf(w: Tensor): Record<string, number> {
  return { BF16: w.dtype === "bf16" ? 1 : 0, SIZE };
}

const TYPES: Partial<Record<Tensor["dtype"], number>> = { f32: 0, bf16: 1, nf4: 2 };

/** Strides as in the kernel. */
interface Strides {
  a0?: number;
  am: number;
  ak: number;
  bk: number;
  bn: number;
}

function runTile(
  gpu: Gpu,
  [M, N, K]: number[],
  { a0 = 0, ...strides }: Strides,
  a: Tensor,
  b: Tensor,
  { out, alpha, mode, column0 = 0 }: Target,
  bias?: Tensor,
): void {
  const grid = [Math.ceil(N / 64), Math.ceil(M / 64)] as const;
  const first = b.nf4?.first ?? 0, place = { column0, width: out.shape[1], first, skip: first % NF4_STEP };
  const sizes = { M, N, K, a0, ...strides, alpha, accumulate: mode, ...place };
  gpu.run(tile, sizes, [a, b.nf4?.scales, b, bias], [out], grid, { TYPE: TYPES[b.dtype]! });
}
