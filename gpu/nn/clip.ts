/**
 * The CLIP vision tower: patches and a class token through pre-norm blocks with biases, every image a segment.
 * LLaVA and the built-in model use it; what lies after the layer whose features are taken is declared and not run.
 */
import { add } from "../ops/add.ts";
import type { DeviceRanges } from "../ops/attention.ts";
import { gatherRows, mergeRows } from "../ops/gather.ts";
import { type Tensor, viewAs } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Names, Param } from "./params.ts";
import {
  declareVisionBlock,
  embedPatches,
  runVisionBlock,
  type VisionBlock,
  type VisionBlockConfig,
} from "./vision_block.ts";

export interface ClipConfig extends VisionBlockConfig {
  layers: number;
  /** Layers that run: features are taken after this many. */
  depth: number;
  imageSize: number;
  patch: number;
}

export interface Clip {
  config: ClipConfig;
  classEmbedding: Param; // (C)
  patchEmbedding: Param; // (C, 3, p, p)
  positionEmbedding: Param; // (P + 1, C)
  preNorm: Norm;
  blocks: VisionBlock[];
}

/** Patches of one image, without the class token. */
export function clipPatches({ imageSize, patch }: ClipConfig): number {
  return Math.floor(imageSize / patch) ** 2;
}

export function declareClip(names: Names, config: ClipConfig): Clip {
  const { C, eps, patch, layers, depth } = config;
  const embeddings = names.child("embeddings");
  const clip: Clip = {
    config,
    classEmbedding: embeddings.param("class_embedding", [C]),
    patchEmbedding: embeddings.child("patch_embedding").param("weight", [C, 3, patch, patch]),
    positionEmbedding: embeddings.child("position_embedding").param("weight", [clipPatches(config) + 1, C]),
    preNorm: declareNorm(names.child("pre_layrnorm"), C, eps, { bias: true }), // spelt so in every checkpoint
    blocks: Array.from(
      { length: layers },
      (_, i) => declareVisionBlock(names.child("encoder").child("layers").child(i), config, i < depth),
    ),
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
  const embedded = embedPatches(forward, clip.patchEmbedding, undefined, patches); // (n*P, C)
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
      (forward, x) => runVisionBlock(forward, block, clip.config, x, ranges),
    );
  });
  return x;
}
