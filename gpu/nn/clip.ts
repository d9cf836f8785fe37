/**
 * The CLIP vision tower: patches and a class token through pre-norm blocks with biases, every image a segment.
 * LLaVA and the built-in model use it; what lies after the layer whose features are taken is declared and not run.
 */
import { type ActivationKind } from "../../core/reference/activation.ts";
import { activate } from "../ops/activation.ts";
import { add } from "../ops/add.ts";
import { attention, type DeviceRanges } from "../ops/attention.ts";
import { gatherRows, mergeRows } from "../ops/gather.ts";
import { linear } from "../ops/linear.ts";
import { type Tensor, viewAs } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";

export interface ClipConfig {
  C: number;
  F: number;
  H: number;
  layers: number;
  /** Layers that run: features are taken after this many. */
  depth: number;
  imageSize: number;
  patch: number;
  eps: number;
  activation: ActivationKind;
}

interface Block {
  norm1: Norm;
  q: Linear;
  k: Linear;
  v: Linear;
  out: Linear;
  norm2: Norm;
  fc1: Linear;
  fc2: Linear;
}

export interface Clip {
  config: ClipConfig;
  classEmbedding: Param; // (C)
  patchEmbedding: Param; // (C, 3, p, p)
  positionEmbedding: Param; // (P + 1, C)
  preNorm: Norm;
  blocks: Block[];
}

/** Patches of one image, without the class token. */
export function clipPatches({ imageSize, patch }: ClipConfig): number {
  return Math.floor(imageSize / patch) ** 2;
}

export function declareClip(names: Names, config: ClipConfig): Clip {
  const { C, F, eps, patch, layers, depth } = config;
  const embeddings = names.child("embeddings");
  const clip: Clip = {
    config,
    classEmbedding: embeddings.param("class_embedding", [C]),
    patchEmbedding: embeddings.child("patch_embedding").param("weight", [C, 3, patch, patch]),
    positionEmbedding: embeddings.child("position_embedding").param("weight", [clipPatches(config) + 1, C]),
    preNorm: declareNorm(names.child("pre_layrnorm"), C, eps, { bias: true }), // spelt so in every checkpoint
    blocks: Array.from({ length: layers }, (_, i): Block => {
      const block = names.child("encoder").child("layers").child(i),
        attn = block.child("self_attn"),
        mlp = block.child("mlp");
      const options = { bias: true, used: i < depth };
      return {
        norm1: declareNorm(block.child("layer_norm1"), C, eps, options),
        q: attn.linear("q_proj", C, C, options),
        k: attn.linear("k_proj", C, C, options),
        v: attn.linear("v_proj", C, C, options),
        out: attn.linear("out_proj", C, C, options),
        norm2: declareNorm(block.child("layer_norm2"), C, eps, options),
        fc1: mlp.linear("fc1", F, C, options),
        fc2: mlp.linear("fc2", C, F, options),
      };
    }),
  };
  declareNorm(names.child("post_layernorm"), C, eps, { bias: true, used: false });
  return clip;
}

/**
 * Patches (n*P, 3*p*p) of n images to features (n * (P+1), C), the class token first in every image.
 * Sites: layers.N.resid_post.
 */
export function runClip(
  forward: Forward,
  clip: Clip,
  patches: Tensor,
  ranges: DeviceRanges,
  checkpointed: boolean,
): Tensor {
  const { tape } = forward;
  const { C, depth } = clip.config, P = clipPatches(clip.config), n = patches.shape[0] / P;
  const kernel = tape.reshape(clip.patchEmbedding.tensor, [C, patches.shape[1]]);
  kernel.grad = clip.patchEmbedding.tensor.grad && viewAs(clip.patchEmbedding.tensor.grad, kernel.shape);
  const embedded = linear(tape, patches, kernel); // (n*P, C)
  const rows = n * (P + 1);
  const table = tape.reshape(clip.classEmbedding.tensor, [1, C]);
  table.grad = clip.classEmbedding.tensor.grad && viewAs(clip.classEmbedding.tensor.grad, [1, C]);
  const classes = gatherRows(tape, table, new Uint32Array(rows)); // (n*(P+1), C)
  const source = Int32Array.from(
    { length: rows },
    (_, t) => t % (P + 1) === 0 ? -1 : Math.floor(t / (P + 1)) * P + t % (P + 1) - 1,
  );
  const tokens = mergeRows(tape, classes, embedded, source); // (n*(P+1), C)
  const places = gatherRows(
    tape,
    clip.positionEmbedding.tensor,
    Uint32Array.from({ length: rows }, (_, t) => t % (P + 1)),
  );
  let x = applyNorm(forward, clip.preNorm, add(tape, tokens, places)); // (n*(P+1), C)
  clip.blocks.slice(0, depth).forEach((block, i) => {
    x = forward.at(`layers.${i}`).checkpoint(
      x,
      checkpointed,
      (forward, x) => runBlock(forward, block, clip.config, x, ranges),
    );
  });
  return x;
}

function runBlock(
  forward: Forward,
  block: Block,
  config: ClipConfig,
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
