/**
 * A base model as it is, as a finished run left it, or with an adapter that peft wrote: the choice that tasks offer which
 * look at models. Refuses both at once.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { readManifest } from "../core/formats/manifest.ts";
import type { TextOptions } from "../core/text/codec.ts";
import type { Gpu } from "../gpu/device.ts";
import type { WeightType } from "../gpu/models/weights.ts";
import { openPeft, peftHash } from "../gpu/peft.ts";
import { openRun, openSession, type Session } from "../gpu/session.ts";
import { DiskFolder } from "./folder.ts";

export const tunedFlags = {
  run: z.string().optional().describe(
    "folder of a finished run of that model; without it the model as it is",
  ),
  peft: z.string().optional().describe("folder of an adapter that peft wrote, instead of a run"),
};
export type TunedFlags = { run?: string; peft?: string };

/** What stands for the training among an artifact's parents. @throws InputError for both or for what is unfinished */
export async function tunedParent({ run, peft }: TunedFlags): Promise<{ run?: string; adapter?: string }> {
  if (run !== undefined && peft !== undefined) throw new InputError("Cannot use --run and --peft at once");
  if (run !== undefined) return { run: (await readManifest(new DiskFolder(run), "run")).hash };
  return peft === undefined ? {} : { adapter: await peftHash(new DiskFolder(peft)) };
}

/** Opens the chosen model. @throws InputError when base and training do not belong together */
export async function openChosen(
  gpu: Gpu,
  base: Folder,
  { run, peft }: TunedFlags,
  { weights, text }: { weights: WeightType; text: Partial<TextOptions> },
): Promise<Session> {
  if (run !== undefined) return await openRun(gpu, base, new DiskFolder(run), weights, text);
  if (peft !== undefined) return await openPeft(gpu, base, new DiskFolder(peft), { weights, text });
  return await openSession(gpu, base, { weights, text });
}
