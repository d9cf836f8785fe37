/**
 * One image of a folder: read, watermarked, written; done images of an earlier run are recognised by their hashes.
 * An image that is broken or lies outside the folder, also by a link, gives a reason back; wrong settings throw.
 */
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { sha256 } from "../core/formats/manifest.ts";
import type { ImageFormat } from "../core/image/header.ts";
import { ImageError } from "../core/image/image_error.ts";
import { createWatermarker, type MarkPlan, type MarkRecord, watermarkImage } from "../core/privacy/mark.ts";
import { createTextRenderer } from "../core/privacy/text_renderer.ts";
import type { WatermarkOptions } from "../core/privacy/watermark.ts";
import { writeFile } from "./folder.ts";
import { readFontFiles } from "./fonts.ts";

/** What is the same for every image; plain data, so that it can be sent to a worker. */
export interface FileSettings {
  images: string;
  /** The folder that receives the images under their own names. */
  out: string;
  watermark: WatermarkOptions;
  plan: Omit<MarkPlan, "name">;
}

/** A line of manifest.jsonl; `source` only where another format changed the image's name. */
export type FileRecord = MarkRecord & { source?: string };

export type Outcome = { record: FileRecord } | { broken: string };

/** Handles one image by name; `done` is its record from an earlier run, trusted only if both files agree with it. */
export type MarkFile = (name: string, done?: FileRecord) => Promise<Outcome>;

/** The name an image gets in a format: its own, or with the extension exchanged. */
export function nameInFormat(name: string, format: "keep" | ImageFormat): string {
  if (format === "keep") return name;
  const extension = { png: ".png", jpeg: ".jpg", webp: ".webp" }[format];
  const own = /\.[^./]+$/.exec(name)?.[0] ?? "";
  if (own.toLowerCase() === extension || (format === "jpeg" && own.toLowerCase() === ".jpeg")) return name;
  return name.slice(0, name.length - own.length) + extension;
}

/** Opens fonts once and returns the function that every image goes through. */
export async function openMarkFile(settings: FileSettings): Promise<MarkFile> {
  const { images, out, watermark, plan } = settings;
  const text = watermark.font === "sans" ? await createTextRenderer(await readFontFiles()) : undefined;
  const watermarker = await createWatermarker(watermark, text);
  const root = await Deno.realPath(images);
  return async (name, done) => {
    try {
      const before = await readInside(root, name);
      const image = nameInFormat(name, plan.format);
      if (done && done.before === await sha256(before)) {
        const after = await Deno.readFile(join(out, image)).catch(() => undefined);
        if (after && done.after === await sha256(after)) return { record: done };
      }
      const { bytes, record } = await watermarkImage(before, watermarker, { ...plan, name });
      await writeFile(join(out, image), bytes);
      return { record: image === name ? record : { ...record, image, source: name } };
    } catch (error) {
      if (error instanceof ImageError || error instanceof UnreadableError) return { broken: error.message };
      // A font without a letter, a fixed place outside the picture: the settings are wrong, not the image.
      if (error instanceof InputError) throw new InputError(`${error.message} (image "${name}")`);
      throw error;
    }
  };
}

/** An image that is not there or may not be opened: it counts as broken. */
class UnreadableError extends InputError {}

/** The file's bytes. @throws UnreadableError when it is missing or, links followed, not inside `root` */
async function readInside(root: string, name: string): Promise<Uint8Array<ArrayBuffer>> {
  const path = await Deno.realPath(join(root, name)).catch(() => {
    throw new UnreadableError(`Cannot open "${name}": no such file`);
  });
  if (!path.startsWith(`${root}/`)) {
    throw new UnreadableError(`Cannot open "${name}": it leads out of the image folder`);
  }
  return await Deno.readFile(path).catch((error) => {
    throw new UnreadableError(`Cannot read "${name}": ${error.message}`);
  });
}
