/**
 * Samples of a given size for a plan, where no data set is at hand: black pictures and one token over and over.
 * Refuses pictures for a model that takes none.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { blankPicture } from "../core/image/picture.ts";
import { createProcessor, type Processor } from "../core/image/processors.ts";
import type { Model } from "./models/model.ts";

export interface SampleSizes {
  /** Tokens of text; the second half of them is the answer. */
  tokens: number;
  images: number;
  width: number;
  height: number;
}

/** One such sample. @throws InputError for pictures that the model cannot take */
export function sampleOfSize(
  model: Model,
  processor: Processor | undefined,
  { tokens, images, width, height }: SampleSizes,
): EncodedSample {
  if (images > 0 && !(processor && model.imageToken !== undefined)) {
    throw new InputError(`Cannot plan ${images} pictures: a "${model.family}" model reads text only`);
  }
  const pictures = Array.from({ length: images }, () => processor!.process(blankPicture(width, height)));
  const ids: number[] = [], marker = model.imageToken;
  for (const picture of pictures) {
    const features = model.featuresOf(picture);
    if (typeof marker === "number") ids.push(...new Array<number>(features).fill(marker));
    else {
      for (let left = features; left > 0; left -= marker!.features) {
        ids.push(marker!.start, ...new Array<number>(marker!.features).fill(0), marker!.end);
      }
    }
  }
  const text = marker === 1 ? 2 : 1, question = ids.length + Math.floor(tokens / 2);
  ids.push(...new Array<number>(tokens).fill(text));
  return {
    id: "of the plan",
    ids,
    labels: ids.map((id, i) => i < question ? -100 : id),
    images: pictures,
  };
}

/** The processor that a config.json implies where no preprocessor_config.json is at hand; undefined for text only. */
export function impliedProcessor(json: unknown): Processor | undefined {
  const config = json as Record<string, Record<string, unknown>> & { model_type: string };
  const vision = config.vision_config ?? {};
  const named = (image_processor_type: string, fields: Record<string, unknown>) =>
    createProcessor({ image_processor_type, ...fields }, `the preprocessor of "${config.model_type}"`);
  switch (config.model_type) {
    case "llava": {
      const side = vision.image_size ?? 336;
      return named("CLIPImageProcessor", { size: { shortest_edge: side }, crop_size: side });
    }
    case "qwen":
      return named("QwenVLImageProcessor", { size: config.visual?.image_size });
    case "qwen2_vl":
    case "qwen2_5_vl":
      return named("Qwen2VLImageProcessor", {
        patch_size: vision.patch_size,
        merge_size: vision.spatial_merge_size,
        temporal_patch_size: vision.temporal_patch_size,
      });
    case "idefics3":
    case "smolvlm": {
      const side = vision.image_size ?? 224;
      return named("Idefics3ImageProcessor", {
        size: vision.size ?? { longest_edge: 4 * (side as number) },
        max_image_size: vision.max_image_size ?? { longest_edge: side },
      });
    }
    default:
      return undefined;
  }
}
