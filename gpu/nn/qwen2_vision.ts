/**
 * The vision transformer of Qwen2-VL and Qwen2.5-VL: patches of pictures of any size, turned by row and column, with
 * full or windowed attention, then merged 2 x 2. Refuses pixels that do not fill their grid.
 */
import { InputError } from "../../core/errors.ts";
import {
  axialTables,
  frameStarts,
  type Grid,
  patchPositions,
  windowOrder,
} from "../../core/grid_positions.ts";
import type { Processed } from "../../core/image/processors.ts";
import { ropeFrequencies } from "../../core/positions.ts";
import { fullRanges } from "../../core/ranges.ts";
import type { ActivationKind } from "../../core/reference/activation.ts";
import { activate, swiglu } from "../ops/activation.ts";
import { add } from "../ops/add.ts";
import { attention, type DeviceRanges, uploadRanges } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather.ts";
import { rotary } from "../ops/rotary.ts";
import type { Tensor } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { splitQkv } from "./fused_qkv.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";
import { embedPatches } from "./vision_block.ts";

export interface Qwen2VisionConfig {
  /** Channels, MLP width, heads, blocks, channels of the features. */
  C: number;
  F: number;
  H: number;
  layers: number;
  out: number;
  /** Pixels a patch side, frames a patch, patches a side of what becomes one feature. */
  patch: number;
  frames: number;
  merge: number;
  /** Base of the rotary frequencies. */
  theta: number;
  /** LayerNorm where true, RMSNorm where false. */
  centred: boolean;
  /** "swiglu", or the activation between two layers. */
  mlp: ActivationKind | "swiglu";
  /** Features a window's side, and the blocks that attend to the whole picture all the same. */
  windows?: { side: number; except: readonly number[] };
}

type Mlp = { gate: Linear; up: Linear; down: Linear } | {
  fc1: Linear;
  fc2: Linear;
  activation: ActivationKind;
};

interface Block {
  norm1: Norm;
  norm2: Norm;
  qkv: Linear;
  proj: Linear;
  mlp: Mlp;
}

export interface Qwen2Vision {
  config: Qwen2VisionConfig;
  patchEmbedding: Param; // (C, 3, frames, p, p)
  blocks: Block[];
  merger: { norm: Norm; linear1: Linear; linear2: Linear };
}

/** What every block of a forward pass shares. */
interface Inputs {
  /** (P, D/2) each. */
  cos: Tensor;
  sin: Tensor;
  ranges: DeviceRanges;
}

const EPS = 1e-6;

/** Feature rows of one picture. @throws InputError for pixels without a grid, or whose number is not the grid's */
export function qwen2Features({ merge, patch, frames }: Qwen2VisionConfig, image: Processed): number {
  const [rows, columns] = image.shape, { grid } = image;
  const expected = grid && [grid[0] * grid[1] * grid[2], 3 * frames * patch ** 2];
  if (!expected || expected[0] !== rows || expected[1] !== columns || grid[1] % merge || grid[2] % merge) {
    throw new InputError(
      `Cannot encode pixels of (${image.shape.join(", ")}) on the grid ${
        grid?.join(" x ") ?? "that is missing"
      }: ${
        expected
          ? `expected (${expected.join(", ")}), sides multiples of ${merge}`
          : "expected a grid of patches"
      }`,
    );
  }
  return expected[0] / merge ** 2;
}

export function declareQwen2Vision(names: Names, config: Qwen2VisionConfig): Qwen2Vision {
  const { C, F, layers, patch, frames, merge, out, centred: bias } = config;
  const wide = C * merge ** 2, merger = names.child("merger"), mergerMlp = merger.child("mlp");
  return {
    config,
    patchEmbedding: names.child("patch_embed").child("proj").param("weight", [C, 3, frames, patch, patch]),
    blocks: Array.from({ length: layers }, (_, i): Block => {
      const block = names.child("blocks").child(i), attn = block.child("attn");
      return {
        norm1: declareNorm(block.child("norm1"), C, EPS, { bias }),
        norm2: declareNorm(block.child("norm2"), C, EPS, { bias }),
        qkv: attn.linear("qkv", 3 * C, C, { bias: true }),
        proj: attn.linear("proj", C, C, { bias: true }),
        mlp: declareMlp(block.child("mlp"), C, F, config.mlp),
      };
    }),
    merger: {
      norm: declareNorm(merger.child("ln_q"), C, EPS, { bias }),
      linear1: mergerMlp.linear("0", wide, wide, { bias: true }),
      linear2: mergerMlp.linear("2", out, wide, { bias: true }),
    },
  };
}

