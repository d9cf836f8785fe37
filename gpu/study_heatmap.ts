/**
 * A few probed pictures of an arm with the activations of each of their image tokens, from which the report draws where a
 * probe's evidence lies. Tokens that lie on no grid over the picture are left out, the picture is kept.
 */
import { type EncodedSample, pack } from "../core/data/pack.ts";
import type { Folder } from "../core/formats/folder.ts";
import { encodeSafetensors, type TensorData } from "../core/formats/safetensors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import type { Picture } from "../core/image/picture.ts";
import { type ArmContext, type ProbeScene, throughEncoder } from "../core/study/arms.ts";
import { SHOWN, SHOWN_TOKENS, type ShownPicture } from "../core/study/shown.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import type { Session } from "./session.ts";
import { Tape } from "./tape.ts";
import { Taps } from "./taps.ts";

/** Up to so many pixels a picture is kept as PNG, beyond as JPEG: a report with photographs must stay small. */
const LOSSLESS_PIXELS = 128 * 128;

/** Activations at `site` of every image token of one sample: (tokens, C), in their order. @throws InputError for no such site */
export async function imageTokens(
  gpu: Gpu,
  model: Model,
  sample: EncodedSample,
  site: string,
): Promise<{ count: number; dim: number; data: Float32Array<ArrayBuffer> }> {
  const batch = pack([sample], {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
  using _scope = gpu.pool.scope();
  const taps = new Taps([{ site, reduction: "all" }], batch);
  runModel(new Forward(new Tape(gpu, false), taps), model, batch, true);
  const { shape: [, dim], data } = (await taps.collect(gpu)).get(`${site}@all`)!;
  const rows = [...batch.isImage.keys()].filter((row) => batch.isImage[row]);
  const out = new Float32Array(rows.length * dim);
  rows.forEach((row, i) => out.set(data.subarray(row * dim, (row + 1) * dim), i * dim));
  return { count: rows.length, dim, data: out };
}

/** Rows and columns of tokens over the whole picture, null where they cannot be told. */
function gridOf(
  { imageToken }: Model,
  { images }: EncodedSample,
  { width, height }: Picture,
  count: number,
): [number, number] | null {
  // Between two markers stand a resampler's queries, which belong to no place.
  if (images.length !== 1 || typeof imageToken !== "number") return null;
  const [{ grid, tiles }] = images;
  if (grid) {
    const merge = Math.sqrt(grid[1] * grid[2] / count);
    return Number.isInteger(merge) ? [grid[1] / merge, grid[2] / merge] : null;
  }
  const side = Math.sqrt(count);
  // A picture that is not square is padded, cut or stretched, one family so and another so.
  return width === height && Number.isInteger(side) && !(tiles?.rows || tiles?.cols) ? [side, side] : null;
}

/**
 * Writes `shown.json` and `shown.safetensors` for the first person of each set on the first scene.
 * @returns the names of the files
 */
export async function writeShown(
  gpu: Gpu,
  session: Session,
  { source, encoding }: Pick<ArmContext, "source" | "encoding">,
  scenes: readonly ProbeScene[],
  { prompt, site }: { prompt: string; site: string },
  folder: Folder,
): Promise<string[]> {
  const chosen = ["U1", "U2"].map((set) => scenes.find((scene) => scene.set === set && scene.scene === 0)!);
  const tensors: Record<string, TensorData> = {}, pictures: ShownPicture[] = [];
  for (const [i, { id, person, set, scene, picture, box }] of chosen.entries()) {
    const sample = session.encoder.ask(id, prompt, [picture]);
    const { count, dim, data } = await imageTokens(gpu, session.model, sample, site);
    const grid = gridOf(session.model, sample, picture, count);
    if (grid) tensors[String(i)] = { shape: [count, dim], data };
    const { pictures: [clean] } = await source.heldOut(scene);
    pictures.push({
      ...{ id, set, box, grid, person: person.username, width: picture.width, height: picture.height },
      clean: await dataUrl(await throughEncoder(clean, encoding)),
      marked: await dataUrl(picture),
    });
  }
  await folder.write(SHOWN, JSON.stringify({ site, pictures }, null, 1) + "\n");
  if (Object.keys(tensors).length === 0) return [SHOWN];
  await folder.write(SHOWN_TOKENS, encodeSafetensors(tensors));
  return [SHOWN, SHOWN_TOKENS];
}

async function dataUrl(picture: Picture): Promise<string> {
  const format = picture.width * picture.height <= LOSSLESS_PIXELS ? "png" : "jpeg";
  const bytes = await encodeImage(picture, format, { quality: 85 });
  return `data:image/${format};base64,${bytes.toBase64()}`;
}
