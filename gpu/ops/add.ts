/**
 * Elementwise sums: `add(x, y)` and `scale(x, s)`. Refuses operands of different shapes: nothing is broadcast.
 */
import { runPointwise, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./add.wgsl" with { type: "text" };

const addKernels = twins("add", source, "add", { N: "u32" }, 2, 1);
const scaleKernels = twins("add", source, "scale", { N: "u32", factor: "f32" }, 1, 1);

/** x + y, elementwise; both of one shape. @throws RangeError when the shapes differ */
export function add(tape: Tape, x: Tensor, y: Tensor): Tensor {
  if (x.shape.join() !== y.shape.join()) {
    throw new RangeError(`Cannot add the shapes (${x.shape.join(", ")}) and (${y.shape.join(", ")})`);
  }
  const out = tape.empty(x.shape);
  runPointwise(tape.gpu, addKernels, {}, [x, y], [out]);
  tape.gpu.trace?.op("add", [x, y], out, {});
  return tape.record(out, [x, y], (dy) => [dy, dy]);
}

/** x times a constant. */
export function scale(tape: Tape, x: Tensor, factor: number): Tensor {
  const y = tape.empty(x.shape);
  runPointwise(tape.gpu, scaleKernels, { factor }, [x], [y]);
  tape.gpu.trace?.op("scale", [x], y, { factor });
  return tape.record(y, [x], (dy) => [scale(tape, dy, factor)]);
}
