/**
 * Rotary positions in Hugging Face's order: element i of a head turns with element i + D/2.
 * Refuses rows that are no whole number of heads; cosines and sines never get gradients.
 */
import { dims } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import type { Scalar } from "../kernel.ts";
import { rowPanels, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, rowStep, type Tensor } from "../tensor.ts";
import source from "./rotary.wgsl" with { type: "text" };

const sizes: Record<string, Scalar> = { T: "u32", H: "u32", half: "u32", direction: "f32" };
const turn4 = twins("rotary", source, "turn4", sizes, 3, 1);
const turn1 = twins("rotary", source, "turn1", sizes, 3, 1).storage;

/**
 * x (T, H*D) turned by the angles of cos and sin (T, D/2), the same in every head. Su et al. 2021, eq. 34.
 * @throws RangeError when the shapes disagree
 */
export function rotary(tape: Tape, x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const { T, C, half } = dims("T C", x, "T half", cos, "T half", sin);
  if (C % (2 * half) !== 0) {
    throw new RangeError(
      `Cannot cut rows of ${C} into heads of ${2 * half}: the cosines are (${T}, ${half})`,
    );
  }
  const y = tape.empty(x.shape);
  turn(tape.gpu, [x, cos, sin], y, 1);
  tape.gpu.trace?.op("rotary", [x, cos, sin], y, {});
  return tape.record(y, [x], (dy) => {
    const dx = tape.empty(x.shape);
    turn(tape.gpu, [dy, cos, sin], dx, -1);
    return [dx];
  });
}

/** Writes the first operand, turned forwards (direction 1) or back (-1), into y. */
function turn(gpu: Gpu, operands: Tensor[], y: Tensor, direction: number): void {
  const [T, C] = y.shape, half = operands[1].shape[1], H = C / (2 * half);
  if (half % 4 !== 0) {
    return gpu.run(turn1, { T, H, half, direction }, operands, [y], gridFor(T * half));
  }
  const panels = rowPanels(gpu, T, C, rowStep(4 * half));
  for (const [start, count] of panels ?? [[0, T]]) {
    gpu.run(
      panels ? turn4.panel : turn4.storage,
      { T: count, H, half: half / 4, direction },
      operands.map((x) => rowsOf(x, start, count)),
      [rowsOf(y, start, count)],
      gridFor(count * H * half / 4),
    );
  }
}
