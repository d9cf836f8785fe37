/**
 * Opens the tokenizer of a checkpoint folder, whichever of the known files holds it: tokenizer.json before
 * qwen.tiktoken before tokenizer.model. Refuses a folder without one.
 */
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import { parseSentencePiece } from "./sentencepiece_model.ts";
import { tiktokenTokenizer } from "./tiktoken.ts";
import { tinyAsTokenizer } from "./tiny_tokenizer.ts";
import { readTokenSettings } from "./token_settings.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { tokenizerFromJson } from "./tokenizer_json.ts";

const FILES = ["tokenizer.json", "qwen.tiktoken", "tokenizer.model"] as const;

/** @throws InputError when the folder holds no tokenizer, or one that is not supported, naming the file */
export async function openTokenizer(folder: Folder): Promise<Tokenizer> {
  const held = await Promise.all(FILES.map((file) => folder.exists(file)));
  const file = FILES[held.indexOf(true)];
  const where = `"${folder.path}/${file}"`;
  switch (file) {
    case "tokenizer.json": {
      const json = await readJson(folder, file);
      if ((json as { type?: unknown } | null)?.type === "builtin:tiny") return tinyAsTokenizer;
      return tokenizerFromJson(json, await readTokenSettings(folder), where);
    }
    case "qwen.tiktoken": {
      const text = new TextDecoder().decode(await folder.read(file));
      return tiktokenTokenizer(text, (await readTokenSettings(folder)).stops, where);
    }
    case "tokenizer.model": {
      const model = parseSentencePiece(await folder.read(file), where);
      return sentencePieceTokenizer(model, await readTokenSettings(folder), where);
    }
    default:
      throw new InputError(`Cannot open a tokenizer in "${folder.path}": it has none of ${FILES.join(", ")}`);
  }
}
