/**
 * Where a `--model` lies: `builtin:tiny` inside this project, a GGUF file or a folder with one, or a checkpoint folder.
 * Refuses a folder that holds none of them.
 */
import { InputError } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { ggufFolder } from "../core/formats/gguf_folder.ts";
import { DiskFolder, openFile } from "./folder.ts";

const BUILTIN: Record<string, string> = {
  "builtin:tiny": new URL("../models/tiny", import.meta.url).pathname,
};

/** @throws InputError for an unknown built-in name and for a folder without config.json and without one GGUF file */
export async function modelFolder(spec: string): Promise<Folder> {
  if (spec.startsWith("builtin:") && !BUILTIN[spec]) {
    throw new InputError(`Unknown model "${spec}": built in is ${Object.keys(BUILTIN).join(", ")}`);
  }
  if (spec.endsWith(".gguf")) return await ggufFolder(spec, () => openFile(spec));
  const folder = new DiskFolder(BUILTIN[spec] ?? spec);
  if (await folder.exists("config.json")) return folder;
  const files = (await folder.list()).filter((name) => !name.includes("/") && name.endsWith(".gguf"));
  if (files.length === 1) return await ggufFolder(`${spec}/${files[0]}`, () => folder.open(files[0]));
  const why = files.length
    ? `${files.length} GGUF files, name one of them`
    : "no config.json and no GGUF file";
  throw new InputError(`Cannot use the model "${spec}": "${folder.path}" has ${why}`);
}
