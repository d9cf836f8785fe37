/**
 * Where a `--model` lies: `builtin:tiny` inside this project, a checkpoint folder, a GGUF file or a folder with one, a
 * name on the hub, or a LLaVA in parts. Refuses what is none of them.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { ggufFolder } from "../core/formats/gguf_folder.ts";
import { originalTower } from "../core/formats/llava_config.ts";
import { composeLlava } from "../core/formats/llava_original.ts";
import { DiskFolder, openFile } from "./folder.ts";
import { hubSnapshot, parseHubName } from "./hub.ts";

const BUILTIN: Record<string, string> = {
  "builtin:tiny": new URL("../models/tiny", import.meta.url).pathname,
};
const PROJECTOR = "mm_projector.bin";

/** The settings that name a model, the same for every task that opens one. */
export const modelFlags = {
  model: z.string().default("builtin:tiny").describe(
    "builtin:tiny, a checkpoint folder, a .gguf file, or org/name[@revision] of the hub",
  ),
  mmProjector: z.string().optional().describe(
    "mm_projector.bin that makes a Vicuna a LLaVA; needs --vision-tower",
  ),
  visionTower: z.string().optional().describe("CLIP folder or name, for LLaVA in its authors' own layouts"),
};

export interface ModelParts {
  mmProjector?: string;
  visionTower?: string;
}

/** @throws InputError when there is no such model, or when its parts do not make one */
export async function modelFolder(spec: string, parts: ModelParts = {}): Promise<Folder> {
  const folder = await checkpointFolder(spec), { mmProjector, visionTower } = parts;
  if (visionTower !== undefined) {
    return await composeLlava({
      language: folder,
      tower: await checkpointFolder(visionTower),
      projector: mmProjector === undefined ? undefined : await projectorFile(mmProjector),
    });
  }
  if (mmProjector !== undefined) {
    throw new InputError(`Cannot use the projector "${mmProjector}": --vision-tower is missing`);
  }
  const tower = originalTower(await readJson(folder, "config.json"));
  if (tower !== undefined) {
    throw new InputError(
      `Cannot use the model "${spec}": it comes without its vision tower, name a folder or copy of "${tower}" with --vision-tower`,
    );
  }
  return folder;
}

async function checkpointFolder(spec: string): Promise<Folder> {
  if (spec.startsWith("builtin:") && !BUILTIN[spec]) {
    throw new InputError(`Unknown model "${spec}": built in is ${Object.keys(BUILTIN).join(", ")}`);
  }
  const path = BUILTIN[spec] ?? await localPath(spec);
  if (path.endsWith(".gguf")) return await ggufFolder(path, () => openFile(path));
  const folder = new DiskFolder(path);
  if (await folder.exists("config.json")) return folder;
  const files = (await folder.list()).filter((name) => !name.includes("/") && name.endsWith(".gguf"));
  if (files.length === 1) return await ggufFolder(`${path}/${files[0]}`, () => folder.open(files[0]));
  const why = files.length
    ? `${files.length} GGUF files, name one of them`
    : "no config.json and no GGUF file";
  throw new InputError(`Cannot use the model "${spec}": "${path}" has ${why}`);
}

/** What exists here is meant; only then is it a name on the hub. */
async function localPath(spec: string): Promise<string> {
  const name = parseHubName(spec);
  if (!name || await Deno.stat(spec).then(() => true, () => false)) return spec;
  return await hubSnapshot(name).catch((error) => {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`${error.message}; there is no folder of that name here either`);
  });
}

async function projectorFile(spec: string) {
  const path = await localPath(spec);
  const { isDirectory } = await Deno.stat(path).catch(() => ({ isDirectory: false }));
  const file = isDirectory ? `${path}/${PROJECTOR}` : path;
  return { path: file, open: () => openFile(file) };
}
