/**
 * Llama and its kin, text only: Vicuna, TinyLlama, SmolLM2. From a config.json of either transformers generation.
 */
import { z } from "zod";
import { InputError, issueOf } from "../../core/errors.ts";
import { type RopeConfig, ropeTables } from "../../core/positions.ts";
import { declareDecoder, type DecoderConfig } from "../nn/decoder.ts";
import { type Names, type Param, Registry } from "../nn/params.ts";
import type { Model } from "./model.ts";

const ropeSchema = z.looseObject({
  rope_theta: z.number().optional(),
  rope_type: z.string().optional(),
  type: z.string().optional(),
  factor: z.number().optional(),
  low_freq_factor: z.number().optional(),
  high_freq_factor: z.number().optional(),
  original_max_position_embeddings: z.number().optional(),
  factors: z.array(z.number()).optional(),
});

/** Hugging Face's field names and, as defaults, the values that transformers gives a missing field. */
export const llamaSchema = z.looseObject({
  hidden_size: z.number().int().positive().default(4096),
  intermediate_size: z.number().int().positive().default(11008),
  num_hidden_layers: z.number().int().positive().default(32),
  num_attention_heads: z.number().int().positive().default(32),
  num_key_value_heads: z.number().int().positive().nullish(),
  head_dim: z.number().int().positive().nullish(),
  vocab_size: z.number().int().positive().default(32000),
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.literal("silu").default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  max_position_embeddings: z.number().default(2048),
  rope_theta: z.number().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
});
export type LlamaConfig = z.infer<typeof llamaSchema>;

/** @throws InputError naming the field that is wrong */
export function parseConfig<S extends z.ZodType>(schema: S, json: unknown, what: string): z.infer<S> {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    throw new InputError(`Cannot use the ${what} config: ${issueOf(parsed.error)}`);
  }
  return parsed.data;
}

function ropeConfig(config: LlamaConfig): Omit<RopeConfig, "D"> {
  const rope = config.rope_parameters ?? config.rope_scaling ?? {};
  return {
    theta: rope.rope_theta ?? config.rope_theta ?? 10000,
    type: rope.rope_type ?? rope.type ?? "default",
    factor: rope.factor ?? 1,
    low: rope.low_freq_factor,
    high: rope.high_freq_factor,
    original: rope.original_max_position_embeddings ?? config.max_position_embeddings,
    factors: rope.factors,
  };
}

export function decoderConfig(config: LlamaConfig): DecoderConfig {
  const H = config.num_attention_heads, C = config.hidden_size;
  const D = config.head_dim ?? C / H, rope = ropeConfig(config);
  ropeTables([], { D, ...rope }); // an unknown scaling is refused before any weight is read
  return {
    C,
    F: config.intermediate_size,
    V: config.vocab_size,
    layers: config.num_hidden_layers,
    H,
    K: config.num_key_value_heads ?? H,
    D,
    eps: config.rms_norm_eps,
    rope,
    attentionBias: config.attention_bias,
    mlpBias: config.mlp_bias,
  };
}

/** The output head: a matrix of its own, or the embeddings again. */
export function declareHead(names: Names, embedTokens: Param, tied: boolean): Param {
  if (!tied) return names.child("lm_head").param("weight", embedTokens.shape);
  names.registry.ties.set("lm_head.weight", embedTokens.name);
  return embedTokens;
}

/** @param json a parsed config.json with model_type "llama" */
export function createLlama(json: unknown): Model {
  const config = parseConfig(llamaSchema, json, "llama");
  const registry = new Registry(), names = registry.root;
  const decoder = declareDecoder(names.child("model"), decoderConfig(config));
  return {
    family: "llama",
    registry,
    decoder,
    head: declareHead(names, decoder.embedTokens, config.tie_word_embeddings),
    featuresOf: () => 0,
    rename: (name) => name.endsWith("rotary_emb.inv_freq") ? undefined : name,
  };
}
