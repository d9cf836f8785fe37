/**
 * Rotary positions in Hugging Face's order: element i of a head turns with element i + D/2.
 * Refuses rows that are no whole number of heads; cosines and sines never get gradients.
 */
import { dims } from "../../core/shape.ts";
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./rotary.wgsl" with { type: "text" };

const rotate = kernel(
  "rotary",
  source,
  "rotate",
  { T: "u32", H: "u32", half: "u32", direction: "f32" },
  3,
  1,
);

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
  const H = C / (2 * half), grid = gridFor(T * half);
  const y = tape.empty([T, C]);
  tape.gpu.run(rotate, { T, H, half, direction: 1 }, [x, cos, sin], [y], grid);
  return tape.record(y, [x], (dy) => {
    const dx = tape.empty([T, C]);
    tape.gpu.run(rotate, { T, H, half, direction: -1 }, [dy, cos, sin], [dx], grid);
    return [dx];
  });
}
