/**
 * Qwen2.5-VL: Qwen2-VL with RMSNorm and SwiGLU in the vision transformer, most of whose blocks attend within windows.
 * Refuses windows smaller than what is merged into one feature.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { parseConfig } from "./llama.ts";
import type { Model } from "./model.ts";
import { assembleQwen, nestText, qwenFields, qwenVisionFields } from "./qwen2_vl.ts";

const size = z.number().int().positive();

const schema = z.preprocess(
  nestText,
  z.looseObject({
    ...qwenFields,
    vision_config: z.looseObject({
      ...qwenVisionFields,
      hidden_size: size.default(3584),
      intermediate_size: size.default(3420),
      out_hidden_size: size.default(3584),
      hidden_act: z.literal("silu").default("silu"),
      window_size: size.default(112),
      fullatt_block_indexes: z.array(z.number().int().nonnegative()).default([7, 15, 23, 31]),
    }).prefault({}),
  }),
);

/** @param json a parsed config.json with model_type "qwen2_5_vl" */
export function createQwen25Vl(json: unknown): Model {
  const config = parseConfig(schema, json, "qwen2_5_vl"), vision = config.vision_config;
  const side = Math.floor(vision.window_size / (vision.spatial_merge_size * vision.patch_size));
  if (side < 1) {
    throw new InputError(
      `Cannot use the qwen2_5_vl config: window_size ${vision.window_size} is below spatial_merge_size * patch_size`,
    );
  }
  return assembleQwen("qwen2_5_vl", config, {
    C: vision.hidden_size,
    F: vision.intermediate_size,
    H: vision.num_heads,
    layers: vision.depth,
    out: vision.out_hidden_size,
    patch: vision.patch_size,
    frames: vision.temporal_patch_size,
    merge: vision.spatial_merge_size,
    theta: vision.rope_parameters?.rope_theta ?? 10000,
    centred: false,
    mlp: "swiglu",
    windows: { side, except: vision.fullatt_block_indexes },
  });
}
