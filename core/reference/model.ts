/**
 * The loss of a whole llama or LLaVA model in f64 on plain arrays, the truth that gradients are held against.
 * Refuses a weight that is missing; shapes are the caller's word.
 */
import type { PackedBatch } from "../data/pack.ts";
import { adapterKey } from "../formats/peft.ts";
import { toPatches } from "../image/processors.ts";
import { ropeTables } from "../positions.ts";
import { causalRanges, fullRanges } from "../ranges.ts";
import { activateReference, rotaryReference, swigluReference } from "./activation.ts";
import { attentionReference } from "./attention.ts";
import { crossEntropyReference } from "./loss.ts";
import { layernormReference, rmsnormReference } from "./norm.ts";
import { gatherRowsReference, mergeRowsReference } from "./rows.ts";

/** The fields of a config.json that the loss depends on, by Hugging Face's names; without vision a llama. */
export interface ReferenceConfig {
  text_config: {
    hidden_size: number;
    num_hidden_layers: number;
    num_attention_heads: number;
    num_key_value_heads: number;
    rms_norm_eps: number;
    rope_parameters: { rope_theta: number };
    tie_word_embeddings: boolean;
  };
  vision_config?: {
    hidden_size: number;
    num_hidden_layers: number;
    num_attention_heads: number;
    image_size: number;
    patch_size: number;
    layer_norm_eps: number;
  };
  /** Counted from the end: -1 is the last. */
  vision_feature_layer?: number;
  vision_feature_merge?: number;
}

/** Values by name, adapters under peft's names; the adapters' product is scaled by `scaling`. */
export interface ReferenceWeights {
  values: ReadonlyMap<string, Float64Array>;
  scaling: number;
}

