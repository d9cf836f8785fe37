/**
 * Panels: windows of a tensor that kernels read through uniform bindings of 64 KiB, which software Vulkan loads many
 * times faster than storage. Refuses nothing: where panels do not serve, there are 0 rows of them.
 */
import { sizeOf } from "../core/shape.ts";
import { type Gpu, gridFor } from "./device.ts";
import { type Kernel, kernel, PANEL_BYTES, type Scalar } from "./kernel.ts";
import panelOperands from "./ops/operands_panel.wgsl" with { type: "text" };
import storageOperands from "./ops/operands_storage.wgsl" with { type: "text" };
import { rowsOf, rowStep, type Tensor, viewAs } from "./tensor.ts";

/** Rows of C values of `width` bytes that one panel shows, starting at multiples of 256 bytes; 0 where panels do not serve. */
export function panelRows(gpu: Gpu, C: number, width: number): number {
  if (!gpu.isCpu || C % 4 !== 0) return 0;
  const rows = Math.floor(PANEL_BYTES / (C * width));
  return rows - rows % rowStep(C * width);
}

/** Cuts 0..total into the fewest even parts [start, count] of at most `most`; starts are multiples of `step`. */
export function evenParts(total: number, most: number, step: number): [number, number][] {
  const units = Math.ceil(total / step), parts = Math.ceil(units / Math.floor(most / step));
  const size = Math.ceil(units / parts) * step;
  const cut: [number, number][] = [];
  for (let start = 0; start < total; start += size) cut.push([start, Math.min(size, total - start)]);
  return cut;
}

/**
 * The rows of (T, C) cut into panels [first, rows] of whole `unit`s of rows, except for the last; undefined where
 * panels do not serve.
 */
export function rowPanels(gpu: Gpu, T: number, C: number, unit = 1): [number, number][] | undefined {
  const aligned = rowStep(4 * C), step = unit % aligned === 0 ? unit : unit * aligned;
  const most = panelRows(gpu, C, 4);
  return most >= step ? evenParts(T, most, step) : undefined;
}

/** One body of WGSL over the operands `a`, `b` and `c`, compiled over panels and over storage. */
export interface Twins {
  readonly panel: Kernel;
  readonly storage: Kernel;
}

/** Names a kernel whose inputs are operands, declared by operands_panel.wgsl or operands_storage.wgsl. */
export function twins(
  name: string,
  body: string,
  entry: string,
  sizes: Record<string, Scalar>,
  inputs: number,
  outputs: number,
): Twins {
  return {
    panel: kernel(`${name}_panel`, panelOperands + body, entry, sizes, inputs, outputs, Math.min(inputs, 3)),
    storage: kernel(name, storageOperands + body, entry, sizes, inputs, outputs),
  };
}

/**
 * Runs an elementwise kernel, an invocation for four values, over tensors of the first one's size; others are handed
 * over whole. It gets `N`, the values of the dispatch, and if it wants, `first`, the number of the first of them.
 */
export function runPointwise(
  gpu: Gpu,
  { panel, storage }: Twins,
  sizes: Record<string, number>,
  inputs: readonly [Tensor, ...(Tensor | undefined)[]],
  outputs: readonly (Tensor | undefined)[],
  overrides: Record<string, number> = {},
): void {
  const N = sizeOf(inputs[0].shape);
  const most = gpu.isCpu ? Math.min(PANEL_BYTES, gpu.bindingLimit) : gpu.bindingLimit;
  const parts = evenParts(N, most / 4, 64);
  for (const [first, count] of parts) {
    const part = (x: Tensor | undefined) =>
      x && sizeOf(x.shape) === N ? rowsOf(viewAs(x, [N, 1]), first, count) : x;
    const grid = gridFor(Math.ceil(count / 4));
    gpu.run(
      gpu.isCpu ? panel : storage,
      { ...sizes, N: count, first },
      inputs.map(part),
      outputs.map(part),
      grid,
      overrides,
    );
  }
}
