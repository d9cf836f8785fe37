/**
 * A data set in LLaVA's or Qwen-VL's format on the disk: records checked at once, pictures decoded when asked for.
 * Refuses pictures outside their folder, also through symbolic links.
 */
import { join } from "node:path";
import { checkImagePath } from "../core/data/paths.ts";
import { readSamples } from "../core/data/records.ts";
import type { Sample } from "../core/data/sample.ts";
import { InputError, messageOf } from "../core/errors.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { decodeImage } from "../core/image/codecs.ts";
import type { Picture } from "../core/image/picture.ts";

/** Offline tasks take larger pictures than the service does. */
const MAX_PIXELS = 64_000_000;

export interface Dataset {
  samples: Sample[];
  /** sha256 of the data file. */
  hash: string;
  /** In the order of its images. @throws InputError naming the sample and the file */
  pictures(sample: Sample): Promise<Picture[]>;
}

/** @throws InputError when the file is no data set or an image path is unsafe or missing */
export async function openDataset(file: string, images: string): Promise<Dataset> {
  const text = await Deno.readTextFile(file).catch((error) => {
    throw new InputError(
      `Cannot open "${file}": ${error instanceof Deno.errors.NotFound ? "no such file" : messageOf(error)}`,
    );
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read "${file}": ${messageOf(error)}`);
  }
  const samples = readSamples(json, file);
  if (samples.length === 0) throw new InputError(`Cannot use "${file}": it holds no records`);
  return {
    samples,
    hash: await sha256(text),
    pictures: ({ id, images: paths }) =>
      Promise.all(paths.map((path) => loadPicture(images, path, `sample "${id}"`))),
  };
}

/** One picture of a folder. @throws InputError naming the file */
export async function loadPicture(folder: string, name: string, where: string): Promise<Picture> {
  const path = join(folder, checkImagePath(name, where));
  const bytes = await readInside(folder, path, where);
  return await decodeImage(bytes, { name: path, maxPixels: MAX_PIXELS });
}

async function readInside(folder: string, path: string, where: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const [root, real] = [await Deno.realPath(folder), await Deno.realPath(path)];
    if (!real.startsWith(root + "/")) {
      throw new InputError(`Cannot open "${path}" of ${where}: it leads out of "${folder}"`);
    }
    return await Deno.readFile(real);
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(
      `Cannot open "${path}" of ${where}: ${
        error instanceof Deno.errors.NotFound ? "no such file" : messageOf(error)
      }`,
    );
  }
}
