/**
 * The built-in model from nothing: its sizes, its first weights and its pre-training task, drawn scenes with questions.
 * Everything follows from one seed.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import type { SampleEncoder } from "../core/data/encode.ts";
import { type QuestionKind, syntheticItem } from "../core/data/synthetic.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { tinyTokenizer } from "../core/text/tiny.ts";
import type { Gpu } from "./device.ts";
import type { Model } from "./models/model.ts";
import { writeParam } from "./models/weights.ts";

/** LLaVA's own fields; 8-pixel patches, joined 2 x 2 before the projector: 16 image tokens for 64 x 64 pixels. */
export const TINY_CONFIG = {
  architectures: ["LlavaForConditionalGeneration"],
  model_type: "llava",
  image_token_index: 3,
  vision_feature_layer: -1,
  vision_feature_select_strategy: "default",
  vision_feature_merge: 2,
  projector_hidden_act: "gelu",
  tie_word_embeddings: true,
  vision_config: {
    model_type: "clip_vision_model",
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    image_size: 64,
    patch_size: 8,
    hidden_act: "quick_gelu",
    layer_norm_eps: 1e-5,
  },
  text_config: {
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 160,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    // A multiple of four, so that every product of the head runs on the fast path; the last ids are never used.
    vocab_size: Math.ceil(tinyTokenizer.vocab.length / 4) * 4,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_type: "default", rope_theta: 10000 },
    tie_word_embeddings: true,
  },
};

export const TINY_PROCESSOR = {
  image_processor_type: "SiglipImageProcessor",
  do_resize: true,
  size: { height: 64, width: 64 },
  resample: 3,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.25, 0.25, 0.25],
  do_convert_rgb: true,
};

/** Questions of pre-training; "what color is the ring" is left for fine-tuning. */
export const PRETRAIN_KINDS: QuestionKind[] = ["is-there", "count"];

/** Fills every parameter: norms at one, matrices normal with variance 1 / fan-in, tables at 0.02 (0.1 for words). */
export function initWeights(gpu: Gpu, model: Model, seed: number): void {
  for (const param of model.registry.params.values()) {
    if (!param.used) continue;
    const { name, shape } = param, random = new Random(seed, `init/${name}`);
    const values = new Float32Array(sizeOf(shape));
    if (/norm\w*(\.\d+)?\.weight$|layrnorm\.weight$/.test(name)) values.fill(1);
    else if (!name.endsWith(".bias")) {
      const table = /embed_tokens|position_embedding|class_embedding/.test(name);
      const fanIn = sizeOf(shape.slice(1));
      const std = name.includes("embed_tokens") ? 0.1 : table ? 0.02 : 1 / Math.sqrt(fanIn);
      for (let i = 0; i < values.length; i++) values[i] = std * random.normal();
    }
    writeParam(gpu, param, values);
  }
}

/** The index-th drawn scene with its questions, encoded. */
export function pretrainSample(
  encoder: SampleEncoder,
  random: Random,
  index: number,
  questions: number,
): EncodedSample {
  const { picture, sample } = syntheticItem(random, index, PRETRAIN_KINDS, questions);
  return encoder.train(sample.id, sample.turns, [picture]);
}
