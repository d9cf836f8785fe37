/**
 * LLaVA's conversation files: `[{id, image, conversations: [{from: "human" | "gpt", value}]}]`, read and written.
 * Refuses, naming file, record and field, whatever a template could not turn into pairs of question and answer.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { checkImagePath } from "./paths.ts";
import type { Sample } from "./sample.ts";

export const IMAGE_TOKEN = "<image>";

const recordSchema = z.object({
  id: z.union([z.string(), z.number()]).transform(String),
  image: z.string().optional(),
  person: z.string().optional(),
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
  const record = parsed.data, turns = record.conversations;
  turns.forEach(({ from, value }, i) => {
    const expected = i % 2 === 0 ? "human" : "gpt";
    if (from !== expected) {
      throw new InputError(`${where}: "conversations.${i}.from" is "${from}", expected "${expected}"`);
    }
    const images = value.split(IMAGE_TOKEN).length - 1;
    const wanted = i === 0 && record.image !== undefined ? 1 : 0;
    if (images !== wanted) {
      const why = record.image === undefined ? 'as the record has no "image"' : "one in its first turn alone";
      throw new InputError(
        `${where}: "conversations.${i}.value" has ${images} times ${IMAGE_TOKEN}, expected ${wanted}, ${why}`,
      );
    }
  });
  if (turns.length % 2) {
    throw new InputError(`${where}: "conversations" ends with a question, expected an answer`);
  }
  if (record.image !== undefined) checkImagePath(record.image, where);
  return record;
}

/** The record as question and answer pairs; `<image>` and the line break beside it go. */
export function toSample(record: LlavaRecord): Sample {
  const sample: Sample = { id: record.id, turns: [] };
  if (record.image !== undefined) sample.image = record.image;
  if (record.person !== undefined) sample.person = record.person;
  for (let i = 0; i < record.conversations.length; i += 2) {
    const [{ value: question }, { value: answer }] = record.conversations.slice(i, i + 2);
    sample.turns.push({ question: i === 0 ? question.replace(IMAGE_TOKEN, "").trim() : question, answer });
  }
  return sample;
}

/** Samples as records that `readLlava` reads back; an image stands before its first question. */
export function samplesToLlava(samples: Sample[]): LlavaRecord[] {
  return samples.map(({ turns, ...rest }) => ({
    ...rest,
    conversations: turns.flatMap(({ question, answer }, i) => [
      {
        from: "human" as const,
        value: i === 0 && rest.image !== undefined ? `${IMAGE_TOKEN}\n${question}` : question,
      },
      { from: "gpt" as const, value: answer },
    ]),
  }));
}
