/**
 * A conversation file of either kind, LLaVA's or Qwen-VL's, to samples. Which one it is follows from its first turn;
 * what is neither is refused as a LLaVA file.
 */
import { readLlava, toSample } from "./llava.ts";
import { isQwen, readQwen } from "./qwen.ts";
import type { Sample } from "./sample.ts";

/** Reads parsed JSON; `name` is the file's, for messages. @throws InputError naming file, record and field */
export function readSamples(json: unknown, name: string): Sample[] {
  return isQwen(json) ? readQwen(json, name) : readLlava(json, name).map(toSample);
}
