/**
 * The first Qwen-VL and Qwen-VL-Chat (2023, model type "qwen"): a vision tower with a resampler, and a decoder whose
 * queries, keys and values are one matrix. Refuses dropout, partial rotary positions and a config without "visual".
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { isLong, longTables } from "../../core/long_context.ts";
import type { Decoder, DecoderBlock, DecoderConfig } from "../nn/decoder.ts";
import { declareNorm } from "../nn/layers.ts";
import { type Names, Registry } from "../nn/params.ts";
import {
  declareQwenVision,
  pictureCount,
  type QwenVision,
  type QwenVisionConfig,
  runQwenVision,
} from "../nn/qwen_vision.ts";
import { declareHead, parseConfig } from "./llama.ts";
import type { Model } from "./model.ts";

const count = z.number().int().positive();

/** Field names and, as defaults, values of the configuration class that is published with the model. */
export const qwenVlSchema = z.looseObject({
  hidden_size: count.default(4096),
  /** Twice the width of the MLP. */
  intermediate_size: count.default(22016),
  num_hidden_layers: count.default(32),
  num_attention_heads: count.default(32),
  kv_channels: count.default(128),
  vocab_size: count.default(151936),
  layer_norm_epsilon: z.number().positive().default(1e-6),
  rotary_emb_base: z.number().positive().default(10000),
  rotary_pct: z.literal(1).default(1),
  seq_length: count.default(2048),
  use_dynamic_ntk: z.boolean().default(true),
  use_logn_attn: z.boolean().default(true),
  no_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().default(false),
  emb_dropout_prob: z.literal(0).default(0),
  attn_dropout_prob: z.literal(0).default(0),
  visual: z.looseObject({
    image_size: count,
    patch_size: count,
    width: count,
    layers: count,
    heads: count,
    mlp_ratio: z.number().positive(),
    output_dim: count.default(512),
    n_queries: count.default(256),
    image_start_id: count,
  }),
});
type QwenVlConfig = z.infer<typeof qwenVlSchema>;

function textConfig(config: QwenVlConfig): DecoderConfig {
  const C = config.hidden_size, H = config.num_attention_heads, D = config.kv_channels;
  if (H * D !== C) {
    throw new InputError(`Cannot use the qwen config: ${H} heads of ${D} channels, hidden_size ${C}`);
  }
  return {
    C,
    F: Math.floor(config.intermediate_size / 2),
    V: config.vocab_size,
    layers: config.num_hidden_layers,
    H,
    K: H,
    D,
    eps: config.layer_norm_epsilon,
    rope: { theta: config.rotary_emb_base, type: "default", factor: 1 },
    attentionBias: true,
    mlpBias: !config.no_bias,
  };
}

function visionConfig({ visual, hidden_size }: QwenVlConfig): QwenVisionConfig {
  const side = Math.sqrt(visual.n_queries), { image_size, patch_size, width, heads } = visual;
  const refuse = (why: string) => new InputError(`Cannot use the qwen config: visual.${why}`);
  if (!Number.isInteger(side)) throw refuse(`n_queries ${visual.n_queries} is no square`);
  if (image_size % patch_size) throw refuse(`image_size ${image_size} is no multiple of ${patch_size}`);
  if (width % heads) throw refuse(`width ${width} does not divide into ${heads} heads`);
  if (visual.output_dim !== hidden_size) {
    throw refuse(`output_dim is ${visual.output_dim}, expected hidden_size ${hidden_size}`);
  }
  return {
    C: width,
    F: Math.trunc(width * visual.mlp_ratio),
    H: heads,
    layers: visual.layers,
    imageSize: image_size,
    patch: patch_size,
    out: visual.output_dim,
    side,
  };
}

/** The decoder under this family's names; of the MLP, w2 goes through the SiLU and w1 does not. */
function declareQwenDecoder(names: Names, config: DecoderConfig): Decoder {
  const { C, F, V, eps, attentionBias, mlpBias: bias } = config;
  const embedTokens = names.child("wte").param("weight", [V, C]);
  const blocks = Array.from({ length: config.layers }, (_, i): DecoderBlock => {
    const block = names.child("h").child(i), attn = block.child("attn"), mlp = block.child("mlp");
    return {
      inputNorm: declareNorm(block.child("ln_1"), C, eps),
      qkv: attn.linear("c_attn", 3 * C, C, { bias: attentionBias }),
      o: attn.linear("c_proj", C, C, { bias }),
      postNorm: declareNorm(block.child("ln_2"), C, eps),
      up: mlp.linear("w1", F, C, { bias }),
      gate: mlp.linear("w2", F, C, { bias }),
      down: mlp.linear("c_proj", C, F, { bias }),
    };
  });
  return { config, embedTokens, blocks, norm: declareNorm(names.child("ln_f"), C, eps) };
}

/** @param json a parsed config.json with model_type "qwen" and a "visual" part */
export function createQwenVl(json: unknown): Model {
  const config = parseConfig(qwenVlSchema, json, "qwen");
  const text = textConfig(config), features = config.visual.n_queries, start = config.visual.image_start_id;
  const registry = new Registry(), transformer = registry.root.child("transformer");
  const decoder = declareQwenDecoder(transformer, text);
  const vision: QwenVision = declareQwenVision(transformer.child("visual"), visionConfig(config));
  const long = { trained: config.seq_length, ntk: config.use_dynamic_ntk, logn: config.use_logn_attn };
  return {
    family: "qwen_vl",
    registry,
    decoder,
    head: declareHead(registry.root, decoder.embedTokens, config.tie_word_embeddings),
    imageToken: { start, end: start + 1, features },
    featuresOf: (image) => features * pictureCount(image),
    encodeImages: (forward, images, checkpointed) => runQwenVision(forward, vision, images, checkpointed),
    // Training never goes beyond the plain tables, and up to the training context there is nothing to change.
    rotary: (batch, training) =>
      training || !isLong(batch, long) ? undefined : longTables(batch, { D: text.D, ...text.rope }, long),
    rename: (name) => /\.(rotary_emb\.inv_freq|attn\.masked_bias)$/.test(name) ? undefined : name,
  };
}
