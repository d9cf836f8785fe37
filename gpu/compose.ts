/**
 * A text-only llama behind a small vision tower: config and weights of a new llava whose projector is drawn or taken.
 * Refuses decoders that are no llama, towers that are no CLIP, and parts whose tensors do not fit their configs.
 */
import { z } from "zod";
import { InputError, issueOf } from "../core/errors.ts";
import type { WeightSource } from "../core/formats/checkpoint.ts";
import { clipVision } from "../core/formats/llava_config.ts";
import { encodeFloats, type FloatDtype, type StreamedTensor } from "../core/formats/shards.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { createModel } from "./models/create.ts";
import { isWanted } from "./models/weights.ts";
import type { Param } from "./nn/params.ts";

/** One part: its parsed config.json and, in messages, its name. */
export interface Part {
  json: unknown;
  name: string;
}

const decoderSchema = z.looseObject({
  model_type: z.literal("llama"),
  vocab_size: z.int().positive(),
  num_hidden_layers: z.int().positive(),
  tie_word_embeddings: z.boolean().default(false),
});
const towerSchema = z.looseObject({
  model_type: z.string(),
  vision_config: z.looseObject({}).optional(),
  vision_feature_layer: z.int().default(-2),
  vision_feature_select_strategy: z.enum(["default", "full"]).default("default"),
  vision_feature_merge: z.int().positive().default(1),
});

export interface Composition {
  config: Record<string, unknown>;
  /** Rows of the embeddings: the decoder's, and more where the image token lies behind them. */
  vocabulary: number;
  /** The decoder's own rows. */
  rows: number;
}

/** New rows of the embeddings come in such numbers, so that products keep widths that kernels are good at. */
const ROWS = 64;

export interface Shape {
  /** Neighbouring patches, merge x merge, that are one image token; the tower's own number unless told. */
  merge?: number;
  /** How many of the decoder's layers there are, from its first; all unless told. */
  layers?: number;
}

/**
 * The config.json of the two together.
 * @param tower a llava's config, or a CLIP's @param imageToken its id in the tokenizer
 * @throws InputError naming the file and the field that does not fit
 */
export function compositionOf(
  decoder: Part,
  tower: Part,
  imageToken: number,
  { merge, layers }: Shape = {},
): Composition {
  const text = parsed(decoderSchema, decoder), vision = parsed(towerSchema, tower);
  const isLlava = vision.model_type === "llava", rows = text.vocab_size, own = vision.vision_feature_merge;
  if (isLlava && !vision.vision_config) {
    throw new InputError(`Cannot use "${tower.name}": it has no "vision_config"`);
  }
  if (layers !== undefined && layers > text.num_hidden_layers) {
    throw new InputError(
      `Cannot use ${layers} layers of "${decoder.name}": its num_hidden_layers is ${text.num_hidden_layers}`,
    );
  }
  const vocabulary = imageToken < rows ? rows : Math.ceil((imageToken + 1) / ROWS) * ROWS;
  const { architectures: _, ...textConfig } = text, merged = merge ?? (isLlava ? own : 1);
  const config = {
    architectures: ["LlavaForConditionalGeneration"],
    model_type: "llava",
    image_token_index: imageToken,
    vision_feature_layer: vision.vision_feature_layer,
    vision_feature_select_strategy: vision.vision_feature_select_strategy,
    ...(merged > 1 && { vision_feature_merge: merged }),
    projector_hidden_act: "gelu",
    multimodal_projector_bias: true,
    tie_word_embeddings: text.tie_word_embeddings,
    vision_config: isLlava ? vision.vision_config : clipVision(tower.json, tower.name),
    text_config: {
      ...textConfig,
      vocab_size: vocabulary,
      num_hidden_layers: layers ?? text.num_hidden_layers,
    },
  };
  createModel(config); // sizes that do not fit together are refused before anything is read
  return { config, vocabulary, rows };
}

const TOWER = "model.vision_tower.",
  PROJECTOR = "model.multi_modal_projector.",
  HEADS = /embed_tokens|lm_head/;

/** Where weights come from; what has no source is drawn. */
export interface Sources {
  decoder: WeightSource;
  /** A CLIP, or a llava whose tower is taken. */
  tower?: WeightSource;
  /** A llava whose projector is taken. */
  projector?: WeightSource;
}

/**
 * Every tensor of the composed model, read or drawn while it is written. What is drawn follows from seed and name.
 * @throws InputError naming a tensor that a part does not have, or that has another shape there
 */
