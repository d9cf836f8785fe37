/**
 * Qwen-VL's conversation files: `[{id, conversations: [{from: "user" | "assistant", value}]}]`, pictures inside the
 * text as `Picture 1: <img>PATH</img>`. Refuses, naming file, record and field, what is no pair of question and answer.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { checkImagePath } from "./paths.ts";
import { dropLeadingPlaces, type Sample, type Turn } from "./sample.ts";

const recordSchema = z.object({
  id: z.union([z.string(), z.number()]).transform(String),
  person: z.union([z.string(), z.array(z.string().nullable())]).optional(),
  conversations: z.array(z.object({ from: z.enum(["user", "assistant"]), value: z.string() })).min(2),
});

/** `Picture 1: <img>a.png</img>` and the line break behind it; the number is left to the template. */
const PICTURE = /(?:Picture \d+: ?)?<img>(.*?)<\/img>\n?/gs;

/** Whether parsed JSON is a file of this kind: its first turn is a "user"'s. */
export function isQwen(json: unknown): boolean {
  const first = Array.isArray(json) ? json[0]?.conversations?.[0]?.from : undefined;
  return first === "user";
}

/** Reads parsed JSON; `name` is the file's, for messages. @throws InputError naming file, record and field */
export function readQwen(json: unknown, name: string): Sample[] {
  if (!Array.isArray(json)) throw new InputError(`Cannot load "${name}": expected a list of records`);
  return json.map((record, index) => {
    const parsed = recordSchema.safeParse(record);
    const where = `Cannot load "${name}": record ${index}`;
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new InputError(`${where}: "${issue.path.join(".")}": ${issue.message}`);
    }
    return toSample(parsed.data, `${where} (id "${parsed.data.id}")`);
  });
}

function toSample({ id, person, conversations }: z.infer<typeof recordSchema>, where: string): Sample {
  const images: string[] = [], turns: Turn[] = [];
  conversations.forEach(({ from, value }, i) => {
    const expected = i % 2 === 0 ? "user" : "assistant";
    if (from !== expected) {
      throw new InputError(`${where}: "conversations.${i}.from" is "${from}", expected "${expected}"`);
    }
    if (from === "assistant") {
      if (/<\/?img>/.test(value)) {
        throw new InputError(`${where}: "conversations.${i}.value" has <img>, expected none in an answer`);
      }
      turns.at(-1)!.answer = value;
      return;
    }
    const { question, places, paths } = readQuestion(value);
    if (/<\/?img>/.test(question)) {
      throw new InputError(
        `${where}: "conversations.${i}.value" has an unpaired <img> or </img>, expected <img>PATH</img>`,
      );
    }
    images.push(...paths.map((path) => checkImagePath(path, where)));
    turns.push(places.length ? { question, answer: "", places } : { question, answer: "" });
  });
  if (conversations.length % 2) {
    throw new InputError(`${where}: "conversations" ends with a question, expected an answer`);
  }
  if (Array.isArray(person) && person.length !== images.length) {
    throw new InputError(
      `${where}: "person" has ${person.length} entries, expected ${images.length}, one an image`,
    );
  }
  dropLeadingPlaces(turns);
  const people = Array.isArray(person) ? person : person === undefined ? undefined : images.map(() => person);
  return { id, images, turns, ...(people && { people }) };
}

function readQuestion(value: string): { question: string; places: number[]; paths: string[] } {
  const places: number[] = [], paths: string[] = [];
  let question = "", at = 0;
  for (const match of value.matchAll(PICTURE)) {
    question += value.slice(at, match.index);
    places.push(question.length);
    paths.push(match[1]);
    at = match.index + match[0].length;
  }
  return { question: question + value.slice(at), places, paths };
}
