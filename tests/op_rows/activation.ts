/**
 * Rows of gpu/ops/activation.ts: lengths around a vec4, a workgroup of 64 and a panel of 16,384 values, and inputs far
 * out in the tails, where a careless exponential overflows.
 */
import assert from "node:assert/strict";
import { activateReference, swigluReference } from "../../core/reference/activation.ts";
import { activate, swiglu } from "../../gpu/ops/activation.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, type Row } from "./row.ts";

const kinds = ["gelu", "gelu_tanh", "quick_gelu", "silu"] as const;
const shapes = [[1], [3], [5, 51], [4, 64], [257], [130, 131]];

export const rows: Row[] = [
  ...kinds.flatMap((kind) => [
    ...shapes.map((shape): Row => ({
      op: "activate",
      name: `${kind} (${shape})`,
      inputs: [activation(shape, { value: (random) => 2 * random.normal() })],
      gpu: (tape, [x]) => activate(tape, x, kind),
      reference: ([x]) => activateReference(x, kind),
      tolerance: 2e-6,
      tuned: true,
    })),
    tails(kind),
  ]),
  ...shapes.map((shape): Row => ({
    op: "swiglu",
    name: `(${shape})`,
    inputs: [activation(shape), activation(shape)],
    gpu: (tape, [gate, up]) => swiglu(tape, gate, up),
    reference: ([gate, up]) => swigluReference(gate, up),
    tolerance: 2e-6,
    tuned: true,
  })),
  {
    op: ["activate", "swiglu"],
    name: "refuse an unknown kind and two shapes",
    check: (gpu) => {
      const tape = new Tape(gpu), x = gpu.empty([2, 3]);
      assert.throws(() => activate(tape, x, "relu" as "silu"), /"relu": expected one of "gelu"/);
      assert.throws(() => swiglu(tape, x, gpu.empty([6])), /\(6\) by \(2, 3\)/);
    },
  },
];

/** Element by element, from -200 to 200: within 1e-6 of the exact value, or of its magnitude. */
function tails(kind: typeof kinds[number]): Row {
  return {
    op: "activate",
    name: `${kind} in the tails`,
    check: async (gpu) => {
      const x = Float32Array.from({ length: 801 }, (_, i) => (i - 400) ** 3 / 400 ** 3 * 200);
      const tape = new Tape(gpu), input = gpu.upload(x);
      input.requiresGrad = true;
      const y = activate(tape, input, kind);
      tape.backward(y, gpu.upload(new Float32Array(x.length).fill(1)));
      const [ours, slopes] = await gpu.read(y, tape.gradOf(input)!);
      const at = (shift: number) => activateReference(Float64Array.from(x, (v) => v + shift), kind);
      const exact = at(0), above = at(1e-5), below = at(-1e-5);
      x.forEach((v, i) => {
        const scale = 1 + Math.abs(exact[i]);
        assert(
          Math.abs(ours[i] - exact[i]) <= 1e-6 * scale,
          `${kind}(${v}) is ${ours[i]}, expected ${exact[i]}`,
        );
        const slope = (above[i] - below[i]) / 2e-5;
        assert(Math.abs(slopes[i] - slope) <= 3e-6, `${kind}'(${v}) is ${slopes[i]}, expected ${slope}`);
      });
    },
  };
}