export async function composedTensors(
  { config, rows }: Composition,
  { decoder, tower, projector }: Sources,
  seed: number,
): Promise<StreamedTensor[]> {
  const model = createModel(config), { registry } = model, random = new Random(seed, "compose");
  const inLlava = (name: string) => model.rename(name) ?? name;
  const ofDecoder = namesOf(
    decoder,
    (name) => name.replace(/^model\.(?!language_model\.)/, "model.language_model."),
  );
  const ofTower = tower &&
    namesOf(
      tower,
      (name) => inLlava(name).startsWith(TOWER) ? inLlava(name) : TOWER + name.replace(/^vision_model\./, ""),
    );
  const ofProjector = projector && namesOf(projector, inLlava);
  const words = await tableOf(decoder, ofDecoder.get("model.language_model.embed_tokens.weight"));
  const problems: string[] = [];
  const tensors = [...registry.params.values()].map((param): StreamedTensor => {
    const { name, shape } = param, isTower = name.startsWith(TOWER), isProjector = name.startsWith(PROJECTOR);
    const draw = () =>
      isProjector
        ? projectorValues(param, random.split(name), words.rms)
        : towerValues(param, random.split(name));
    const source = isTower ? tower : isProjector ? projector : decoder;
    if (!source) return drawn(param, draw);
    const from = (isTower ? ofTower! : isProjector ? ofProjector! : ofDecoder).get(name);
    if (from === undefined && isWanted(param)) problems.push(`"${source.name}" has no tensor for "${name}"`);
    // A norm that never computes is not in every checkpoint; transformers looks for it all the same.
    if (from === undefined) return drawn(param, draw);
    const isTable = HEADS.test(name),
      expected = isTable ? [rows, shape[1]] : shape,
      found = source.shape(from);
    if (found.join() !== expected.join()) {
      problems.push(
        `"${from}" of "${source.name}" is (${found.join(", ")}), expected (${expected.join(", ")})`,
      );
    }
    return isTable && shape[0] > rows ? longer(param, source, from) : copied(param, source, from);
  });
  if (problems.length) {
    throw new InputError(
      `Cannot compose: ${problems.slice(0, 12).join("; ")}${problems.length > 12 ? "; ..." : ""}`,
    );
  }
  return tensors;
}

/** Names in the new model -> names in the source. */
const namesOf = (source: WeightSource, rename: (name: string) => string) =>
  new Map(source.names().map((name) => [rename(name), name]));

const floatOf = (source: WeightSource, name: string): FloatDtype => {
  const dtype = source.dtype(name);
  return dtype === "BF16" || dtype === "F16" ? dtype : "F32";
};

function drawn({ name, shape }: Param, values: () => Float32Array<ArrayBuffer>): StreamedTensor {
  return {
    name,
    shape: [...shape],
    dtype: "F32",
    async *chunks() {
      yield await Promise.resolve(encodeFloats(values(), "F32", name));
    },
  };
}

function copied({ name, shape }: Param, source: WeightSource, from: string): StreamedTensor {
  const dtype = floatOf(source, from);
  return {
    ...{ name, shape: [...shape], dtype },
    async *chunks() {
      yield encodeFloats(await source.f32(from), dtype, name);
    },
  };
}

/** With more rows, each the mean of those that are there: new tokens look like no word in particular. */
function longer({ name, shape: [rows, width] }: Param, source: WeightSource, from: string): StreamedTensor {
  const dtype = floatOf(source, from);
  return {
    ...{ name, shape: [rows, width], dtype },
    async *chunks() {
      const values = await source.f32(from), have = values.length / width, sum = new Float64Array(width);
      values.forEach((value, i) => sum[i % width] += value);
      yield encodeFloats(values, dtype, name);
      const mean = Float32Array.from(sum, (total) => total / have);
      for (let row = have; row < rows; row++) yield encodeFloats(mean, dtype, name);
    },
  };
}

/** The root mean square of the words' embeddings. */
async function tableOf(source: WeightSource, name: string | undefined): Promise<{ rms: number }> {
  if (name === undefined) throw new InputError(`Cannot compose: "${source.name}" has no embeddings`);
  const values = await source.f32(name);
  return { rms: Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length) };
}

const normals = (count: number, deviation: number, random: Random) =>
  Float32Array.from({ length: count }, () => deviation * random.normal());

/**
 * The projector's start: variances kept by the first layer, and a second one after which an image token is about as large
 * as a word (a gelu of normal inputs has a mean square near 0.43).
 */
function projectorValues({ name, shape }: Param, random: Random, rms: number): Float32Array<ArrayBuffer> {
  if (name.endsWith(".bias")) return new Float32Array(sizeOf(shape));
  const keep = 1 / Math.sqrt(shape[1]), GELU = 0.425;
  return normals(sizeOf(shape), name.includes("linear_2") ? rms * keep / Math.sqrt(GELU) : keep, random);
}

/** A tower before any training: norms that do nothing, products that keep variances, small places. */
function towerValues({ name, shape }: Param, random: Random): Float32Array<ArrayBuffer> {
  const size = sizeOf(shape);
  if (name.endsWith(".bias")) return new Float32Array(size);
  if (/norm\d?\.weight$/.test(name)) return new Float32Array(size).fill(1);
  const isTable = name.includes("position_embedding") || name.includes("class_embedding");
  const width = isTable ? shape.at(-1)! : sizeOf(shape.slice(1));
  return normals(size, 1 / Math.sqrt(width), random);
}

function parsed<S extends z.ZodType>(schema: S, { json, name }: Part): z.infer<S> {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  throw new InputError(`Cannot use "${name}" as a part of a llava: ${issueOf(result.error)}`);
}
