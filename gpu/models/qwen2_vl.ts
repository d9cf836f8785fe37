/**
 * Qwen2-VL: pictures of any size through a vision transformer with a 2 x 2 merger, and a decoder with M-RoPE.
 * From a config.json of either transformers generation; refuses sliding windows and any other rotary scaling.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import type { PackedBatch } from "../../core/data/pack.ts";
import { axialTables, mropePositions, positionsAfter } from "../../core/grid_positions.ts";
import { ropeFrequencies } from "../../core/positions.ts";
import { declareDecoder, type DecoderConfig } from "../nn/decoder.ts";
import { Registry } from "../nn/params.ts";
import {
  declareQwen2Vision,
  qwen2Features,
  type Qwen2VisionConfig,
  runQwen2Vision,
} from "../nn/qwen2_vision.ts";
import { declareHead, parseConfig } from "./llama.ts";
import type { Model } from "./model.ts";

const size = z.number().int().positive();
const ropeKind = z.enum(["default", "mrope"]);
const ropeSchema = z.looseObject({
  rope_theta: z.number().positive().optional(),
  rope_type: ropeKind.optional(),
  type: ropeKind.optional(),
  mrope_section: z.array(size).length(3).default([16, 24, 24]),
});

const textSchema = z.looseObject({
  hidden_size: size.default(8192),
  intermediate_size: size.default(29568),
  num_hidden_layers: size.default(80),
  num_attention_heads: size.default(64),
  num_key_value_heads: size.nullable().default(8),
  vocab_size: size.default(152064),
  rms_norm_eps: z.number().positive().default(1e-5),
  hidden_act: z.literal("silu").default("silu"),
  use_sliding_window: z.literal(false).nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  tie_word_embeddings: z.boolean().default(false),
});

/** What the vision configs of both Qwen generations share. */
export const qwenVisionFields = {
  depth: size.default(32),
  num_heads: size.default(16),
  in_channels: z.literal(3).default(3),
  patch_size: size.default(14),
  spatial_merge_size: size.default(2),
  temporal_patch_size: size.default(2),
  rope_parameters: z.looseObject({
    rope_theta: z.number().positive().default(10000),
    rope_type: z.literal("axial").default("axial"),
  }).nullish(),
};

/** What the configs of both Qwen generations share beside the vision part; `nestText` comes first. */
export const qwenFields = {
  text_config: textSchema,
  image_token_id: z.number().int().default(151655),
  tie_word_embeddings: z.boolean().default(false),
};

const schema = z.preprocess(
  nestText,
  z.looseObject({
    ...qwenFields,
    vision_config: z.looseObject({
      ...qwenVisionFields,
      embed_dim: size.default(1280),
      hidden_size: size.default(3584),
      mlp_ratio: size.default(4),
      hidden_act: z.enum(["gelu", "quick_gelu"]).default("quick_gelu"),
    }).prefault({}),
  }),
);

/** transformers 4 wrote the text model's fields beside "vision_config", transformers 5 into "text_config". */
export function nestText(json: unknown): unknown {
  const config = json as Record<string, unknown>;
  return { ...config, text_config: config.text_config ?? config };
}

/** @param json a parsed config.json with model_type "qwen2_vl" */
export function createQwen2Vl(json: unknown): Model {
  const config = parseConfig(schema, json, "qwen2_vl"), vision = config.vision_config;
  return assembleQwen("qwen2_vl", config, {
    C: vision.embed_dim,
    F: vision.embed_dim * vision.mlp_ratio,
    H: vision.num_heads,
    layers: vision.depth,
    out: vision.hidden_size,
    patch: vision.patch_size,
    frames: vision.temporal_patch_size,
    merge: vision.spatial_merge_size,
    theta: vision.rope_parameters?.rope_theta ?? 10000,
    centred: true,
    mlp: vision.hidden_act,
  });
}

type QwenConfig = z.infer<z.ZodObject<typeof qwenFields>>;

/** The model tree of both generations. @throws InputError for sizes that do not fit one another */
export function assembleQwen(family: string, config: QwenConfig, visionConfig: Qwen2VisionConfig): Model {
  const { text_config: text } = config, rope = text.rope_parameters ?? text.rope_scaling;
  const C = text.hidden_size, H = text.num_attention_heads, K = text.num_key_value_heads ?? H, D = C / H;
  const theta = rope?.rope_theta ?? text.rope_theta ?? 1e6;
  const sections = rope?.mrope_section ?? [16, 24, 24], turned = sections.reduce((sum, n) => sum + n, 0);
  refuse(family, D % 4 !== 0, `hidden_size ${C} in ${H} heads, expected a multiple of 4 each`);
  refuse(family, H % K !== 0, `${K} key-value heads do not divide ${H} heads`);
  refuse(family, turned !== D / 2, `mrope_section adds up to ${turned}, expected ${D / 2}`);
  refuse(family, visionConfig.out !== C, `features of ${visionConfig.out} channels, the text has ${C}`);
  const width = visionConfig.C / visionConfig.H;
  refuse(family, width % 4 !== 0, `${visionConfig.C} vision channels in ${visionConfig.H} heads`);

  const decoderConfig: DecoderConfig = {
    C,
    F: text.intermediate_size,
    V: text.vocab_size,
    layers: text.num_hidden_layers,
    H,
    K,
    D,
    eps: text.rms_norm_eps,
    rope: { theta, type: "default", factor: 1 },
    attentionBias: true,
    outputBias: false,
    mlpBias: false,
  };
  const registry = new Registry(), model = registry.root.child("model");
  const vision = declareQwen2Vision(model.child("visual"), visionConfig);
  const decoder = declareDecoder(model.child("language_model"), decoderConfig);
  const axes = sections.flatMap((count, axis) => new Array<number>(count).fill(axis));
  const positionsOf = (batch: PackedBatch) =>
    mropePositions(batch, batch.images.map(({ grid }) => grid!), visionConfig.merge);
  const columns = ropeFrequencies(D, theta).map((frequency, i) => ({ axis: axes[i], frequency }));
  return {
    family,
    registry,
    decoder,
    head: declareHead(
      registry.root,
      decoder.embedTokens,
      config.tie_word_embeddings || text.tie_word_embeddings,
    ),
    imageToken: config.image_token_id,
    featuresOf: (image) => qwen2Features(visionConfig, image),
    encodeImages: (forward, images, checkpointed) => runQwen2Vision(forward, vision, images, checkpointed),
    rotary: (batch) => axialTables(positionsOf(batch), columns),
    nextPositions: (batch) => positionsAfter(batch, positionsOf(batch)),
    rename,
  };
}

function refuse(family: string, wrong: boolean, why: string): void {
  if (wrong) throw new InputError(`Cannot use the ${family} config: ${why}`);
}

/** Both generations of checkpoint prefixes. */
function rename(name: string): string | undefined {
  if (name.endsWith("rotary_emb.inv_freq") || name.endsWith("rotary_pos_emb.inv_freq")) return undefined;
  return name
    .replace(/^visual\./, "model.visual.")
    .replace(/^model\.(layers|embed_tokens|norm)\./, "model.language_model.$1.");
}
