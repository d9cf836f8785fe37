/**
 * Elementwise activations and SwiGLU. Refuses an unknown kind and a gate whose shape is not that of its partner.
 */
import type { ActivationKind } from "../../core/reference/activation.ts";
import { runPointwise, twins } from "../panels.ts";
import type { Tape } from "../tape.ts";
import type { Tensor } from "../tensor.ts";
import source from "./activation.wgsl" with { type: "text" };

const forward = twins("activation", source, "forward", { N: "u32" }, 1, 1);
const backward = twins("activation", source, "backward", { N: "u32" }, 2, 1);
const swigluForward = twins("activation", source, "swiglu", { N: "u32" }, 2, 1);
const swigluBackward = twins("activation", source, "swigluBackward", { N: "u32" }, 3, 2);

/** Numbered as in the kernel. */
const KINDS: readonly ActivationKind[] = ["gelu", "gelu_tanh", "quick_gelu", "silu"];

/** An activation, elementwise, any shape; "gelu" is the exact one. @throws RangeError for an unknown kind */
export function activate(tape: Tape, x: Tensor, kind: ActivationKind): Tensor {
  const KIND = KINDS.indexOf(kind);
  if (KIND < 0) throw new RangeError(`Cannot activate by "${kind}": expected one of "${KINDS.join('", "')}"`);
  const y = tape.empty(x.shape);
  runPointwise(tape.gpu, forward, {}, [x], [y], { KIND });
  tape.gpu.trace?.op("activate", [x], y, { kind });
  return tape.record(y, [x], (dy) => {
    const dx = tape.empty(x.shape);
    runPointwise(tape.gpu, backward, {}, [x, dy], [dx], { KIND });
    return [dx];
  });
}

/** silu(gate) * up, elementwise. Shazeer 2020. @throws RangeError when the shapes differ */
export function swiglu(tape: Tape, gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join()) {
    throw new RangeError(`Cannot gate the shape (${up.shape.join(", ")}) by (${gate.shape.join(", ")})`);
  }
  const y = tape.empty(gate.shape);
  runPointwise(tape.gpu, swigluForward, {}, [gate, up], [y], { KIND: 3 });
  tape.gpu.trace?.op("swiglu", [gate, up], y, {});
  return tape.record(y, [gate, up], (dy) => {
    const dGate = gate.requiresGrad ? tape.empty(gate.shape) : undefined;
    const dUp = up.requiresGrad ? tape.empty(up.shape) : undefined;
    const wanted = { KIND: 3, WANT_GATE: dGate ? 1 : 0, WANT_UP: dUp ? 1 : 0 };
    runPointwise(tape.gpu, swigluBackward, {}, [gate, up, dy], [dGate, dUp], wanted);
    return [dGate, dUp];
  });
}
