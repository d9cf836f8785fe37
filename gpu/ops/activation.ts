/**
 * Elementwise activations and SwiGLU. Refuses an unknown kind and a gate whose shape is not that of its partner.
 */
import type { ActivationKind } from "../../core/reference/activation.ts";
import { sizeOf } from "../../core/shape.ts";
import { gridFor } from "../device.ts";
import { kernel } from "../kernel.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./activation.wgsl" with { type: "text" };

const forward = kernel("activation", source, "forward", { N: "u32" }, 1, 1);
const backward = kernel("activation", source, "backward", { N: "u32" }, 2, 1);
const swigluForward = kernel("activation", source, "swiglu", { N: "u32" }, 2, 1);
const swigluBackward = kernel("activation", source, "swigluBackward", { N: "u32" }, 3, 2);

/** Numbered as in the kernel. */
const KINDS: readonly ActivationKind[] = ["gelu", "gelu_tanh", "quick_gelu", "silu"];

/** An activation, elementwise, any shape; "gelu" is the exact one. @throws RangeError for an unknown kind */
export function activate(tape: Tape, x: Tensor, kind: ActivationKind): Tensor {
  const KIND = KINDS.indexOf(kind);
  if (KIND < 0) throw new RangeError(`Cannot activate by "${kind}": expected one of "${KINDS.join('", "')}"`);
  const N = sizeOf(x.shape), grid = gridFor(Math.ceil(N / 4));
  const y = tape.empty(x.shape);
  tape.gpu.run(forward, { N }, [x], [y], grid, { KIND });
  return tape.record(y, [x], (dy) => {
    const dx = tape.empty(x.shape);
    tape.gpu.run(backward, { N }, [x, dy], [dx], grid, { KIND });
    return [dx];
  });
}

/** silu(gate) * up, elementwise. Shazeer 2020. @throws RangeError when the shapes differ */
export function swiglu(tape: Tape, gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join()) {
    throw new RangeError(`Cannot gate the shape (${up.shape.join(", ")}) by (${gate.shape.join(", ")})`);
  }
  const N = sizeOf(gate.shape), grid = gridFor(Math.ceil(N / 4));
  const y = tape.empty(gate.shape);
  tape.gpu.run(swigluForward, { N }, [gate, up], [y], grid, { KIND: 3 });
  return tape.record(y, [gate, up], (dy) => {
    const dGate = gate.requiresGrad ? tape.empty(gate.shape) : undefined;
    const dUp = up.requiresGrad ? tape.empty(up.shape) : undefined;
    const wanted = { KIND: 3, WANT_GATE: dGate ? 1 : 0, WANT_UP: dUp ? 1 : 0 };
    tape.gpu.run(swigluBackward, { N }, [gate, up, dy], [dGate, dUp], grid, wanted);
    return [dGate, dUp];
  });
}
