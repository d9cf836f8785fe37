/**
 * A sample and its pictures to what a model eats: ids, labels, pixel values. Refuses a sample without a picture where
 * the model needs one for its image tokens.
 */
import type { Picture } from "../image/picture.ts";
import type { Processed, Processor } from "../image/processors.ts";
import type { TextCodec } from "../text/codec.ts";
import type { EncodedSample } from "./pack.ts";
import type { Turn } from "./sample.ts";

export interface SampleEncoder {
  readonly text: TextCodec;
  /** A conversation with its answers as labels. */
  train(id: string, turns: readonly Turn[], pictures?: readonly Picture[]): EncodedSample;
  /** A question without an answer, its pictures in front: what extraction and generation run. */
  ask(id: string, question: string, pictures?: readonly Picture[]): EncodedSample;
}

/** @param featuresOf feature rows that a processed picture becomes, one image token each */
export function createSampleEncoder(
  text: TextCodec,
  processor: Processor | undefined,
  featuresOf: (image: Processed) => number,
): SampleEncoder {
  const look = (pictures: readonly Picture[]) => {
    const images = processor ? pictures.map((picture) => processor.process(picture)) : [];
    return { images, tokens: images.reduce((sum, image) => sum + featuresOf(image), 0) };
  };
  return {
    text,
    train(id, turns, pictures = []) {
      const { images, tokens } = look(pictures);
      return { id, ...text.conversation(turns, tokens), images };
    },
    ask(id, question, pictures = []) {
      const { images, tokens } = look(pictures);
      const ids = text.prompt(question, tokens);
      return { id, ids, labels: ids.map(() => -100), images };
    },
  };
}
