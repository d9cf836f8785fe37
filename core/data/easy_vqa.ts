/**
 * easy-VQA's `questions.json`, triples of question, answer and image number, as LLaVA records.
 * All questions about an image become turns of one record; a triple of another form is refused by its index.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type LlavaRecord, samplesToLlava } from "./llava.ts";
import type { Sample } from "./sample.ts";

const tripleSchema = z.tuple([z.string().min(1), z.string().min(1), z.number().int().nonnegative()]);

/** One record an image, in the order of their first questions; image 12 is `images/12.png`. @throws InputError */
export function readEasyVqa(json: unknown, name: string): LlavaRecord[] {
  if (!Array.isArray(json)) throw new InputError(`Cannot load "${name}": expected a list of questions`);
  const samples = new Map<number, Sample>();
  json.forEach((triple, index) => {
    const parsed = tripleSchema.safeParse(triple);
    if (!parsed.success) {
      const actual = JSON.stringify(triple)?.slice(0, 60);
      throw new InputError(
        `Cannot load "${name}": record ${index} is ${actual}, expected [question, answer, image]`,
      );
    }
    const [question, answer, image] = parsed.data;
    if (!samples.has(image)) {
      samples.set(image, { id: `easy-vqa-${image}`, images: [`images/${image}.png`], turns: [] });
    }
    samples.get(image)!.turns.push({ question, answer });
  });
  return samplesToLlava([...samples.values()]);
}
