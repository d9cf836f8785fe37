/**
 * A sample and its pictures to what a model eats: ids, labels, pixel values. Refuses by the sample's name what no
 * template can write, pictures without a processor, and a length that would cut a picture or leave nothing to learn.
 */
import { InputError } from "../errors.ts";
import type { Picture } from "../image/picture.ts";
import type { Processed, Processor } from "../image/processors.ts";
import type { ChatPicture } from "../text/chat.ts";
import type { TextCodec } from "../text/codec.ts";
import type { EncodedText } from "../text/encode_segments.ts";
import type { EncodedSample } from "./pack.ts";
import type { Turn } from "./sample.ts";

export interface SampleEncoder {
  readonly text: TextCodec;
  /** A conversation with its answers as labels, and the markers of turns where the template teaches them. */
  train(id: string, turns: readonly Turn[], pictures?: readonly Picture[]): EncodedSample;
  /** The same with answers alone as labels: what is judged. */
  judge(id: string, turns: readonly Turn[], pictures?: readonly Picture[]): EncodedSample;
  /** A question without an answer, its pictures in front: what extraction and generation run. Never cut. */
  ask(id: string, question: string, pictures?: readonly Picture[]): EncodedSample;
}

export interface EncoderOptions {
  /** Undefined where the checkpoint has no preprocessor_config.json. */
  processor?: Processor;
  /** Feature rows that a processed picture becomes, one image token each. */
  featuresOf(image: Processed): number;
  /** Tokens after which a conversation is cut; undefined for never. */
  maxLength?: number;
}

export function createSampleEncoder(
  text: TextCodec,
  { processor, featuresOf, maxLength }: EncoderOptions,
): SampleEncoder {
  const look = (picture: Picture): ChatPicture => {
    if (!processor) throw new InputError("it has a picture, the model no preprocessor_config.json");
    const image = processor.process(picture);
    return { image, features: featuresOf(image) };
  };
  const encode = (
    id: string,
    pictures: readonly Picture[],
    write: (seen: ChatPicture[]) => EncodedText,
    cut?: number,
  ): EncodedSample => {
    try {
      const seen = pictures.map(look), encoded = write(seen);
      return { id, ...cutAt(encoded, seen.map(({ image }) => image), cut) };
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`Cannot encode sample "${id}": ${error.message}`);
      throw error;
    }
  };
  return {
    text,
    train: (id, turns, pictures = []) =>
      encode(id, pictures, (seen) => text.conversation(turns, seen), maxLength),
    judge: (id, turns, pictures = []) =>
      encode(id, pictures, (seen) => text.conversation(turns, seen, { markers: false }), maxLength),
    ask: (id, question, pictures = []) => encode(id, pictures, (seen) => text.prompt(question, seen)),
  };
}

/** The first tokens, with the pictures that stand among them. @throws InputError for a cut inside one, or before any label */
function cutAt(
  { ids, labels, pictures }: EncodedText,
  images: Processed[],
  length = Infinity,
): Omit<EncodedSample, "id"> {
  if (ids.length <= length) return { ids, labels, images };
  const inside = pictures.findIndex(([from, to]) => from < length && length < to);
  if (inside >= 0) {
    const [from, to] = pictures[inside];
    throw new InputError(
      `its ${ids.length} tokens are over the limit of ${length}, which lies inside picture ${
        inside + 1
      } (tokens ${from} to ${to - 1})`,
    );
  }
  const kept = labels.slice(0, length);
  if (kept.every((label, i) => i === 0 || label === -100)) {
    throw new InputError(
      `its ${ids.length} tokens are over the limit of ${length}, before which no token is supervised`,
    );
  }
  return {
    ids: ids.slice(0, length),
    labels: kept,
    images: images.filter((_, i) => pictures[i][1] <= length),
  };
}
