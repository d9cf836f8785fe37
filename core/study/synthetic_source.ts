/**
 * Drawn scenes as a study's data set: endless, so pictures to tune on, held-out questions and probed scenes never
 * meet. It asks for colours, which the built-in model was not trained on.
 */
import { COLORS, syntheticItem } from "../data/synthetic.ts";
import { Random } from "../random.ts";
import type { SourceItem, StudySource } from "./arms.ts";

const KINDS = ["color-of"] as const, QUESTIONS = 2;

/** @param images to tune on @param heldOut to ask questions about and to probe */
export function syntheticSource(name: string, seed: number, images: number, heldOut: number): StudySource {
  const from = (stream: string) => {
    const random = new Random(seed, `study/${stream}`);
    return (index: number): Promise<SourceItem> => {
      const { sample: { id, turns }, picture } = syntheticItem(random, index, KINDS, QUESTIONS);
      return Promise.resolve({ id, turns, pictures: [picture] });
    };
  };
  return {
    name,
    hash: `synthetic/${seed}/${images}/${heldOut}`,
    count: images,
    item: from("train"),
    heldOutCount: heldOut,
    heldOut: from("held-out"),
    answers: Object.keys(COLORS),
  };
}
