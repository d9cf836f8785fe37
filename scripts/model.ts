/**
 * Where a `--model` lies: `builtin:tiny` inside this project, anything else a checkpoint folder.
 */
import { InputError } from "../core/errors.ts";
import { DiskFolder } from "./folder.ts";

const BUILTIN: Record<string, string> = {
  "builtin:tiny": new URL("../models/tiny", import.meta.url).pathname,
};

/** @throws InputError for an unknown built-in name and for a folder without config.json */
export async function modelFolder(spec: string): Promise<DiskFolder> {
  if (spec.startsWith("builtin:") && !BUILTIN[spec]) {
    throw new InputError(`Unknown model "${spec}": built in is ${Object.keys(BUILTIN).join(", ")}`);
  }
  const folder = new DiskFolder(BUILTIN[spec] ?? spec);
  if (!await folder.exists("config.json")) {
    throw new InputError(`Cannot use the model "${spec}": "${folder.path}" has no config.json`);
  }
  return folder;
}
