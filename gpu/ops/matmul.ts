/**
 * The three products behind every linear layer: x w^T, dy w and dy^T x, without a tape. On a GPU they run as
 * workgroup tiles of any shape; on software Vulkan as register blocks over panels, where shapes allow it.
 */
import { dims } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import { kernel, type Scalar } from "../kernel.ts";
import { panelRows } from "../panels.ts";
import { rowsOf, rowStep, type Tensor } from "../tensor.ts";
import { BLOCK, packColumns } from "./pack.ts";
import panelSource from "./matmul_panel.wgsl" with { type: "text" };
import tileSource from "./matmul_tile.wgsl" with { type: "text" };

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
  tileSource,
  "main",
  {
    M: "u32",
    N: "u32",
    K: "u32",
    am: "u32",
    ak: "u32",
    bk: "u32",
    bn: "u32",
    alpha: "f32",
    accumulate: "u32", // deno-fmt-ignore
  },
  3,
  1,
);

/** Invocations a workgroup of the panel kernels: few, so that small products still use every core. */
const SIZE = 16;

/** Where a product of panels goes, and how: modes are those of the kernels. */
interface Target {
  out: Tensor;
  alpha: number;
  mode: number;
  row0?: number;
  column0?: number;
}

/** out (T,N) = alpha * x (T,K) w (N,K)^T + bias; w may be packed bf16. */
export function matmulNT(gpu: Gpu, x: Tensor, w: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { T, N, K } = dims("T K", x, "N K", w, "T N", out);
  const { alpha = 1, accumulate = false, bias } = options;
  const mode = accumulate ? ADD : bias ? BIAS : SET;
  if (usesBlocks(gpu, x, w)) {
    using _scope = gpu.pool.scope();
    const ws = packColumns(gpu, w);
    packColumns(gpu, x).forEach((part, k) =>
      panelsNT(gpu, part, ws[k], { out, alpha, mode: k ? ADD : mode }, bias)
    );
  } else if (usesPanels(gpu, x, w)) panelsNT(gpu, x, w, { out, alpha, mode }, bias);
  else runTile(gpu, [T, N, K], [K, 1], [1, K], x, w, bias, out, alpha, mode);
}

/** out (T,K) = alpha * dy (T,N) w (N,K); w may be packed bf16. */
export function matmulNN(gpu: Gpu, dy: Tensor, w: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { T, N, K } = dims("T N", dy, "N K", w, "T K", out);
  const { alpha = 1, accumulate = false } = options;
  const mode = accumulate ? ADD : SET;
  if (usesBlocks(gpu, dy, w)) {
    using _scope = gpu.pool.scope();
    const dys = packColumns(gpu, dy);
    packColumns(gpu, w).forEach((columns, k) =>
      dys.forEach((part, n) => {
        const rows = rowsOf(columns, n * BLOCK, part.shape[1]);
        panelsNN(gpu, part, rows, { out, alpha, mode: n ? ADD : mode, column0: k * BLOCK });
      })
    );
  } else if (usesPanels(gpu, dy, w)) panelsNN(gpu, dy, w, { out, alpha, mode });
  else runTile(gpu, [T, K, N], [N, 1], [K, 1], dy, w, undefined, out, alpha, mode);
}

/** out (N,K) = alpha * dy (T,N)^T x (T,K). */
export function matmulTN(gpu: Gpu, dy: Tensor, x: Tensor, out: Tensor, options: MatmulOptions = {}): void {
  const { T, N, K } = dims("T N", dy, "T K", x, "N K", out);
  const { alpha = 1, accumulate = false } = options;
  const mode = accumulate ? ADD : SET;
  if (usesBlocks(gpu, dy, x)) {
    using _scope = gpu.pool.scope();
    const xs = packColumns(gpu, x);
    packColumns(gpu, dy).forEach((rows, n) =>
      xs.forEach((columns, k) =>
        panelsTN(gpu, rows, columns, { out, alpha, mode, row0: n * BLOCK, column0: k * BLOCK })
      )
    );
  } else if (usesPanels(gpu, dy, x)) panelsTN(gpu, dy, x, { out, alpha, mode });
  else runTile(gpu, [N, K, T], [1, N], [K, 1], dy, x, undefined, out, alpha, mode);
}

const SET = 0, ADD = 1, BIAS = 2;

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

function panelsNT(gpu: Gpu, x: Tensor, w: Tensor, { out, alpha, mode }: Target, bias?: Tensor): void {
  const { T, N, K } = dims("T K", x, "N K", w);
  const xRows = panelRows(gpu, K, 4), wRows = panelRows(gpu, K, widthOf(w));
  for (let row0 = 0; row0 < T; row0 += xRows) {
    const rows = Math.min(xRows, T - row0);
    for (let column0 = 0; column0 < N; column0 += wRows) {
      const columns = Math.min(wRows, N - column0);
      const sizes = { ...none, T: rows, N: columns, K, row0, column0, width: N, alpha, accumulate: mode };
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
  { out, alpha, mode, column0: outColumn0 = 0 }: Target,
): void {
  const { T, N, K } = dims("T N", dy, "N K", w);
  const outWidth = out.shape[1];
  const dyRows = panelRows(gpu, N, 4), fitting = panelRows(gpu, K, widthOf(w));
  const wRows = fitting - fitting % 4; // rows of w are columns of dy, which is read in fours
  for (let row0 = 0; row0 < T; row0 += dyRows) {
    const rows = Math.min(dyRows, T - row0);
    for (let column0 = 0; column0 < N; column0 += wRows) {
      const depth = Math.min(wRows, N - column0);
      const place = { row0, column0, width: N, outColumn0, outWidth };
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

function runTile(
  gpu: Gpu,
  [M, N, K]: number[],
  [am, ak]: number[],
  [bk, bn]: number[],
  a: Tensor,
  b: Tensor,
  bias: Tensor | undefined,
  out: Tensor,
  alpha: number,
  accumulate: number,
): void {
  const grid = [Math.ceil(N / 64), Math.ceil(M / 64)] as const;
  const BF16 = b.dtype === "bf16" ? 1 : 0;
  gpu.run(tile, { M, N, K, am, ak, bk, bn, alpha, accumulate }, [a, b, bias], [out], grid, { BF16 });
}
