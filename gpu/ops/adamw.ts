/**
 * The optimiser: AdamW in place, one dispatch a tensor, and the global norm that clips without a read-back.
 * Refuses states of another size, a step before the first, and a norm without its limit.
 */
import { sizeOf } from "../../core/shape.ts";
import { type Gpu, gridFor } from "../device.ts";
import type { Scalar } from "../kernel.ts";
import { evenParts, runPointwise, twins } from "../panels.ts";
import { rowsOf, type Tensor, viewAs } from "../tensor.ts";
import source from "./adamw.wgsl" with { type: "text" };

const scalars = ["keep", "beta2", "new1", "new2", "rate", "root2", "eps", "maxNorm"];
const updateSizes: Record<string, Scalar> = {
  N: "u32",
  ...Object.fromEntries(scalars.map((name) => [name, "f32" as const])),
};
const update = twins("adamw", source, "update", updateSizes, 2, 3);
const squares = twins("adamw", source, "squares", { N: "u32", first: "u32", shares: "u32" }, 1, 1).storage;
const root = twins("adamw", source, "root", { shares: "u32" }, 1, 1).storage;

/** Values that one invocation squares and adds up at least, and invocations a tensor at most. */
const SHARE_VALUES = 256, MAX_SHARES = 16384;

/** A parameter, its gradient and its two moments, all f32 and of one size, each in a buffer of its own. */
export interface AdamwState {
  param: Tensor;
  grad: Tensor;
  /** The running means of the gradient and of its square, zero before the first step. */
  m: Tensor;
  v: Tensor;
}

export interface AdamwOptions {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** Counts from 1. */
  step: number;
  /** The norm of all gradients (1), from `gradNorm`, and what it may be: larger gradients are scaled down to it. */
  norm?: Tensor;
  maxNorm?: number;
}

/** Updates param, m and v in place like torch.optim.AdamW. @throws RangeError when sizes or options do not fit */
export function adamw(gpu: Gpu, { param, grad, m, v }: AdamwState, options: AdamwOptions): void {
  const { lr, beta1, beta2, eps, weightDecay, step, norm, maxNorm = 0 } = options;
  const N = sizeOf(param.shape);
  if ([grad, m, v].some(({ shape }) => sizeOf(shape) !== N)) {
    const sizes = [grad, m, v].map(({ shape }) => sizeOf(shape)).join(", ");
    throw new RangeError(`Cannot update ${N} values by a gradient and moments of ${sizes}`);
  }
  if (!(Number.isInteger(step) && step >= 1)) {
    throw new RangeError(`Cannot update at step ${step}: steps count from 1`);
  }
  if (!norm !== !(maxNorm > 0)) {
    throw new RangeError("Cannot clip gradients: need both a norm and a maxNorm above 0, or neither");
  }
  const sizes = {
    keep: 1 - lr * weightDecay,
    beta2,
    new1: 1 - beta1,
    new2: 1 - beta2,
    rate: lr / (1 - beta1 ** step),
    root2: Math.sqrt(1 - beta2 ** step),
    eps,
    maxNorm,
  };
  runPointwise(gpu, update, sizes, [grad, norm], [param, m, v], { CLIP: norm ? 1 : 0 });
}

/** The Euclidean norm of all gradients together, on the GPU (1); the order of summation is fixed. */
export function gradNorm(gpu: Gpu, grads: readonly Tensor[]): Tensor {
  const norm = gpu.empty([1]);
  using _scope = gpu.pool.scope();
  const parts = grads.flatMap((grad) => bindable(gpu, grad));
  const counts = parts.map(({ shape }) =>
    Math.min(MAX_SHARES, Math.max(1, Math.ceil(sizeOf(shape) / SHARE_VALUES)))
  );
  const total = counts.reduce((sum, count) => sum + count, 0);
  const shares = gpu.empty([total]);
  let first = 0;
  parts.forEach((grad, i) => {
    const N = sizeOf(grad.shape);
    gpu.run(squares, { N, first, shares: counts[i] }, [grad], [shares], gridFor(counts[i]));
    first += counts[i];
  });
  gpu.run(root, { shares: total }, [shares], [norm], [1]);
  return norm;
}

/** A tensor in the fewest parts that fit into a binding. */
function bindable(gpu: Gpu, x: Tensor): Tensor[] {
  const N = sizeOf(x.shape);
  return evenParts(N, gpu.bindingLimit / 4, 64).map(([first, count]) =>
    rowsOf(viewAs(x, [N, 1]), first, count)
  );
}
