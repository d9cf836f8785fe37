/**
 * Qwen-VL's vision tower: bias-free patches and a table of 16 x 16 places, pre-norm blocks, the resampler, a last
 * projection. Refuses pixels of another size than the configured one.
 */
import { InputError } from "../../core/errors.ts";
import { type Processed, toPatches } from "../../core/image/processors.ts";
import { fullRanges } from "../../core/ranges.ts";
import { activate } from "../ops/activation.ts";
import { add } from "../ops/add.ts";
import { attention, type DeviceRanges, uploadRanges } from "../ops/attention.ts";
import { linear, project } from "../ops/linear.ts";
import { type Tensor, viewAs } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { splitQkv } from "./fused_qkv.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";
import { declareResampler, repeated, resampledTable, type Resampler, runResampler } from "./resampler.ts";

export interface QwenVisionConfig {
  /** Channels, MLP width, heads, layers of the tower. */
  C: number;
  F: number;
  H: number;
  layers: number;
  imageSize: number;
  patch: number;
  /** Channels of the features, and queries along one side: the features of a picture are its square. */
  out: number;
  side: number;
}

interface Block {
  norm1: Norm;
  inProj: Linear; // (3*C, C), rows grouped by head
  outProj: Linear;
  norm2: Norm;
  fc: Linear;
  proj: Linear;
}

export interface QwenVision {
  config: QwenVisionConfig;
  patches: Param; // (C, 3, p, p)
  places: Param; // (256, C)
  preNorm: Norm;
  blocks: Block[];
  resampler: Resampler;
  postNorm: Norm;
  proj: Param; // (out, out), from input to output
}

/** Places are learnt for a grid of 16 x 16, whatever the picture's. */
const TABLE = 256;
const EPS = 1e-6;
const NORM = { bias: true };

export function declareQwenVision(names: Names, config: QwenVisionConfig): QwenVision {
  const { C, F, layers, patch, out, side } = config;
  return {
    config,
    patches: names.child("conv1").param("weight", [C, 3, patch, patch]),
    places: names.param("positional_embedding", [TABLE, C]),
    preNorm: declareNorm(names.child("ln_pre"), C, EPS, NORM),
    blocks: Array.from({ length: layers }, (_, i): Block => {
      const block = names.child("transformer").child("resblocks").child(i);
      return {
        norm1: declareNorm(block.child("ln_1"), C, EPS, NORM),
        inProj: block.child("attn").linear("in_proj", 3 * C, C, { bias: true }),
        outProj: block.child("attn").linear("out_proj", C, C, { bias: true }),
        norm2: declareNorm(block.child("ln_2"), C, EPS, NORM),
        fc: block.child("mlp").linear("c_fc", F, C, { bias: true }),
        proj: block.child("mlp").linear("c_proj", C, F, { bias: true }),
      };
    }),
    resampler: declareResampler(names.child("attn_pool"), { inner: C, C: out, side, eps: EPS }),
    postNorm: declareNorm(names.child("ln_post"), out, EPS, NORM),
    proj: names.param("proj", [out, out]),
  };
}

/** Pictures in a processed tensor (…, 3, H, W). */
export function pictureCount({ shape }: Processed): number {
  return shape.slice(0, -3).reduce((n, size) => n * size, 1);
}

/**
 * Processed pictures to features (n * side^2, out), in order. Sites: patches, layers.N.resid_post, resampled.
 * @throws InputError for pixels of another size
 */
export function runQwenVision(
  forward: Forward,
  vision: QwenVision,
  images: readonly Processed[],
  checkpointed: boolean,
): Tensor {
  const { tape } = forward;
  const { C, H, imageSize, patch } = vision.config;
  const grid = imageSize / patch, P = grid * grid, K = 3 * patch ** 2;
  const n = images.reduce((sum, image) => sum + pictureCount(image), 0);
  const pixels = new Float32Array(n * P * K);
  let at = 0;
  for (const { pixelValues, shape } of images) {
    const [height, width] = shape.slice(-2);
    if (height !== imageSize || width !== imageSize) {
      throw new InputError(
        `Cannot encode a picture of ${height} x ${width} pixels: the model takes ${imageSize} x ${imageSize}`,
      );
    }
    pixels.set(toPatches(pixelValues, shape, patch), at);
    at += pixelValues.length;
  }
  const kernel = viewAs(vision.patches.tensor, [C, K]);
  const embedded = linear(tape, tape.gpu.upload(pixels, [n * P, K]), kernel); // (n*P, C)
  const places = resampledTable(tape, vision.places.tensor, grid); // (P, C)
  let x = applyNorm(forward, vision.preNorm, add(tape, embedded, repeated(tape, places, n)));
  x = forward.tap("patches", x); // (n*P, C)
  const ranges = uploadRanges(tape.gpu, fullRanges(Array.from({ length: n + 1 }, (_, i) => i * P)));
  vision.blocks.forEach((block, i) => {
    x = forward.at(`layers.${i}`).checkpoint(
      x,
      checkpointed,
      (forward, x) => runBlock(forward, block, H, x, ranges),
    );
  });
  const pooled = forward.tap("resampled", runResampler(forward, vision.resampler, x, n)); // (n*Q, out)
  return project(tape, applyNorm(forward, vision.postNorm, pooled), vision.proj.tensor);
}

function runBlock(forward: Forward, block: Block, H: number, x: Tensor, ranges: DeviceRanges): Tensor {
  const { tape } = forward;
  const h = applyNorm(forward, block.norm1, x); // (T, C)
  const [q, k, v] = splitQkv(tape, applyLinear(forward, block.inProj, h), H);
  const mixed = attention(tape, q, k, v, ranges, { headDim: x.shape[1] / H }); // (T, C)
  const middle = add(tape, x, applyLinear(forward, block.outProj, mixed)); // (T, C)
  const inner = activate(
    tape,
    applyLinear(forward, block.fc, applyNorm(forward, block.norm2, middle)),
    "gelu",
  ); // (T, F)
  return forward.tap("resid_post", add(tape, middle, applyLinear(forward, block.proj, inner))); // (T, C)
}
