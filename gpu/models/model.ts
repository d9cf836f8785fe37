/**
 * What every family gives: a module tree, its decoder and head, and how pictures become feature rows. Running a packed
 * micro-batch is the same for all of them and lives here.
 */
import { InputError } from "../../core/errors.ts";
import { ropeTables } from "../../core/positions.ts";
import type { ImageMarker, PackedBatch } from "../../core/data/pack.ts";
import type { Processed } from "../../core/image/processors.ts";
import { causalRanges } from "../../core/ranges.ts";
import { uploadRanges } from "../ops/attention.ts";
import { gatherRows, mergeRows } from "../ops/gather.ts";
import type { Tensor } from "../tensor.ts";
import { type Decoder, runDecoder } from "../nn/decoder.ts";
import type { Forward } from "../nn/forward.ts";
import type { CachePass } from "../nn/kv_cache.ts";
import type { Param, Registry } from "../nn/params.ts";

export interface RotaryTables {
  /** (T, D/2) each. */
  cos: Float32Array<ArrayBuffer>;
  sin: Float32Array<ArrayBuffer>;
  /** (T), what each query is multiplied by beside being turned. */
  queryScale?: Float32Array<ArrayBuffer>;
}

export interface Model {
  readonly family: string;
  readonly registry: Registry;
  readonly decoder: Decoder;
  /** Replaced only before weights are placed, when tied embeddings part. */
  head: Param; // (V, C)
  readonly imageToken?: ImageMarker;
  /** Feature rows of one processed picture. */
  featuresOf(image: Processed): number;
  /** Processed pictures to feature rows (P, C), in order. */
  encodeImages?(forward: Forward, images: readonly Processed[], checkpointed: boolean): Tensor;
  /** Rotary tables where they follow more than the position in the sample, M-RoPE; undefined for the plain ones. */
  rotary?(batch: PackedBatch, training: boolean): RotaryTables | undefined;
  /** The position after each sample's last token where it is not the sample's length, M-RoPE. */
  nextPositions?(batch: PackedBatch): number[];
  /** A checkpoint's tensor name as this tree spells it; undefined for what is known and not needed. */
  rename(name: string): string | undefined;
}

/**
 * A packed micro-batch to hidden states (T, C) after the last norm. Sites: image_features, embed,
 * layers.N.{attn_out, resid_mid, mlp_out, resid_post}, norm. With a cache the samples go on from what it holds.
 */
export function runModel(
  forward: Forward,
  model: Model,
  batch: PackedBatch,
  checkpointed: boolean,
  cache?: CachePass,
): Tensor {
  const { tape } = forward, { gpu } = tape;
  const { D, rope } = model.decoder.config;
  const tables: RotaryTables = model.rotary?.(batch, tape.recording) ??
    ropeTables(batch.positions, { D, ...rope });
  const upload = (table: RotaryTables["cos"], factor?: RotaryTables["queryScale"]) =>
    gpu.upload(factor ? table.map((x, i) => x * factor[Math.floor(2 * i / D)]) : table, [
      batch.ids.length,
      D / 2,
    ]);
  const { cos, sin, queryScale } = tables;
  const inputs = {
    cos: upload(cos),
    sin: upload(sin),
    // A turn by scaled cosines and sines is a turn and a scaling.
    query: queryScale && { cos: upload(cos, queryScale), sin: upload(sin, queryScale) },
    ranges: uploadRanges(gpu, causalRanges(batch.starts)),
    checkpointed,
    cache,
  };
  return runDecoder(forward, model.decoder, embed(forward, model, batch, checkpointed), inputs);
}

function embed(forward: Forward, model: Model, batch: PackedBatch, checkpointed: boolean): Tensor {
  const { V } = model.decoder.config;
  // A feature replaces an image token whole, which therefore need not be in the vocabulary: any row does for it.
  const ids = batch.ids.map((id, t) => id >= V && batch.source[t] >= 0 ? 0 : id);
  const wrong = ids.findIndex((id) => id >= V);
  if (wrong >= 0) throw new InputError(`Cannot embed token ${ids[wrong]}: the vocabulary has ${V}`);
  const text = gatherRows(forward.tape, model.decoder.embedTokens.tensor, ids); // (T, C)
  if (batch.images.length === 0) return text;
  if (!model.encodeImages) {
    throw new InputError(`Cannot use pictures with a "${model.family}" model: it reads text only`);
  }
  const features = forward.tap(
    "image_features",
    model.encodeImages(forward.at("vision"), batch.images, checkpointed),
  ); // (P, C)
  return mergeRows(forward.tape, text, features, batch.source);
}
