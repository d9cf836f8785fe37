/**
 * `preprocessor_config.json` of the families, old and new spellings brought to one form with transformers' defaults.
 * Refuses processors, filters and sizes it does not know, naming file and field.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import type { Filter, PillowVersion } from "./resize.ts";

/** Which way a picture is brought to a model's size. */
export type ProcessorKind = "clip" | "llava" | "siglip" | "qwen_vl" | "qwen2_vl" | "idefics3";

const KINDS: Record<string, ProcessorKind> = {
  CLIPImageProcessor: "clip",
  CLIPFeatureExtractor: "clip",
  LlavaImageProcessor: "llava",
  SiglipImageProcessor: "siglip",
  QwenVLImageProcessor: "qwen_vl", // the 2023 model has no such file: its transform is fixed in its code
  Qwen2VLImageProcessor: "qwen2_vl",
  Qwen2_5_VLImageProcessor: "qwen2_vl",
  SmolVLMImageProcessor: "idefics3",
  Idefics3ImageProcessor: "idefics3",
};

/** Pillow's numbers for its filters. */
const RESAMPLE: Record<number, Filter> = { 1: "lanczos", 2: "bilinear", 3: "bicubic" };

const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073], CLIP_STD = [0.26862954, 0.26130258, 0.27577711];
const HALF = [0.5, 0.5, 0.5];

const size = z.union([
  z.number().int().positive(),
  z.object({
    shortest_edge: z.number().int().positive().optional(),
    longest_edge: z.number().int().positive().optional(),
    height: z.number().int().positive().optional(),
    width: z.number().int().positive().optional(),
  }),
]);
const triple = z.union([z.number().transform((x) => [x, x, x]), z.array(z.number()).length(3)]);
const flag = z.boolean().nullish();

const schema = z.object({
  image_processor_type: z.string().optional(),
  feature_extractor_type: z.string().optional(),
  do_resize: flag,
  do_center_crop: flag,
  do_pad: flag,
  do_rescale: flag,
  do_normalize: flag,
  do_image_splitting: flag,
  resample: z.number().int().optional(),
  size: size.nullish(),
  crop_size: size.nullish(),
  max_image_size: z.object({ longest_edge: z.number().int().positive() }).nullish(),
  rescale_factor: z.number().optional(),
  image_mean: triple.nullish(),
  image_std: triple.nullish(),
  min_pixels: z.number().int().positive().nullish(),
  max_pixels: z.number().int().positive().nullish(),
  patch_size: z.number().int().positive().nullish(),
  temporal_patch_size: z.number().int().positive().nullish(),
  merge_size: z.number().int().positive().nullish(),
});

export interface Size {
  shortest_edge?: number;
  longest_edge?: number;
  height?: number;
  width?: number;
}

/** Everything a processor does, nothing left to defaults. */
export interface ProcessorConfig {
  kind: ProcessorKind;
  /** For messages. */
  name: string;
  resize: boolean;
  size: Size;
  filter: Filter;
  pillow: PillowVersion;
  /** LLaVA: pad to a square of the mean colour first. */
  pad: boolean;
  /** Cut from the middle, pixels; undefined where nothing is cut. */
  crop?: { height: number; width: number };
  /** Idefics3 and SmolVLM: cut into tiles of this many pixels a side, and whether to. */
  tile: number;
  split: boolean;
  /** What a pixel is multiplied by; 1 when it is left in 0..255. */
  rescale: number;
  mean: number[];
  std: number[];
  /** Qwen2-VL: pixels a patch, patches merged a side, frames a patch spans. */
  patch: number;
  merge: number;
  frames: number;
}

/** Reads a parsed `preprocessor_config.json`; `name` is the file's. @throws InputError naming file and field */
export function readProcessorConfig(
  json: unknown,
  name: string,
  pillow: PillowVersion = 12,
): ProcessorConfig {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InputError(`Cannot use "${name}": "${issue.path.join(".")}": ${issue.message}`);
  }
  const config = parsed.data;
  const type = config.image_processor_type ?? config.feature_extractor_type ?? "";
  const kind = KINDS[type.replace(/(Fast|Pil)$/, "")];
  if (!kind) {
    throw new InputError(
      `Cannot use "${name}": "image_processor_type" is "${type}", expected one of ${
        Object.keys(KINDS).join(", ")
      }`,
    );
  }
  const cropped = kind === "clip" || kind === "llava", idefics = kind === "idefics3";
  const halved = idefics || kind === "siglip";
  const resample = config.resample ?? (idefics ? 1 : 3);
  if (!RESAMPLE[resample]) {
    throw new InputError(
      `Cannot use "${name}": "resample" is ${resample}, expected 1, 2 or 3 (lanczos, bilinear, bicubic)`,
    );
  }
  const crop = squareOf(config.crop_size ?? 224);
  const normalize = config.do_normalize ?? true;
  return {
    kind,
    name,
    resize: config.do_resize ?? true,
    size: sizeOf(kind, config),
    filter: RESAMPLE[resample],
    pillow,
    pad: kind === "llava" && (config.do_pad ?? false),
    crop: cropped && (config.do_center_crop ?? true) ? checkedCrop(crop, name) : undefined,
    tile: config.max_image_size?.longest_edge ?? 364,
    split: config.do_image_splitting ?? true,
    rescale: config.do_rescale ?? true ? config.rescale_factor ?? 1 / 255 : 1,
    mean: normalize ? config.image_mean ?? (halved ? HALF : CLIP_MEAN) : [0, 0, 0],
    std: normalize ? config.image_std ?? (halved ? HALF : CLIP_STD) : [1, 1, 1],
    patch: config.patch_size ?? 14,
    merge: config.merge_size ?? 2,
    frames: config.temporal_patch_size ?? 2,
  };
}

const squareOf = (value: number | Size): Size =>
  typeof value === "number" ? { height: value, width: value } : value;

function checkedCrop(
  { height, width, shortest_edge }: Size,
  name: string,
): { height: number; width: number } {
  const [h, w] = [height ?? shortest_edge, width ?? shortest_edge];
  if (h === undefined || w === undefined) {
    throw new InputError(`Cannot use "${name}": "crop_size" has no "height" and "width"`);
  }
  return { height: h, width: w };
}

/** The size with its family's default; a bare number means the short edge for CLIP and LLaVA, a square elsewhere. */
function sizeOf(kind: ProcessorKind, config: z.infer<typeof schema>): Size {
  const cropped = kind === "clip" || kind === "llava";
  if (kind === "qwen2_vl") {
    const given = typeof config.size === "number" ? {} : config.size ?? {};
    return {
      shortest_edge: config.min_pixels ?? given.shortest_edge ?? 56 * 56,
      longest_edge: config.max_pixels ?? given.longest_edge ?? 28 * 28 * 1280,
    };
  }
  if (kind === "idefics3") return squareOf(config.size ?? { longest_edge: 4 * 364 });
  const given = config.size ?? (kind === "qwen_vl" ? 448 : 224);
  return cropped && typeof given === "number" ? { shortest_edge: given } : squareOf(given);
}
