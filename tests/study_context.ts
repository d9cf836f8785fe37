/**
 * The context of a small study of drawn shapes, with the watermark that the built-in model can read.
 */
import { createWatermarker } from "../core/privacy/mark.ts";
import { TINY_WATERMARK } from "../core/privacy/watermark.ts";
import { type ArmContext, studyPeople } from "../core/study/arms.ts";
import type { StudyConfig } from "../core/study/config.ts";
import { syntheticSource } from "../core/study/synthetic_source.ts";

/** @param size pictures to tune on and held out; people a set, and those shown once */
export async function shapesContext(
  { encoding, questions }: StudyConfig,
  seed: number,
  size: { images: number; heldOut: number; people: number; once: number },
): Promise<ArmContext> {
  return {
    seed,
    source: syntheticSource("shapes", seed, size.images, size.heldOut),
    people: studyPeople(seed, size.people, size.once),
    watermarker: await createWatermarker(TINY_WATERMARK),
    encoding,
    questions,
  };
}
