/**
 * RMSNorm and LayerNorm over the last dimension, with gradients for the input and for trained weights.
 * Refuses weights of another length than a row.
 */
import { dims } from "../../core/shape.ts";
import { gridFor } from "../device.ts";
import { kernel, type Scalar } from "../kernel.ts";
import { rowPanels, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, type Tensor } from "../tensor.ts";
import source from "./norm.wgsl" with { type: "text" };
import panelSource from "./norm_panel.wgsl" with { type: "text" };

const forward = kernel("norm", source, "forward", { T: "u32", C: "u32", eps: "f32" }, 3, 2);
const backward = kernel("norm", source, "backward", { T: "u32", C: "u32", eps: "f32" }, 4, 1);
const strip = kernel("norm", source, "strip", { T: "u32", C: "u32", rows: "u32" }, 4, 1);
const panelSizes: Record<string, Scalar> = { T: "u32", row0: "u32", C: "u32", eps: "f32" };
const stripSizes: Record<string, Scalar> = { T: "u32", row0: "u32", C: "u32", rows: "u32" };
const panelForward = twins("norm", panelSource, "forward", panelSizes, 3, 2).panel;
const panelBackward = twins("norm", panelSource, "backward", panelSizes, 4, 1).panel;
const panelStrip = twins("norm", panelSource, "strip", stripSizes, 4, 1).panel;
const addStrips = kernel("norm", source, "addStrips", { C: "u32", strips: "u32", part: "u32" }, 1, 1);

/** Columns an invocation each when parameters' gradients are added up. */
const COLUMNS = 64;
/** Rows that one invocation adds up for a weight's gradient; more when a grid dimension would overflow. */
const STRIP_ROWS = 32, MAX_STRIPS = 65535;

export interface NormOptions {
  /** Added to the mean square, or to the variance, before the root. */
  eps: number;
}

/** x (T, C) / rms(x) * w (C), row by row. Zhang & Sennrich 2019. @throws RangeError when the shapes disagree */
export function rmsnorm(tape: Tape, x: Tensor, w: Tensor, options: NormOptions): Tensor {
  return norm(tape, x, w, undefined, options);
}

/** (x (T, C) - mean) / std * w (C) + b (C), row by row. Ba et al. 2016. @throws RangeError when the shapes disagree */
export function layernorm(tape: Tape, x: Tensor, w: Tensor, b: Tensor, options: NormOptions): Tensor {
  return norm(tape, x, w, b, options);
}

function norm(tape: Tape, x: Tensor, w: Tensor, b: Tensor | undefined, { eps }: NormOptions): Tensor {
  const { gpu } = tape;
  const { T, C } = dims("T C", x, "C", w, "C", b ?? w);
  const [LANES, GROUP] = gpu.isCpu ? [1, 8] : [64, 64], CENTRED = b ? 1 : 0;
  const grid = gridFor(T * LANES, GROUP), panels = rowPanels(gpu, T, C);
  const y = tape.empty([T, C]), stats = tape.empty([T, 2]);
  for (const [row0, rows] of panels ?? []) {
    const sizes = { T: rows, row0, C: C / 4, eps }, part = (x: Tensor) => rowsOf(x, row0, rows);
    gpu.run(panelForward, sizes, [part(x), w, b], [part(y), stats], gridFor(rows, 8), { CENTRED });
  }
  if (!panels) gpu.run(forward, { T, C, eps }, [x, w, b], [y, stats], grid, { LANES, GROUP, CENTRED });
  gpu.trace?.op("norm", [x, w, b], y, { eps });
  return tape.record(y, b ? [x, w, b] : [x, w], (dy) => {
    addParameterGradients(tape, { x, w, b, dy, stats });
    if (!x.requiresGrad) return [];
    const dx = tape.empty([T, C]);
    for (const [row0, rows] of panels ?? []) {
      const sizes = { T: rows, row0, C: C / 4, eps }, part = (x: Tensor) => rowsOf(x, row0, rows);
      gpu.run(panelBackward, sizes, [part(x), w, part(dy), stats], [part(dx)], gridFor(rows, 8), { CENTRED });
    }
    if (!panels) {
      gpu.run(backward, { T, C, eps }, [x, w, dy, stats], [dx], grid, { LANES, GROUP, CENTRED });
    }
    return [dx];
  });
}

/** Adds dw and db into the gradients of those that are trained; fixed order, no atomics. */
function addParameterGradients(
  tape: Tape,
  { x, w, b, dy, stats }: { x: Tensor; w: Tensor; b?: Tensor; dy: Tensor; stats: Tensor },
): void {
  if (!w.requiresGrad && !b?.requiresGrad) return;
  const { gpu } = tape, [T, C] = x.shape;
  const height = Math.max(STRIP_ROWS, Math.ceil(T / MAX_STRIPS)), strips = Math.ceil(T / height);
  using _scope = gpu.pool.scope();
  const shares = tape.empty([strips, 2, C]);
  const columns = Math.ceil(C / COLUMNS), panels = rowPanels(gpu, T, C, height);
  for (const [row0, rows] of panels ?? []) {
    const sizes = { T: rows, row0, C: C / 4, rows: height }, part = (x: Tensor) => rowsOf(x, row0, rows);
    const grid = gridFor(Math.ceil(rows / height) * C / 4, 8);
    gpu.run(panelStrip, sizes, [part(x), w, part(dy), stats], [shares], grid);
  }
  if (!panels) {
    gpu.run(strip, { T, C, rows: height }, [x, w, dy, stats], [shares], [columns, strips]);
  }
  [w, b].forEach((parameter, part) => {
    if (!parameter?.requiresGrad) return;
    gpu.run(addStrips, { C, strips, part }, [shares], [parameter.grad], [columns]);
  });
}
