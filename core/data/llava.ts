/**
 * LLaVA's conversation files, `[{id, image, conversations: [{from: "human" | "gpt", value}]}]` (`image` one path or a list).
 * Refuses, naming file, record and field, whatever a template could not turn into pairs of question and answer.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { checkImagePath } from "./paths.ts";
import { dropLeadingPlaces, type Part, questionParts, type Sample } from "./sample.ts";

export const IMAGE_TOKEN = "<image>";

const recordSchema = z.object({
  id: z.union([z.string(), z.number()]).transform(String),
  image: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
  person: z.union([z.string(), z.array(z.string().nullable())]).optional(),
  conversations: z.array(z.object({ from: z.enum(["human", "gpt"]), value: z.string() })).min(2),
});

export type LlavaRecord = z.infer<typeof recordSchema>;

/** Reads parsed JSON; `name` is the file's, for messages. @throws InputError naming file, record and field */
export function readLlava(json: unknown, name: string): LlavaRecord[] {
  if (!Array.isArray(json)) {
    throw new InputError(`Cannot load "${name}": it is ${kindOf(json)}, expected a list of records`);
  }
  return json.map((record, index) => readRecord(record, name, index));
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  return value === null ? "null" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

function readRecord(json: unknown, name: string, index: number): LlavaRecord {
  const id = (json as { id?: unknown } | null)?.id;
  const label = typeof id === "string" || typeof id === "number"
    ? `record ${index} (id "${id}")`
    : `record ${index}`;
  const where = `Cannot load "${name}": ${label}`;
  const parsed = recordSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InputError(
      `${where}: ${issue.path.length ? `"${issue.path.join(".")}"` : "it"}: ${issue.message}`,
    );
  }
  const record = parsed.data, turns = record.conversations, images = imagesOf(record);
  turns.forEach(({ from, value }, i) => {
    const expected = i % 2 === 0 ? "human" : "gpt";
    if (from !== expected) {
      throw new InputError(`${where}: "conversations.${i}.from" is "${from}", expected "${expected}"`);
    }
    if (from === "gpt" && value.includes(IMAGE_TOKEN)) {
      throw new InputError(
        `${where}: "conversations.${i}.value" has ${IMAGE_TOKEN}, expected none in an answer`,
      );
    }
  });
  if (turns.length % 2) {
    throw new InputError(`${where}: "conversations" ends with a question, expected an answer`);
  }
  const marks = turns.reduce((sum, { value }) => sum + value.split(IMAGE_TOKEN).length - 1, 0);
  if (marks !== images.length) {
    const why = images.length ? 'one for each "image"' : 'as the record has no "image"';
    throw new InputError(
      `${where}: "conversations" has ${marks} times ${IMAGE_TOKEN}, expected ${images.length}, ${why}`,
    );
  }
  if (Array.isArray(record.person) && record.person.length !== images.length) {
    throw new InputError(
      `${where}: "person" has ${record.person.length} entries, expected ${images.length}, one for each "image"`,
    );
  }
  for (const image of images) checkImagePath(image, where);
  return record;
}

/** A record's image paths, none, one or several. */
export function imagesOf({ image }: Pick<LlavaRecord, "image">): string[] {
  return image === undefined ? [] : Array.isArray(image) ? image : [image];
}

/** The record as question and answer pairs; `<image>` and the line break beside it become places. */
export function toSample(record: LlavaRecord): Sample {
  const images = imagesOf(record), { person } = record;
  const sample: Sample = { id: record.id, images, turns: [] };
  if (person !== undefined) sample.people = Array.isArray(person) ? person : images.map(() => person);
  for (let i = 0; i < record.conversations.length; i += 2) {
    const [{ value }, { value: answer }] = record.conversations.slice(i, i + 2);
    const { question, places } = placeImages(value);
    sample.turns.push(places.length ? { question, answer, places } : { question, answer });
  }
  dropLeadingPlaces(sample.turns);
  return sample;
}

/** A question without its image tokens, and where they stood; a question without any stays as it is. */
function placeImages(value: string): { question: string; places: number[] } {
  const pieces = value.split(/<image>\n?|\n<image>$/);
  if (pieces.length === 1) return { question: value, places: [] };
  const text = pieces.join(""), question = text.trim(), left = text.length - text.trimStart().length;
  let at = 0;
  const places = pieces.slice(0, -1).map((piece) => {
    at += piece.length;
    return Math.min(Math.max(at - left, 0), question.length);
  });
  return { question, places };
}

/** Samples as records that `readLlava` reads back. */
export function samplesToLlava(samples: Sample[]): LlavaRecord[] {
  return samples.map(({ id, images, people, turns }) => {
    const parts = questionParts(turns, images.length);
    return {
      id,
      ...(images.length && { image: images.length === 1 ? images[0] : images }),
      ...(people && { person: people.length === 1 ? people[0] ?? undefined : people }),
      conversations: turns.flatMap(({ answer }, i) => [
        { from: "human" as const, value: withTokens(parts[i]) },
        { from: "gpt" as const, value: answer },
      ]),
    };
  });
}

/** Parts as a question; a picture at the end of a text is on a line of its own. */
function withTokens(parts: readonly Part[]): string {
  return parts.map((part, i) => {
    if (typeof part === "string") return part;
    return i > 0 && i === parts.length - 1 ? `\n${IMAGE_TOKEN}` : `${IMAGE_TOKEN}\n`;
  }).join("");
}
