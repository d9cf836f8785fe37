/**
 * What an exported encoder changes: its activations and scores beside those of Afterimage's own forward pass, picture by
 * picture. Pictures that the encoder does not take are counted and left out; refuses a folder without pictures.
 */
import { InputError } from "../core/errors.ts";
import { decodeImage } from "../core/image/codecs.ts";
import { ImageError } from "../core/image/image_error.ts";
import type { Picture } from "../core/image/picture.ts";
import type { Effect } from "../core/onnx/spec.ts";
import { scoreProbe, type StoredProbe } from "../core/probe/stored.ts";
import type { OnnxModel } from "../functions/onnx_encoder.ts";
import { DiskFolder } from "./folder.ts";

export type Activations = Record<string, Float32Array>;

/** A picture and what the model itself makes of it. */
export interface Measured {
  picture: Picture;
  own: Activations;
}

/** At most `limit` pictures of a folder, by name. @throws InputError when there is none */
export async function picturesIn(path: string, limit: number): Promise<Picture[]> {
  const folder = new DiskFolder(path), pictures: Picture[] = [];
  for (
    const name of (await folder.list()).filter((name) => /\.(png|jpe?g|webp)$/i.test(name)).slice(0, limit)
  ) {
    pictures.push(await decodeImage(await folder.read(name), { name: `${path}/${name}` }));
  }
  if (pictures.length === 0) {
    throw new InputError(`Cannot measure on "${path}": it has no PNG, JPEG or WebP file`);
  }
  return pictures;
}

/** Runs the exported model over the pictures. @throws InputError when it takes none of them */
export async function measureEffect(
  model: OnnxModel,
  probe: StoredProbe,
  pictures: readonly Measured[],
): Promise<{ effect: Effect; leftOut: number }> {
  const features = probe.layers.map(({ feature }) => feature);
  const found: { own: Activations; theirs: Activations }[] = [];
  for (const { picture, own } of pictures) {
    try {
      found.push({ own, theirs: await model.encode(picture, features) });
    } catch (thrown) {
      if (!(thrown instanceof ImageError)) throw thrown;
    }
  }
  if (found.length === 0) throw new InputError("Cannot measure: the encoder takes none of these pictures");
  return { effect: effectOf(probe, found), leftOut: pictures.length - found.length };
}

/** Differences of activations and of scores. */
export function effectOf(
  probe: StoredProbe,
  found: readonly { own: Activations; theirs: Activations }[],
): Effect {
  const rows = found.map(({ own, theirs }) => ({
    rel: Math.max(...probe.layers.map(({ feature }) => relative(theirs[feature], own[feature]))),
    own: scoreProbe(probe, own).map(({ score }) => score),
    theirs: scoreProbe(probe, theirs).map(({ score }) => score),
  }));
  const primary = probe.layers.findIndex(({ feature }) => feature === probe.primary);
  const spread = (layers: number[]) => {
    const off = rows.flatMap(({ own, theirs }) =>
      layers.map((layer) => Math.abs(own[layer] - theirs[layer]))
    );
    return { max: Math.max(...off), mean: off.reduce((sum, x) => sum + x, 0) / off.length };
  };
  const flips = (threshold: number | null | undefined) =>
    threshold === null || threshold === undefined
      ? null
      : rows.filter(({ own, theirs }) => own[primary] > threshold !== theirs[primary] > threshold).length;
  const { threshold } = probe.layers[primary];
  return {
    pictures: rows.length,
    activations_rel: Math.max(...rows.map(({ rel }) => rel)),
    log_odds: spread([...probe.layers.keys()]),
    primary: spread([primary]),
    flips: { fpr01: flips(threshold?.fpr01), fpr001: flips(threshold?.fpr001) },
  };
}

/** ||theirs - own|| / ||own||. */
function relative(theirs: Float32Array, own: Float32Array): number {
  let difference = 0, norm = 0;
  own.forEach((value, i) => {
    difference += (theirs[i] - value) ** 2;
    norm += value ** 2;
  });
  return Math.sqrt(difference / norm);
}
