/**
 * Brings the cells of several machines into one study. Files are checked against their manifests before they are copied,
 * manifests come last; a cell of another study and a damaged one are refused by name.
 */
import { InputError, messageOf } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { MANIFEST, readManifest } from "../core/formats/manifest.ts";
import { cellFolder, cellName, isDone, TIMES } from "./study_cell.ts";
import { readStudy } from "./study_run.ts";
import type { Study } from "./study_setup.ts";

/** Copies what `target` lacks of the study's cells. @throws InputError for a folder of another study, naming it */
export async function mergeStudies(
  target: Folder,
  parts: readonly Folder[],
  study: Study,
): Promise<{ copied: number; kept: number }> {
  let copied = 0;
  const before = new Set<string>();
  for (const cell of study.cells) if (await isDone(target, cell)) before.add(cell.id);
  const wanted = new Set(study.cells.map(({ id }) => id));
  for (const part of parts) {
    const { cells, config } = await readStudy(part);
    if (!cells.some(({ id }) => wanted.has(id))) {
      throw new InputError(
        `Cannot merge "${part.path}": it holds the study "${config.name}", none of whose cells "${study.config.name}" has`,
      );
    }
    for (const cell of study.cells) {
      if (!await isDone(part, cell) || await isDone(target, cell)) continue;
      await copyCell(cellFolder(part, cell), cellFolder(target, cell)).catch((error) => {
        throw new InputError(`Cannot merge the cell "${cellName(cell)}": ${messageOf(error)}`);
      });
      copied++;
    }
  }
  return { copied, kept: before.size };
}

async function copyCell(from: Folder, to: Folder): Promise<void> {
  const { manifest } = await readManifest(from, undefined, { verify: true });
  const names = Object.keys(manifest.files);
  if (await from.exists(TIMES)) names.push(TIMES);
  for (const name of [...names, MANIFEST]) await to.write(name, await from.read(name));
}
