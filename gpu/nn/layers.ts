/**
 * The few layers that every family is made of, as functions over declared parameters: linear layers and norms.
 */
import { linear } from "../ops/linear.ts";
import { layernorm, rmsnorm } from "../ops/norm.ts";
import type { Tensor } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import type { Linear, Names, Param } from "./params.ts";

/** x (T, K) through a linear layer and its adapter: (T, N). */
export function applyLinear(forward: Forward, layer: Linear, x: Tensor): Tensor {
  const { adapter } = layer;
  return linear(
    forward.tape,
    x,
    layer.weight.tensor,
    layer.bias?.tensor,
    adapter && {
      a: adapter.a.tensor,
      b: adapter.b.tensor,
      scaling: adapter.scaling,
      dropout: forward.dropoutSeed ? adapter.dropout : 0,
      seed: forward.seedFor(layer.name),
    },
  );
}

export interface Norm {
  weight: Param;
  bias?: Param;
  eps: number;
}

/** A norm over C channels; with a bias it is a LayerNorm, without one an RMSNorm. */
export function declareNorm(
  names: Names,
  C: number,
  eps: number,
  options: { bias?: boolean; used?: boolean } = {},
): Norm {
  return {
    weight: names.param("weight", [C], options.used),
    bias: options.bias ? names.param("bias", [C], options.used) : undefined,
    eps,
  };
}

/** x (T, C) normalised over its channels. */
export function applyNorm({ tape }: Forward, { weight, bias, eps }: Norm, x: Tensor): Tensor {
  return bias
    ? layernorm(tape, x, weight.tensor, bias.tensor, { eps })
    : rmsnorm(tape, x, weight.tensor, { eps });
}
