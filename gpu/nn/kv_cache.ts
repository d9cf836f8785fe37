/**
 * Keys and values that a decoder computed before, layer by layer, so that a next token costs one row and not all.
 * Sequences lie side by side with room of their own; a sequence that outgrows it moves the whole cache to larger buffers.
 */
import type { Gpu } from "../device.ts";
import {
  attention,
  type AttentionOptions,
  cachedAttention,
  type DeviceRanges,
  type PastKeys,
  uploadPairs,
} from "../ops/attention.ts";
import { storeRows } from "../ops/store_rows.ts";
import type { Tape } from "../tape.ts";
import { byteLength, type Tensor } from "../tensor.ts";

export interface KvCache {
  /** One pair a layer, (rows, K*D) each. */
  layers: { k: Tensor; v: Tensor }[];
  sequences: CachedSequence[];
}

export interface CachedSequence {
  /** Its rows of the cache, and how many of them hold tokens. */
  first: number;
  room: number;
  length: number;
}

/** What the tokens of one pass see of a cache and where their own keys and values go. */
export interface CachePass {
  layers: KvCache["layers"];
  /** Missing where no token sees anything of the cache. */
  past?: Pick<PastKeys, "lo" | "hi" | "ranges">;
  /** A row of the cache for each token; missing where nothing is to be kept. */
  places?: { rows: Uint32Array; list: Tensor };
}

/** An empty cache with room for so many tokens of each sequence; `closeCache` gives its buffers back. */
export function openCache(
  gpu: Gpu,
  { layers, K, D }: { layers: number; K: number; D: number },
  rooms: readonly number[],
): KvCache {
  let rows = 0;
  const sequences = rooms.map((room): CachedSequence => ({ first: (rows += room) - room, room, length: 0 }));
  const table = () => gpu.persistent([rows, K * D]);
  return { layers: Array.from({ length: layers }, () => ({ k: table(), v: table() })), sequences };
}

export function closeCache(gpu: Gpu, cache: KvCache): void {
  for (const { k, v } of cache.layers.splice(0)) {
    gpu.pool.release(k.buffer);
    gpu.pool.release(v.buffer);
  }
}

/** Makes room for `count` more tokens of the chosen sequences; where one has too little, every room is doubled. */
export function reserve(gpu: Gpu, cache: KvCache, chosen: readonly number[], count: number): void {
  if (chosen.every((s) => cache.sequences[s].length + count <= cache.sequences[s].room)) return;
  const rooms = cache.sequences.map(({ room, length }) => Math.max(2 * room, length + count));
  const [, width] = cache.layers[0].k.shape;
  const larger = openCache(gpu, { layers: cache.layers.length, K: 1, D: width }, rooms);
  const from = cache.layers.flatMap(({ k, v }) => [k, v]), to = larger.layers.flatMap(({ k, v }) => [k, v]);
  from.forEach((table, i) =>
    cache.sequences.forEach(({ first, length }, s) => {
      if (length) gpu.copy(rowsAt(table, first, length), rowsAt(to[i], larger.sequences[s].first, length));
    })
  );
  larger.sequences.forEach((sequence, s) => sequence.length = cache.sequences[s].length);
  closeCache(gpu, cache);
  Object.assign(cache, larger);
}

/** Rows as the ends of a copy, which may start at any word. */
function rowsAt(x: Tensor, start: number, count: number): Tensor {
  const [, C] = x.shape, bytes = byteLength([count, C], x.dtype);
  return { ...x, shape: [count, C], offset: x.offset + byteLength([start, C], x.dtype), bytes };
}

/**
 * A pass of counts[i] new tokens for sequence chosen[i], packed in that order, behind what is cached of it; `keep`
 * stores them there. The lists lie in the innermost scope. @throws RangeError where there is no room
 */
export function cachePass(
  gpu: Gpu,
  cache: KvCache,
  chosen: readonly number[],
  counts: readonly number[],
  keep: boolean,
): CachePass {
  const lo: number[] = [], hi: number[] = [], rows: number[] = [];
  chosen.forEach((s, i) => {
    const sequence = cache.sequences[s], { first, room, length } = sequence;
    if (keep && length + counts[i] > room) {
      throw new RangeError(
        `Cannot keep ${counts[i]} tokens more of sequence ${s}: ${length} of ${room} are used`,
      );
    }
    for (let t = 0; t < counts[i]; t++) {
      lo.push(first);
      hi.push(first + length);
      rows.push(first + length + t);
    }
    if (keep) sequence.length += counts[i];
  });
  const [from, to, places] = [lo, hi, rows].map((list) => Uint32Array.from(list));
  return {
    layers: cache.layers,
    past: from.some((start, t) => start < to[t])
      ? { lo: from, hi: to, ranges: uploadPairs(gpu, from, to) }
      : undefined,
    places: keep ? { rows: places, list: gpu.upload(places) } : undefined,
  };
}

/** Attention of one layer beside its cache: new keys and values are stored first, as far as the pass keeps them. */
export function attendBesideCache(
  tape: Tape,
  [q, k, v]: readonly [Tensor, Tensor, Tensor],
  ranges: DeviceRanges,
  pass: CachePass,
  layer: number,
  options: AttentionOptions,
): Tensor {
  const cached = pass.layers[layer], { past, places } = pass;
  if (places) storeRows(tape.gpu, [k, v], [cached.k, cached.v], places.rows, places.list);
  return past
    ? cachedAttention(tape, q, k, v, ranges, { ...cached, ...past }, options)
    : attention(tape, q, k, v, ranges, options);
}
