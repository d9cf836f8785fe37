/**
 * Idefics3 and SmolVLM, one architecture under two names: a SigLIP tower over every tile, s x s neighbouring patches
 * joined (pixel shuffle), one projection, a llama decoder. Refuses tiles that are not square or that s does not divide.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { type Processed, toPatches } from "../../core/image/processors.ts";
import { fullRanges } from "../../core/ranges.ts";
import { declareDecoder } from "../nn/decoder.ts";
import type { Forward } from "../nn/forward.ts";
import { applyLinear } from "../nn/layers.ts";
import { Registry } from "../nn/params.ts";
import { declareSiglip, runSiglip, type SiglipConfig } from "../nn/siglip.ts";
import { uploadRanges } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather.ts";
import type { Tensor } from "../tensor.ts";
import { declareHead, decoderConfig, llamaSchema, parseConfig } from "./llama.ts";
import { activationNames, activationSchema, mergeOrder } from "./llava.ts";
import type { Model } from "./model.ts";

const visionSchema = z.looseObject({
  hidden_size: z.number().int().positive().default(1152),
  intermediate_size: z.number().int().positive().default(3072),
  num_hidden_layers: z.number().int().positive().default(12),
  num_attention_heads: z.number().int().positive().default(16),
  num_channels: z.literal(3).default(3),
  image_size: z.number().int().positive().default(224),
  patch_size: z.number().int().positive().default(32),
  layer_norm_eps: z.number().positive().default(1e-6),
  hidden_act: activationSchema.default("gelu_pytorch_tanh"),
});

/** Both names' fields with transformers' defaults; those of a text_config that is not there at all differ in one. */
export const idefics3Schema = z.looseObject({
  model_type: z.enum(["idefics3", "smolvlm"]),
  text_config: llamaSchema.extend({ model_type: z.literal("llama").default("llama") })
    .nullish().transform((text) => text ?? llamaSchema.parse({ rms_norm_eps: 1e-5 })),
  vision_config: visionSchema.nullish().transform((vision) => vision ?? visionSchema.parse({})),
  image_token_id: z.number().int().default(128257),
  scale_factor: z.number().int().positive().default(2),
  tie_word_embeddings: z.boolean().default(false),
});

function siglipConfig({ vision_config: vision }: z.infer<typeof idefics3Schema>): SiglipConfig {
  return {
    C: vision.hidden_size,
    F: vision.intermediate_size,
    H: vision.num_attention_heads,
    layers: vision.num_hidden_layers,
    imageSize: vision.image_size,
    patch: vision.patch_size,
    eps: vision.layer_norm_eps,
    activation: activationNames[vision.hidden_act],
  };
}

/** @param json a parsed config.json with model_type "idefics3" or "smolvlm" */
export function createIdefics3(json: unknown): Model {
  const config = parseConfig(idefics3Schema, json, "idefics3");
  const text = decoderConfig(config.text_config), vision = siglipConfig(config);
  const scale = config.scale_factor, { patch } = vision;
  const registry = new Registry(), model = registry.root.child("model");
  const siglip = declareSiglip(model.child("vision_model"), vision);
  const projection = model.child("connector").child("modality_projection")
    .linear("proj", text.C, vision.C * scale ** 2);
  const decoder = declareDecoder(model.child("text_model"), text);

  /** Patches in a row of a tile. */
  const sideOf = ({ shape }: Processed): number => {
    const [height, width] = shape.slice(-2), side = Math.floor(width / patch);
    if (height !== width || side === 0 || side % scale) {
      throw new InputError(
        `Cannot encode a picture of ${height} x ${width} pixels: expected a square whose patches ${patch} x ${patch} the scale_factor ${scale} divides`,
      );
    }
    return side;
  };
  const tilesOf = ({ pixelValues, shape }: Processed) =>
    pixelValues.length / shape.slice(-3).reduce((product, n) => product * n);

  const encodeImages = (forward: Forward, images: readonly Processed[], checkpointed: boolean): Tensor => {
    const { tape } = forward, side = sideOf(images[0]), P = side * side;
    const odd = images.find((image) => sideOf(image) !== side);
    if (odd) {
      throw new InputError(
        `Cannot encode pictures of ${odd.shape.at(-1)} and ${
          images[0].shape.at(-1)
        } pixels together: expected tiles of one size`,
      );
    }
    const tiles = images.reduce((sum, image) => sum + tilesOf(image), 0), K = 3 * patch ** 2;
    const patches = new Float32Array(tiles * P * K);
    let at = 0;
    for (const image of images) {
      const cut = toPatches(...wholePatches(image, side * patch), patch);
      patches.set(cut, at);
      at += cut.length;
    }
    const ranges = uploadRanges(tape.gpu, fullRanges(Array.from({ length: tiles + 1 }, (_, i) => i * P)));
    const x = runSiglip(
      forward,
      siglip,
      tape.gpu.upload(patches, [tiles * P, K]),
      side,
      ranges,
      checkpointed,
    ); // (tiles*P, C)
    const ordered = gatherRows(tape, x, mergeOrder(tiles, side, scale, 0));
    const joined = tape.reshape(ordered, [tiles * P / scale ** 2, vision.C * scale ** 2]);
    return applyLinear(forward, projection, joined); // (features, C)
  };

  return {
    family: config.model_type,
    registry,
    decoder,
    head: declareHead(registry.root, decoder.embedTokens, config.tie_word_embeddings),
    imageToken: config.image_token_id,
    featuresOf: (image) => tilesOf(image) * (sideOf(image) / scale) ** 2,
    encodeImages,
    rename: (name) => name.endsWith("rotary_emb.inv_freq") ? undefined : name,
  };
}

/** The pixels that whole patches cover, as a convolution without padding sees them: edges right and below are left. */
function wholePatches({ pixelValues, shape }: Processed, size: number): [Float32Array, number[]] {
  const full = shape.at(-1)!;
  if (full === size) return [pixelValues, shape];
  const planes = pixelValues.length / full ** 2, out = new Float32Array(planes * size ** 2);
  for (let row = 0; row < planes * size; row++) {
    const from = (Math.floor(row / size) * full + row % size) * full;
    out.set(pixelValues.subarray(from, from + size), row * size);
  }
  return [out, [...shape.slice(0, -2), size, size]];
}
