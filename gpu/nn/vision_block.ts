/**
 * What CLIP's and SigLIP's towers share: patches through a convolution whose stride is its kernel, and the pre-norm block
 * with biases, every image a segment of its own. Refuses nothing itself: the ops check the shapes.
 */
import { type ActivationKind } from "../../core/reference/activation.ts";
import { activate } from "../ops/activation.ts";
import { add } from "../ops/add.ts";
import { attention, type DeviceRanges } from "../ops/attention.ts";
import { linear } from "../ops/linear.ts";
import { type Tensor, viewAs } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";

export interface VisionBlock {
  norm1: Norm;
  q: Linear;
  k: Linear;
  v: Linear;
  out: Linear;
  norm2: Norm;
  fc1: Linear;
  fc2: Linear;
}

/** Widths of a block: channels, MLP, heads; what its norms and its MLP compute with. */
export interface VisionBlockConfig {
  C: number;
  F: number;
  H: number;
  eps: number;
  activation: ActivationKind;
}

/** Declares one block under `names`; an unused one is counted and not loaded. */
export function declareVisionBlock(
  names: Names,
  { C, F, eps }: VisionBlockConfig,
  used: boolean,
): VisionBlock {
  const attn = names.child("self_attn"), mlp = names.child("mlp"), options = { bias: true, used };
  return {
    norm1: declareNorm(names.child("layer_norm1"), C, eps, options),
    q: attn.linear("q_proj", C, C, options),
    k: attn.linear("k_proj", C, C, options),
    v: attn.linear("v_proj", C, C, options),
    out: attn.linear("out_proj", C, C, options),
    norm2: declareNorm(names.child("layer_norm2"), C, eps, options),
    fc1: mlp.linear("fc1", F, C, options),
    fc2: mlp.linear("fc2", C, F, options),
  };
}

/** x (T, C) through one block: (T, C). Sites: resid_post. */
export function runVisionBlock(
  forward: Forward,
  block: VisionBlock,
  config: VisionBlockConfig,
  x: Tensor,
  ranges: DeviceRanges,
): Tensor {
  const { tape } = forward;
  const h = applyNorm(forward, block.norm1, x); // (T, C)
  const [q, k, v] = [block.q, block.k, block.v].map((layer) => applyLinear(forward, layer, h));
  const mixed = attention(tape, q, k, v, ranges, { headDim: config.C / config.H }); // (T, C)
  const middle = add(tape, x, applyLinear(forward, block.out, mixed)); // (T, C)
  const inner = activate(
    tape,
    applyLinear(forward, block.fc1, applyNorm(forward, block.norm2, middle)),
    config.activation,
  );
  return forward.tap("resid_post", add(tape, middle, applyLinear(forward, block.fc2, inner))); // (T, C)
}

/** Flattened patches (P, 3*p*p) times a kernel (C, 3, p, p), plus a bias (C) if there is one: (P, C). */
export function embedPatches(
  { tape }: Forward,
  weight: Param,
  bias: Param | undefined,
  patches: Tensor,
): Tensor {
  const { tensor } = weight, shape = [tensor.shape[0], patches.shape[1]];
  const kernel = tape.reshape(tensor, shape);
  kernel.grad = tensor.grad && viewAs(tensor.grad, shape);
  return linear(tape, patches, kernel, bias?.tensor);
}
