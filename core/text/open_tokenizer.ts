/**
 * Opens the tokenizer of a checkpoint folder, whichever of the known files holds it. Refuses a folder without one.
 */
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { tinyAsTokenizer } from "./tiny_tokenizer.ts";
import { readTokenSettings } from "./token_settings.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { tokenizerFromJson } from "./tokenizer_json.ts";

/** @throws InputError when the folder holds no tokenizer, or one that is not supported, naming the file */
export async function openTokenizer(folder: Folder): Promise<Tokenizer> {
  if (await folder.exists("tokenizer.json")) {
    const json = await readJson(folder, "tokenizer.json");
    if ((json as { type?: unknown } | null)?.type === "builtin:tiny") return tinyAsTokenizer;
    return tokenizerFromJson(json, await readTokenSettings(folder), `"${folder.path}/tokenizer.json"`);
  }
  throw new InputError(`Cannot open a tokenizer in "${folder.path}": it has no "tokenizer.json"`);
}
