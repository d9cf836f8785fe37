/**
 * A LLaVA-shaped model small enough for tests: the built-in model's structure and tokenizer, random weights in which
 * no norm is one and no bias zero, and drawn scenes as data. Everything follows from seeds.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import type { LoraConfig } from "../core/formats/peft.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { tinyTokenizerJson } from "../core/text/tiny.ts";
import { createModel } from "../gpu/models/create.ts";
import { pretrainSample, TINY_CONFIG, TINY_PROCESSOR } from "../gpu/pretrain.ts";
import type { Session } from "../gpu/session.ts";

/** 16 patches of 8 x 8 joined to 4 tokens, grouped heads, widths that are no powers of two. */
export const SMALL_CONFIG = {
  ...TINY_CONFIG,
  vision_config: {
    ...TINY_CONFIG.vision_config,
    hidden_size: 24,
    intermediate_size: 40,
    num_attention_heads: 2,
    image_size: 32,
  },
  text_config: {
    ...TINY_CONFIG.text_config,
    hidden_size: 32,
    intermediate_size: 56,
    num_hidden_layers: 2,
    num_key_value_heads: 2,
  },
};

/** An adapter of rank 3 beside every linear layer, the tower's and the projector's included. */
export const EVERYWHERE: LoraConfig = {
  r: 3,
  lora_alpha: 6,
  lora_dropout: 0,
  target_modules: "all-linear",
  use_rslora: false,
};

type Config = { vision_config: { image_size: number } };

/** The three JSON files and the weights of a checkpoint, in memory. */
export async function smallCheckpoint(config: Config = SMALL_CONFIG, seed = 1): Promise<MemoryFolder> {
  const folder = new MemoryFolder("small"), side = config.vision_config.image_size;
  await folder.write("config.json", JSON.stringify(config));
  await folder.write(
    "preprocessor_config.json",
    JSON.stringify({ ...TINY_PROCESSOR, size: { height: side, width: side } }),
  );
  await folder.write("tokenizer.json", JSON.stringify(tinyTokenizerJson()));
  await folder.write("model.safetensors", encodeSafetensors(randomWeights(config, seed)));
  return folder;
}

/** Norms around one, biases around zero, matrices of variance 1 / fan-in. */
export function randomWeights(config: unknown, seed: number) {
  const tensors: Record<string, { shape: number[]; data: Float32Array<ArrayBuffer> }> = {};
  for (const { name, shape } of createModel(config).registry.params.values()) {
    const random = new Random(seed, name), isNorm = shape.length === 1 && name.endsWith(".weight");
    const std = shape.length === 1 ? 0.1 : 1 / Math.sqrt(sizeOf(shape.slice(1)));
    const draw = () => (isNorm ? 1 : 0) + std * random.normal();
    tensors[name] = { shape: [...shape], data: Float32Array.from({ length: sizeOf(shape) }, draw) };
  }
  return tensors;
}

/** Drawn scenes with `questions` questions each, encoded for the session's model. */
export function sceneSamples(
  { encoder }: Pick<Session, "encoder">,
  count: number,
  questions = 2,
): EncodedSample[] {
  return Array.from(
    { length: count },
    (_, i) => pretrainSample(encoder, new Random(5, "scenes"), i, questions),
  );
}

/** Gives B, which starts at zero, random values: otherwise A has no gradient. */
export function randomiseB({ gpu, loraParams }: Pick<Session, "gpu" | "loraParams">, seed = 2): void {
  for (const { name, shape, tensor } of loraParams) {
    if (!name.includes("lora_B")) continue;
    const random = new Random(seed, name);
    gpu.write(tensor, Float32Array.from({ length: sizeOf(shape) }, () => 0.3 * random.normal()));
  }
}
