/**
 * Text of a conversation to token ids and back, as one model wants it: the tokenizer and chat form of a checkpoint
 * folder. Refuses a folder whose tokenizer it does not know.
 */
import { z } from "zod";
import type { Turn } from "../data/sample.ts";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { encodeConversation, encodePrompt, EOS, tinyTokenizer } from "./tiny.ts";

export interface TextCodec {
  /** Ids and labels (-100 where nothing is learnt) of a whole conversation about `imageTokens` image tokens. */
  conversation(turns: readonly Turn[], imageTokens: number): { ids: number[]; labels: number[] };
  /** Ids up to where the answer would start. */
  prompt(question: string, imageTokens: number): number[];
  decode(ids: readonly number[]): string;
  readonly eos: number;
}

/** @throws InputError when there is no tokenizer.json, or one of another kind */
export async function openTextCodec(folder: Folder): Promise<TextCodec> {
  const json = await readJson(folder, "tokenizer.json");
  const parsed = z.looseObject({ type: z.string() }).safeParse(json);
  if (parsed.data?.type !== "builtin:tiny") {
    throw new InputError(
      `Cannot use "${folder.path}/tokenizer.json": its type is ${
        JSON.stringify(parsed.data?.type)
      }, expected "builtin:tiny"`,
    );
  }
  return {
    conversation: (turns, imageTokens) => encodeConversation([...turns], { imageTokens }),
    prompt: (question, imageTokens) => encodePrompt(question, { imageTokens }),
    decode: (ids) => tinyTokenizer.decode([...ids]),
    eos: EOS,
  };
}
