/**
 * The SigLIP vision tower as Idefics3 and SmolVLM use it: patches with a bias, positions by where a patch lies in its
 * picture, pre-norm blocks and a last norm, no class token. Refuses pictures smaller than one patch.
 */
import { InputError } from "../../core/errors.ts";
import { add } from "../ops/add.ts";
import type { DeviceRanges } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather.ts";
import type { Tensor } from "../tensor.ts";
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

export interface SiglipConfig extends VisionBlockConfig {
  layers: number;
  /** Of the pictures that the position table was made for; others are taken too. */
  imageSize: number;
  patch: number;
}

export interface Siglip {
  config: SiglipConfig;
  patchWeight: Param; // (C, 3, p, p)
  patchBias: Param; // (C)
  positions: Param; // (side * side, C)
  blocks: VisionBlock[];
  postNorm: Norm;
}

export function declareSiglip(names: Names, config: SiglipConfig): Siglip {
  const { C, eps, patch, layers } = config;
  const embeddings = names.child("embeddings"), kernel = embeddings.child("patch_embedding");
  return {
    config,
    patchWeight: kernel.param("weight", [C, 3, patch, patch]),
    patchBias: kernel.param("bias", [C]),
    positions: embeddings.child("position_embedding").param("weight", [tableSide(config) ** 2, C]),
    blocks: Array.from(
      { length: layers },
      (_, i) => declareVisionBlock(names.child("encoder").child("layers").child(i), config, true),
    ),
    postNorm: declareNorm(names.child("post_layernorm"), C, eps, { bias: true }),
  };
}

/** Rows and columns of the position table. */
function tableSide({ imageSize, patch }: SiglipConfig): number {
  return Math.floor(imageSize / patch);
}

/**
 * Patches (n * side * side, 3*p*p) of n square pictures to features (n * side * side, C); `ranges` has a segment a
 * picture. Sites: layers.N.resid_post.
 */
export function runSiglip(
  forward: Forward,
  siglip: Siglip,
  patches: Tensor,
  side: number,
  ranges: DeviceRanges,
  checkpointed: boolean,
): Tensor {
  const { tape } = forward, { config } = siglip, table = tableSide(config);
  const line = positionBuckets(table, side), P = side * side;
  const places = Uint32Array.from(
    { length: patches.shape[0] },
    (_, i) => line[Math.floor(i % P / side)] * table + line[i % side],
  );
  const embedded = embedPatches(forward, siglip.patchWeight, siglip.patchBias, patches); // (n*P, C)
  let x = add(tape, embedded, gatherRows(tape, siglip.positions.tensor, places)); // (n*P, C)
  siglip.blocks.forEach((block, i) => {
    x = forward.at(`layers.${i}`).checkpoint(
      x,
      checkpointed,
      (forward, x) => runVisionBlock(forward, block, config, x, ranges),
    );
  });
  return applyNorm(forward, siglip.postNorm, x);
}

/** Torch fills an arange on a CPU with AVX2 in runs of 16, eight values from one rounded start. */
const RUN = 16, LANES = 8;

/**
 * Which of the `table` rows of the position table each of `side` patches in a line takes: the bucket of its fraction of
 * the picture (Dehghani et al. 2023, NaViT), in transformers' f32 steps on a CPU. In tables of 19, 25 and some other
 * sides they put a patch one bucket too low; that is kept, so that features agree. @throws InputError for no patch
 */
export function positionBuckets(table: number, side: number): number[] {
  if (side < 1) throw new InputError("Cannot encode a picture that is smaller than one patch");
  const { fround } = Math, step = 1 / table, count = Math.ceil((1 - step) / step);
  const vectorised = count - count % RUN;
  const boundaries = Array.from({ length: count }, (_, i) => {
    const lane = i < vectorised ? i % LANES : 0;
    return fround(fround(step + step * (i - lane)) + lane * step);
  });
  const part = fround(1 / side), last = fround(1 - 1e-6);
  return Array.from({ length: side }, (_, i) => {
    const place = Math.min(fround(i * part), last);
    return boundaries.filter((boundary) => boundary <= place).length;
  });
}
