/**
 * The config of a LLaVA that lies in parts: a llama's config.json (Vicuna's, or the one of LLaVA's own release) and a
 * CLIP's become one of Hugging Face's llava layout. Refuses projectors and image tokens that such a model has not.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";

const languageSchema = z.looseObject({
  model_type: z.enum(["llama", "llava", "llava_llama"]),
  vocab_size: z.int().positive(),
  mm_vision_tower: z.string().nullish(),
  mm_projector_type: z.string().nullish(),
  mm_vision_select_layer: z.int().nullish(),
  mm_vision_select_feature: z.enum(["patch", "cls_patch"]).nullish(),
  mm_use_im_start_end: z.boolean().nullish(),
  mm_patch_merge_type: z.string().nullish(),
  image_aspect_ratio: z.enum(["pad", "square"]).nullish(),
});

/** transformers' defaults of a CLIPVisionConfig, which are not those of a llava's tower. */
const CLIP_DEFAULTS = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  image_size: 224,
  patch_size: 32,
  layer_norm_eps: 1e-5,
  hidden_act: "quick_gelu",
};
const towerSchema = z.looseObject({
  model_type: z.enum(["clip", "clip_vision_model"]),
  vision_config: z.looseObject({}).optional(),
});

/** The tower that a config of LLaVA's own release names; undefined for any other config. */
export function originalTower(config: unknown): string | undefined {
  const parsed = z.looseObject({ model_type: z.string(), mm_vision_tower: z.string() }).safeParse(config);
  return parsed.success && !("text_config" in parsed.data) ? parsed.data.mm_vision_tower : undefined;
}

/** The tower's part of a CLIP's parsed config.json, every default filled in. @throws InputError for another kind of model */
export function clipVision(tower: unknown, name: string): Record<string, unknown> {
  const { vision_config, ...own } = parse(towerSchema, tower, name);
  const vision = own.model_type === "clip" ? vision_config : own;
  if (!vision) throw new InputError(`Cannot use "${name}": it has no "vision_config"`);
  return { ...CLIP_DEFAULTS, ...vision, model_type: "clip_vision_model" };
}

export interface ComposedConfig {
  /** A config.json with model_type "llava". */
  config: Record<string, unknown>;
  /** Pictures are padded to a square before they are resized. */
  pad: boolean;
}

/**
 * One config of two. The image token gets `imageToken`, which lies outside the vocabulary: LLaVA's own code uses -200 for
 * it and never looks it up, so the matrices keep the sizes that they have in the checkpoint.
 * @param language parsed config.json, called `languageName` in messages; `tower` likewise
 * @throws InputError naming the file and field that does not fit
 */
export function composeConfig(
  language: unknown,
  languageName: string,
  tower: unknown,
  towerName: string,
  imageToken: number,
): ComposedConfig {
  const text = parse(languageSchema, language, languageName), vision = clipVision(tower, towerName);
  const refuse = (field: string, expected: string) => {
    throw new InputError(
      `Cannot use "${languageName}": "${field}" is ${JSON.stringify(text[field])}, expected ${expected}`,
    );
  };
  if (!["mlp2x_gelu", undefined, null].includes(text.mm_projector_type)) {
    refuse("mm_projector_type", '"mlp2x_gelu"');
  }
  if (text.mm_use_im_start_end) refuse("mm_use_im_start_end", "false");
  if (!["flat", undefined, null].includes(text.mm_patch_merge_type)) refuse("mm_patch_merge_type", '"flat"');
  return {
    config: {
      model_type: "llava",
      text_config: { ...text, model_type: "llama" },
      vision_config: vision,
      image_token_index: imageToken,
      vision_feature_layer: text.mm_vision_select_layer ?? -2,
      vision_feature_select_strategy: text.mm_vision_select_feature === "cls_patch" ? "full" : "default",
      projector_hidden_act: "gelu",
      multimodal_projector_bias: true,
      tie_word_embeddings: text.tie_word_embeddings ?? false,
    },
    pad: text.image_aspect_ratio !== "square",
  };
}

/** The id after the vocabulary and after every token that was added to it. */
export function freeToken(language: unknown, name: string, added: readonly number[]): number {
  return Math.max(parse(languageSchema, language, name).vocab_size, ...added.map((id) => id + 1));
}

function parse<T>(schema: z.ZodType<T>, json: unknown, name: string): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new InputError(`Cannot use "${name}" as a part of a llava: "${path.join(".")}": ${message}`);
}
