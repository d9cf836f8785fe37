/**
 * The folders of a study's cells: where one lies, whether it is done, how its results are written and read.
 * A manifest that cannot be read is refused by the cell's name; times lie in times.json, outside every hash.
 */
import type { z } from "zod";
import { InputError, messageOf } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { MANIFEST, readManifest, writeManifest } from "../core/formats/manifest.ts";
import type { Cell } from "../core/study/cells.ts";

export const TIMES = "times.json";

/** "tune-0123456789abcdef". */
export const cellName = ({ kind, id }: Pick<Cell, "kind" | "id">): string => `${kind}-${id}`;

export const cellFolder = (study: Folder, cell: Pick<Cell, "kind" | "id">): Folder =>
  study.folder("cells").folder(cellName(cell));

/** Where in the grid it lies, for messages. */
export function placeOf({ key: { model, data, seed, batch, arm, prompt } }: Cell): string {
  return [model, data, `seed ${seed}`, `batch ${batch}`, arm, prompt && `prompt "${prompt}"`]
    .filter((part) => part !== undefined).join(", ");
}

/** @throws InputError for a cell that is neither done nor undone */
export async function isDone(study: Folder, cell: Cell): Promise<boolean> {
  const folder = cellFolder(study, cell);
  if (!await folder.exists(MANIFEST)) return false;
  try {
    await readManifest(folder);
    return true;
  } catch (error) {
    throw new InputError(
      `Cannot use the cell "${cellName(cell)}" (${placeOf(cell)}): ${
        messageOf(error)
      }; delete its folder to run it again`,
    );
  }
}

export interface CellFacts {
  seconds: number;
  /** Its settings. */
  cell: Record<string, unknown>;
  seed: number;
  /** The device, where one was used. */
  adapter?: string;
}

/** Writes a cell's result, its times and, last, its manifest. */
export async function finishCell(
  folder: Folder,
  name: string,
  result: unknown,
  { seconds, cell, seed, adapter }: CellFacts,
): Promise<void> {
  await folder.write(name, JSON.stringify(result, null, 1) + "\n");
  await writeTimes(folder, { seconds, adapter });
  const files = (await folder.list()).filter((file) => file !== TIMES);
  await writeManifest(folder, { kind: "cell", seed, config: { cell }, files });
}

export async function writeTimes(
  folder: Folder,
  times: { seconds: number; adapter?: string },
): Promise<void> {
  await folder.write(TIMES, JSON.stringify(times) + "\n");
}

/** A result as it was written, with its seconds. @throws InputError naming the file that does not fit */
export async function readResult<S extends z.ZodObject>(
  folder: Folder,
  name: string,
  schema: S,
): Promise<z.infer<S>> {
  const json = await readJson(folder, name) as Record<string, unknown>;
  const times = await folder.exists(TIMES) ? await readJson(folder, TIMES) as { seconds: number } : {};
  const parsed = schema.safeParse({ ...json, ...times });
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw new InputError(`Cannot read "${folder.path}/${name}": field "${path.join(".")}": ${message}`);
  }
  return parsed.data;
}

/** Whether one line says all about an error: wrong input, or a disk that is full. */
export function isPlain(error: unknown): boolean {
  return error instanceof InputError || /\(os error 28\)/.test(messageOf(error));
}