function declareMlp(names: Names, C: number, F: number, kind: Qwen2VisionConfig["mlp"]): Mlp {
  const layer = (name: string, out: number, inner: number) => names.linear(name, out, inner, { bias: true });
  return kind === "swiglu"
    ? { gate: layer("gate_proj", F, C), up: layer("up_proj", F, C), down: layer("down_proj", C, F) }
    : { fc1: layer("fc1", F, C), fc2: layer("fc2", C, F), activation: kind };
}

/**
 * Processed pictures to feature rows (P / merge^2, out), in order. Sites: layers.N.resid_post, whose rows stand window
 * by window where there are windows. @throws InputError for pixels that do not fill their grid
 */
export function runQwen2Vision(
  forward: Forward,
  vision: Qwen2Vision,
  images: readonly Processed[],
  checkpointed: boolean,
): Tensor {
  const { tape } = forward, { gpu } = tape, { config } = vision;
  const { C, H, merge, windows } = config, square = merge ** 2;
  const features = images.reduce((sum, image) => sum + qwen2Features(config, image), 0),
    P = features * square;
  const grids = images.map(({ grid }): Grid => grid!);
  const cut = windows && windowOrder(grids, merge, windows.side);
  // Patches are put in window order here and stay there: only the features, a few rows, must go back.
  const order = Uint32Array.from(
    { length: P },
    (_, i) => cut ? cut.order[Math.floor(i / square)] * square + i % square : i,
  );

  const positions = patchPositions(grids, merge).map((axis) => Array.from(order, (patch) => axis[patch]));
  const frequencies = ropeFrequencies(C / H / 2, config.theta);
  const columns = [0, 1].flatMap((axis) => frequencies.map((frequency) => ({ axis, frequency })));
  const { cos, sin } = axialTables(positions, columns);
  const shared = { cos: gpu.upload(cos, [P, C / H / 2]), sin: gpu.upload(sin, [P, C / H / 2]) };
  const full = uploadRanges(gpu, fullRanges(frameStarts(grids)));
  const windowed = cut ? uploadRanges(gpu, fullRanges(cut.starts)) : full;

  const pixels = gpu.upload(orderedPixels(images, order), [P, images[0].shape[1]]);
  let x = embedPatches(forward, vision.patchEmbedding, undefined, pixels); // (P, C)
  vision.blocks.forEach((block, i) => {
    const ranges = windows?.except.includes(i) ? full : windowed;
    x = forward.at(`layers.${i}`).checkpoint(
      x,
      checkpointed,
      (forward, x) => runBlock(forward, block, config, x, { ...shared, ranges }),
    );
  });

  const { norm, linear1, linear2 } = vision.merger;
  const joined = tape.reshape(applyNorm(forward, norm, x), [features, C * square]);
  const inner = activate(tape, applyLinear(forward, linear1, joined), "gelu");
  const merged = applyLinear(forward, linear2, inner); // (features, out)
  if (!cut) return merged;
  const back = new Uint32Array(features);
  cut.order.forEach((feature, row) => back[feature] = row);
  return gatherRows(tape, merged, back);
}

/** All pictures' patches, one after another in the given order: (P, 3*frames*p*p). */
function orderedPixels(images: readonly Processed[], order: Uint32Array): Float32Array<ArrayBuffer> {
  const [, width] = images[0].shape;
  const rows = images.flatMap(({ pixelValues, shape: [count] }) =>
    Array.from({ length: count }, (_, i) => pixelValues.subarray(i * width, (i + 1) * width))
  );
  const pixels = new Float32Array(order.length * width);
  order.forEach((patch, i) => pixels.set(rows[patch], i * width));
  return pixels;
}

function runBlock(
  forward: Forward,
  block: Block,
  { C, H }: Qwen2VisionConfig,
  x: Tensor,
  { cos, sin, ranges }: Inputs,
): Tensor {
  const { tape } = forward;
  const fused = applyLinear(forward, block.qkv, applyNorm(forward, block.norm1, x)); // (P, 3*C)
  const [q, k, v] = splitQkv(tape, fused); // (P, C) each
  const turned = [q, k].map((x) => rotary(tape, x, cos, sin)); // (P, C) each
  const mixed = attention(tape, turned[0], turned[1], v, ranges, { headDim: C / H }); // (P, C)
  const middle = add(tape, x, applyLinear(forward, block.proj, mixed)); // (P, C)
  const fed = runMlp(forward, block.mlp, applyNorm(forward, block.norm2, middle)); // (P, C)
  return forward.tap("resid_post", add(tape, middle, fed)); // (P, C)
}

function runMlp(forward: Forward, mlp: Mlp, x: Tensor): Tensor {
  const { tape } = forward;
  if ("gate" in mlp) {
    const inner = swiglu(tape, applyLinear(forward, mlp.gate, x), applyLinear(forward, mlp.up, x)); // (P, F)
    return applyLinear(forward, mlp.down, inner);
  }
  return applyLinear(forward, mlp.fc2, activate(tape, applyLinear(forward, mlp.fc1, x), mlp.activation));
}
