/**
 * LLaVA-1.5: a CLIP tower, a two-layer projector and a llama decoder; the built-in model is this with small sizes.
 * One field goes beyond Hugging Face's: `vision_feature_merge` n joins n x n neighbouring patches before the projector.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { type Processed, toPatches } from "../../core/image/processors.ts";
import { activate } from "../ops/activation.ts";
import { fullRanges } from "../../core/ranges.ts";
import { uploadRanges } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather.ts";
import type { Tensor } from "../tensor.ts";
import { type ClipConfig, clipPatches, declareClip, runClip } from "../nn/clip.ts";
import { declareDecoder } from "../nn/decoder.ts";
import type { Forward } from "../nn/forward.ts";
import { applyLinear } from "../nn/layers.ts";
import { Registry } from "../nn/params.ts";
import { declareHead, decoderConfig, llamaSchema, parseConfig } from "./llama.ts";
import type { Model } from "./model.ts";

export const activationNames = {
  gelu: "gelu",
  quick_gelu: "quick_gelu",
  gelu_pytorch_tanh: "gelu_tanh",
} as const;
export const activationSchema = z.enum(["gelu", "quick_gelu", "gelu_pytorch_tanh"]);

const visionSchema = z.looseObject({
  hidden_size: z.number().int().positive().default(1024),
  intermediate_size: z.number().int().positive().default(4096),
  num_hidden_layers: z.number().int().positive().default(24),
  num_attention_heads: z.number().int().positive().default(16),
  image_size: z.number().int().positive().default(336),
  patch_size: z.number().int().positive().default(14),
  layer_norm_eps: z.number().positive().default(1e-5),
  hidden_act: activationSchema.default("quick_gelu"),
});

export const llavaSchema = z.looseObject({
  text_config: llamaSchema.prefault({}),
  vision_config: visionSchema.prefault({}),
  image_token_id: z.number().int().optional(),
  image_token_index: z.number().int().optional(),
  vision_feature_layer: z.number().int().default(-2),
  vision_feature_select_strategy: z.enum(["default", "full"]).default("default"),
  vision_feature_merge: z.number().int().positive().default(1),
  projector_hidden_act: activationSchema.default("gelu"),
  multimodal_projector_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().optional(),
});

function clipConfig(
  { vision_config: vision, vision_feature_layer: layer }: z.infer<typeof llavaSchema>,
): ClipConfig {
  const layers = vision.num_hidden_layers, depth = layer < 0 ? layers + 1 + layer : layer;
  if (depth < 0 || depth > layers) {
    throw new InputError(
      `Cannot use the llava config: vision_feature_layer ${layer}, the tower has ${layers} layers`,
    );
  }
  return {
    C: vision.hidden_size,
    F: vision.intermediate_size,
    H: vision.num_attention_heads,
    layers,
    depth,
    imageSize: vision.image_size,
    patch: vision.patch_size,
    eps: vision.layer_norm_eps,
    activation: activationNames[vision.hidden_act],
  };
}

/** @param json a parsed config.json with model_type "llava" */
export function createLlava(json: unknown): Model {
  const config = parseConfig(llavaSchema, json, "llava");
  const text = decoderConfig(config.text_config), vision = clipConfig(config);
  const registry = new Registry(), model = registry.root.child("model");
  const clip = declareClip(model.child("vision_tower"), vision);
  const merge = config.vision_feature_merge, bias = config.multimodal_projector_bias;
  const projector = model.child("multi_modal_projector");
  const linear1 = projector.linear("linear_1", text.C, vision.C * merge * merge, { bias });
  const linear2 = projector.linear("linear_2", text.C, text.C, { bias });
  const decoder = declareDecoder(model.child("language_model"), text);
  const skipClass = config.vision_feature_select_strategy === "default";
  const P = clipPatches(vision), side = Math.sqrt(P);
  if (merge > 1 && (!skipClass || side % merge)) {
    throw new InputError(
      `Cannot use the llava config: vision_feature_merge ${merge} needs ${side} x ${side} patches that it divides, without class token`,
    );
  }

  const encodeImages = (forward: Forward, images: readonly Processed[], checkpointed: boolean): Tensor => {
    const { tape } = forward;
    const n = images.length, rows = P + 1;
    const patches = new Float32Array(n * P * 3 * vision.patch ** 2);
    images.forEach(({ pixelValues, shape }, i) => {
      if (shape.slice(-2).some((size) => size !== vision.imageSize)) {
        throw new InputError(
          `Cannot encode a picture of ${
            shape.slice(-2).join(" x ")
          } pixels: the model takes ${vision.imageSize} x ${vision.imageSize}`,
        );
      }
      patches.set(toPatches(pixelValues, shape, vision.patch), i * P * 3 * vision.patch ** 2);
    });
    const ranges = uploadRanges(tape.gpu, fullRanges(Array.from({ length: n + 1 }, (_, i) => i * rows)));
    const x = runClip(
      forward,
      clip,
      tape.gpu.upload(patches, [n * P, 3 * vision.patch ** 2]),
      ranges,
      checkpointed,
    ); // (n*(P+1), C)
    const chosen = skipClass ? gatherRows(tape, x, mergeOrder(n, side, merge)) : x;
    const joined = merge > 1 ? tape.reshape(chosen, [n * P / merge ** 2, vision.C * merge ** 2]) : chosen;
    const inner = activate(
      tape,
      applyLinear(forward, linear1, joined),
      activationNames[config.projector_hidden_act],
    );
    return applyLinear(forward, linear2, inner); // (features, C)
  };

  return {
    family: "llava",
    registry,
    decoder,
    head: declareHead(
      registry.root,
      decoder.embedTokens,
      config.tie_word_embeddings ?? config.text_config.tie_word_embeddings,
    ),
    imageToken: config.image_token_id ?? config.image_token_index ?? 32000,
    featuresOf: () => skipClass ? P / merge ** 2 : P + 1,
    encodeImages,
    rename,
  };
}

/** Rows of (n, classes + side * side) tokens without the class tokens, merge x merge neighbours next to each other. */
export function mergeOrder(n: number, side: number, merge: number, classes = 1): Uint32Array {
  const order: number[] = [];
  for (let image = 0; image < n; image++) {
    for (let y = 0; y < side; y += merge) {
      for (let x = 0; x < side; x += merge) {
        for (let dy = 0; dy < merge; dy++) {
          for (let dx = 0; dx < merge; dx++) {
            order.push(image * (side * side + classes) + classes + (y + dy) * side + x + dx);
          }
        }
      }
    }
  }
  return Uint32Array.from(order);
}

/** Both generations of checkpoint prefixes, and towers with and without `vision_model`. */
function rename(name: string): string | undefined {
  if (name.endsWith("position_ids") || name.endsWith("rotary_emb.inv_freq")) return undefined;
  return name
    .replace(/^language_model\.model\./, "model.language_model.")
    .replace(/^language_model\.lm_head\./, "lm_head.")
    .replace(/^(multi_modal_projector|vision_tower)\./, "model.$1.")
    .replace(/^model\.vision_tower\.vision_model\./, "model.vision_tower.");
}
