/**
 * Elementwise sums: `add(x, y)` and `scale(x, s)`. Refuses operands of different shapes: nothing is broadcast.
 */
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import { sizeOf } from "../../core/shape.ts";
import source from "./add.wgsl" with { type: "text" };

const addKernel = kernel("add", source, "add", { N: "u32" }, 2, 1);
const scaleKernel = kernel("add", source, "scale", { N: "u32", factor: "f32" }, 1, 1);

/** x + y, elementwise; both of one shape. @throws RangeError when the shapes differ */
export function add(tape: Tape, x: Tensor, y: Tensor): Tensor {
  if (x.shape.join() !== y.shape.join()) {
    throw new RangeError(`Cannot add the shapes (${x.shape.join(", ")}) and (${y.shape.join(", ")})`);
  }
  const N = sizeOf(x.shape);
  const out = tape.empty(x.shape);
  tape.gpu.run(addKernel, { N }, [x, y], [out], gridFor(Math.ceil(N / 4)));
  return tape.record(out, [x, y], (dy) => [dy, dy]);
}

/** x times a constant. */
export function scale(tape: Tape, x: Tensor, factor: number): Tensor {
  const N = sizeOf(x.shape);
  const y = tape.empty(x.shape);
  tape.gpu.run(scaleKernel, { N, factor }, [x], [y], gridFor(Math.ceil(N / 4)));
  return tape.record(y, [x], (dy) => [scale(tape, dy, factor)]);
}