/** The mean of -log p over all supervised rows of the batch. @throws Error naming a weight that is missing */
export function modelLossReference(
  config: ReferenceConfig,
  weights: ReferenceWeights,
  batch: PackedBatch,
): number {
  const { text_config: text, vision_config: vision } = config, C = text.hidden_size;
  const root = vision ? "model.language_model" : "model";
  const table = get(weights, `${root}.embed_tokens.weight`);
  let x = gatherRowsReference(table, batch.ids, C); // (T, C)
  if (batch.images.length) x = mergeRowsReference(x, imageFeatures(config, weights, batch), batch.source, C);
  const hidden = decode(text, weights, root, x, batch); // (T, C)
  const head = text.tie_word_embeddings ? table : get(weights, "lm_head.weight");
  const losses = crossEntropyReference(hidden, head, { C, rows: batch.rows, targets: batch.targets });
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

function decode(
  text: ReferenceConfig["text_config"],
  weights: ReferenceWeights,
  root: string,
  embedded: Float64Array,
  batch: PackedBatch,
): Float64Array {
  const { hidden_size: C, num_attention_heads: H, num_key_value_heads: K } = text;
  const T = batch.ids.length, D = C / H, norm = { T, C, eps: text.rms_norm_eps };
  const tables = ropeTables(batch.positions, { D, theta: text.rope_parameters.rope_theta });
  const cos = Float64Array.from(tables.cos), sin = Float64Array.from(tables.sin);
  const seen = causalRanges(batch.starts);
  let x = embedded;
  for (let i = 0; i < text.num_hidden_layers; i++) {
    const at = `${root}.layers.${i}`;
    const h = rmsnormReference(x, get(weights, `${at}.input_layernorm.weight`), norm);
    const q = rotaryReference(linear(weights, `${at}.self_attn.q_proj`, h, T), cos, sin, { T, H, D });
    const k = rotaryReference(linear(weights, `${at}.self_attn.k_proj`, h, T), cos, sin, { T, H: K, D });
    const v = linear(weights, `${at}.self_attn.v_proj`, h, T);
    const mixed = attentionReference(q, k, v, seen, { H, K, D });
    const middle = sum(x, linear(weights, `${at}.self_attn.o_proj`, mixed, T));
    const n = rmsnormReference(middle, get(weights, `${at}.post_attention_layernorm.weight`), norm);
    const inner = swigluReference(
      linear(weights, `${at}.mlp.gate_proj`, n, T),
      linear(weights, `${at}.mlp.up_proj`, n, T),
    );
    x = sum(middle, linear(weights, `${at}.mlp.down_proj`, inner, T));
  }
  return rmsnormReference(x, get(weights, `${root}.norm.weight`), norm);
}

/** Feature rows of all pictures: the CLIP tower up to the chosen layer, patches joined, then the projector. */
function imageFeatures(config: ReferenceConfig, weights: ReferenceWeights, batch: PackedBatch): Float64Array {
  const vision = config.vision_config!, tower = "model.vision_tower";
  const { hidden_size: C, num_attention_heads: H, patch_size: p } = vision;
  const side = Math.floor(vision.image_size / p), P = side * side, n = batch.images.length, T = n * (P + 1);
  const patches = Float64Array.from(
    batch.images.flatMap(({ pixelValues, shape }) => [...toPatches(pixelValues, shape, p)]),
  ); // (n*P, 3*p*p)
  const embedded = product(patches, get(weights, `${tower}.embeddings.patch_embedding.weight`), n * P);
  const first = get(weights, `${tower}.embeddings.class_embedding`);
  const places = get(weights, `${tower}.embeddings.position_embedding.weight`);
  let x: Float64Array = Float64Array.from({ length: T * C }, (_, i) => {
    const t = Math.floor(i / C), c = i % C, place = t % (P + 1);
    const token = place === 0 ? first[c] : embedded[(Math.floor(t / (P + 1)) * P + place - 1) * C + c];
    return token + places[place * C + c];
  }); // (n*(P+1), C)
  const norm = (at: string, x: Float64Array) =>
    layernormReference(x, get(weights, `${at}.weight`), get(weights, `${at}.bias`), {
      T,
      C,
      eps: vision.layer_norm_eps,
    });
  const seen = fullRanges(Array.from({ length: n + 1 }, (_, i) => i * (P + 1)));
  x = norm(`${tower}.pre_layrnorm`, x);
  const depth = vision.num_hidden_layers + 1 + (config.vision_feature_layer ?? -2);
  for (let i = 0; i < depth; i++) {
    const at = `${tower}.encoder.layers.${i}`, h = norm(`${at}.layer_norm1`, x);
    const [q, k, v] = ["q", "k", "v"].map((name) => linear(weights, `${at}.self_attn.${name}_proj`, h, T));
    const mixed = attentionReference(q, k, v, seen, { H, K: H, D: C / H });
    const middle = sum(x, linear(weights, `${at}.self_attn.out_proj`, mixed, T));
    const inner = linear(weights, `${at}.mlp.fc1`, norm(`${at}.layer_norm2`, middle), T);
    x = sum(middle, linear(weights, `${at}.mlp.fc2`, activateReference(inner, "quick_gelu"), T));
  }
  const merge = config.vision_feature_merge ?? 1, rows = n * P / merge ** 2;
  const joined = gatherRowsReference(x, patchOrder(n, side, merge), C); // read as (rows, merge*merge*C)
  const inner = linear(weights, "model.multi_modal_projector.linear_1", joined, rows);
  return linear(weights, "model.multi_modal_projector.linear_2", activateReference(inner, "gelu"), rows);
}

/** Rows of (n, 1 + side * side) tokens: merge x merge neighbours after each other, blocks in reading order. */
function patchOrder(n: number, side: number, merge: number): number[] {
  const blocks = side / merge, size = merge * merge;
  return Array.from({ length: n * side * side }, (_, i) => {
    const inside = i % size, block = Math.floor(i / size) % (blocks * blocks);
    const y = Math.floor(block / blocks) * merge + Math.floor(inside / merge);
    const x = block % blocks * merge + inside % merge;
    return Math.floor(i / (side * side)) * (side * side + 1) + 1 + y * side + x;
  });
}

/** x through a named layer with its bias and its adapter, where there are any. Hu et al. 2021 for the adapter. */
function linear({ values, scaling }: ReferenceWeights, name: string, x: Float64Array, rows: number) {
  const y = product(x, get({ values, scaling }, `${name}.weight`), rows);
  const bias = values.get(`${name}.bias`), a = values.get(adapterKey(name, "A"));
  const low = a && product(product(x, a, rows), get({ values, scaling }, adapterKey(name, "B")), rows);
  return y.map((value, i) => value + (bias ? bias[i % bias.length] : 0) + (low ? scaling * low[i] : 0));
}

/** x (rows, K) w (N, K)^T. */
function product(x: Float64Array, w: Float64Array, rows: number): Float64Array {
  const K = x.length / rows, N = w.length / K, y = new Float64Array(rows * N);
  for (let t = 0; t < rows; t++) {
    for (let n = 0; n < N; n++) {
      let dot = 0;
      for (let k = 0; k < K; k++) dot += x[t * K + k] * w[n * K + k];
      y[t * N + n] = dot;
    }
  }
  return y;
}

function sum(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]);
}

function get({ values }: ReferenceWeights, name: string): Float64Array {
  const found = values.get(name);
  if (!found) throw new Error(`Cannot compute the reference: weight "${name}" is missing`);
  return found;
}
