/**
 * Whether a merged checkpoint computes what base and adapter computed: logits on drawn tokens and one drawn picture.
 * It measures; what difference is too large depends on the number type and is said here.
 */
import { pack, type PackedBatch } from "../core/data/pack.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import type { FloatDtype } from "../core/formats/shards.ts";
import { createProcessor } from "../core/image/processors.ts";
import { Random } from "../core/random.ts";
import { logitsOf } from "./logits.ts";
import type { Model } from "./models/model.ts";
import { relative } from "./parity.ts";
import type { Tuned } from "./session.ts";

/**
 * The largest relative difference of logits that rounding explains: a thousand roundings of f32; of the others four
 * times what rounding all weights of small models of every family was measured to do.
 */
export const TOLERANCE: Record<FloatDtype, number> = { F32: 1e-4, F16: 4e-3, BF16: 3e-2 };

const TOKENS = 24, WIDTH = 96, HEIGHT = 64;

/** Drawn tokens, and in front of them a drawn picture where the folder has a processor. */
export async function checkBatch(model: Model, base: Folder): Promise<PackedBatch> {
  const name = "preprocessor_config.json", random = new Random(0, "merge check");
  const images = [], { imageToken: marker } = model, special = new Set<number>();
  const ids: number[] = [];
  if (marker !== undefined && model.encodeImages && await base.exists(name)) {
    const data = Uint8Array.from({ length: WIDTH * HEIGHT * 3 }, (_, i) => (i * 7 + (i >> 7) * 31) % 256);
    const image = createProcessor(await readJson(base, name), name).process({
      width: WIDTH,
      height: HEIGHT,
      data,
    });
    images.push(image);
    const features = new Array<number>(model.featuresOf(image));
    if (typeof marker === "number") ids.push(...features.fill(marker));
    else ids.push(marker.start, ...features.fill(marker.end + 1), marker.end);
  }
  if (typeof marker === "number") special.add(marker);
  else if (marker) { for (const id of [marker.start, marker.end]) special.add(id); }
  const { V } = model.decoder.config;
  for (let i = 0; i < TOKENS; i++) {
    let id = random.int(V);
    while (special.has(id)) id = random.int(V);
    ids.push(id);
  }
  const sample = { id: "merge check", ids, labels: ids.map(() => -100), images };
  return pack([sample], {
    imageToken: marker,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
}

/** Logits of the check with and without the adapters. */
export async function checkLogits(
  tuned: Tuned,
  batch: PackedBatch,
): Promise<{ logits: Float32Array; effect: number }> {
  const logits = await logitsOf(tuned, batch), { linears } = tuned.model.registry;
  const adapted = [...linears.values()].map((layer) => ({ layer, adapter: layer.adapter }));
  for (const { layer } of adapted) layer.adapter = undefined;
  const without = await logitsOf(tuned, batch);
  for (const { layer, adapter } of adapted) layer.adapter = adapter;
  return { logits, effect: relative(logits, without) };
}
