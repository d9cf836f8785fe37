/**
 * Packing: several encoded samples laid end to end as one micro-batch, without padding. Refuses a sample whose image
 * tokens and image features disagree, and one that has nothing to learn from.
 */
import { InputError } from "../errors.ts";
import type { Processed } from "../image/processors.ts";

/** A sample ready for a model: token ids, labels (-100 where nothing is learnt), its pictures in order. */
export interface EncodedSample {
  id: string;
  ids: number[];
  labels: number[];
  images: Processed[];
}

export interface PackedBatch {
  sampleIds: string[];
  /** (T) token ids. */
  ids: Uint32Array<ArrayBuffer>;
  /** S + 1 starts of the samples. */
  starts: number[];
  /** (T) position inside the sample, or where it goes on from another. */
  positions: number[];
  /** Where samples go on from cached ones: tokens of the prompt that each goes on from. */
  promptTokens?: number[];
  /** (T) row of the image features that replaces the token, or -1. */
  source: Int32Array<ArrayBuffer>;
  isImage: Uint8Array;
  images: Processed[];
  /** Rows that predict, and what: the label of the next token. */
  rows: Uint32Array<ArrayBuffer>;
  targets: Uint32Array<ArrayBuffer>;
  /** The sample of every supervised row. */
  rowSample: number[];
}

/**
 * Where image features go: in place of a token, one feature each; or in place of whatever stands between two tokens,
 * which must be as many as a picture has features.
 */
export type ImageMarker = number | { start: number; end: number; features: number };

export interface PackOptions {
  imageToken?: ImageMarker;
  /** Feature rows that a picture becomes. */
  featuresOf?: (image: Processed) => number;
  /** Refuse samples without a supervised token; extraction switches it off. */
  supervised?: boolean;
}

/** @throws InputError naming the sample that does not fit */
export function pack(samples: readonly EncodedSample[], options: PackOptions): PackedBatch {
  const { imageToken, featuresOf = () => 0, supervised = true } = options;
  const total = samples.reduce((sum, { ids }) => sum + ids.length, 0);
  const batch: PackedBatch = {
    sampleIds: samples.map(({ id }) => id),
    ids: new Uint32Array(total),
    starts: [0],
    positions: [],
    source: new Int32Array(total).fill(-1),
    isImage: new Uint8Array(total),
    images: [],
    rows: new Uint32Array(0),
    targets: new Uint32Array(0),
    rowSample: [],
  };
  const rows: number[] = [], targets: number[] = [];
  let at = 0, feature = 0;
  samples.forEach(({ id, ids, labels, images }, s) => {
    if (labels.length !== ids.length) {
      throw new InputError(`Cannot pack sample "${id}": ${ids.length} tokens, ${labels.length} labels`);
    }
    const features = images.reduce((sum, image) => sum + featuresOf(image), 0);
    const isImage = imageRows(id, ids, imageToken);
    const tokens = isImage.reduce((sum, is) => sum + is, 0);
    if (tokens !== features) {
      throw new InputError(
        `Cannot pack sample "${id}": ${tokens} image tokens for ${images.length} pictures with ${features} features`,
      );
    }
    const learnt = rows.length;
    ids.forEach((token, i) => {
      batch.ids[at + i] = token;
      batch.positions.push(i);
      if (isImage[i]) {
        batch.source[at + i] = feature++;
        batch.isImage[at + i] = 1;
      }
      if (i > 0 && labels[i] !== -100) {
        rows.push(at + i - 1);
        targets.push(labels[i]);
        batch.rowSample.push(s);
      }
    });
    if (supervised && rows.length === learnt) {
      throw new InputError(`Cannot train on sample "${id}": no token of it is supervised`);
    }
    batch.images.push(...images);
    at += ids.length;
    batch.starts.push(at);
  });
  batch.rows = Uint32Array.from(rows);
  batch.targets = Uint32Array.from(targets);
  return batch;
}

/** 1 for every token that a feature replaces. @throws InputError for a tag without its other, or another length between */
function imageRows(sample: string, ids: readonly number[], marker?: ImageMarker): Uint8Array {
  const rows = new Uint8Array(ids.length);
  if (marker === undefined) return rows;
  if (typeof marker === "number") return rows.map((_, i) => ids[i] === marker ? 1 : 0);
  const { start, end, features } = marker;
  const tags = [...ids.keys()].filter((i) => ids[i] === start || ids[i] === end);
  for (let t = 0; t < tags.length; t += 2) {
    const open = tags[t], close = tags[t + 1];
    if (ids[open] !== start || ids[close] !== end || close - open !== features + 1) {
      throw new InputError(
        `Cannot pack sample "${sample}": tag ${
          ids[open]
        } at token ${open}, expected ${start}, ${features} image tokens and ${end}`,
      );
    }
    rows.fill(1, open + 1, close);
  }
  return rows;
}
