/**
 * Sets of people on disk: `U1.jsonl` and the like in a folder with a manifest.
 * Refuses a folder without a manifest, a set that differs from it, and a set name that is not there.
 */
import { InputError } from "../errors.ts";
import type { Folder } from "../formats/folder.ts";
import { readManifest, writeManifest } from "../formats/manifest.ts";
import { formatPeople, generateSets, parsePeople, type Person, sharedValues } from "./people.ts";

/** Generates the sets and writes them; returns them with the artifact's hash. */
export async function writePeople(
  folder: Folder,
  seed: number,
  sizes: Record<string, number>,
): Promise<{ sets: Record<string, Person[]>; hash: string }> {
  const sets = generateSets(seed, sizes);
  for (const [name, people] of Object.entries(sets)) {
    await folder.write(`${name}.jsonl`, formatPeople(people));
  }
  const { hash } = await writeManifest(folder, {
    kind: "people",
    seed,
    config: { sizes },
    facts: { people: Object.values(sets).flat().length, shared: sharedValues(sets) },
    files: Object.keys(sets).map((name) => `${name}.jsonl`),
  });
  return { sets, hash };
}

/** Reads every set of a people folder, checked against its manifest. @throws InputError as readManifest and parsePeople do */
export async function readPeople(folder: Folder): Promise<{ sets: Record<string, Person[]>; hash: string }> {
  const { manifest, hash } = await readManifest(folder, "people", { verify: true });
  const sets: Record<string, Person[]> = {};
  for (const file of Object.keys(manifest.files).filter((file) => file.endsWith(".jsonl"))) {
    const text = new TextDecoder().decode(await folder.read(file));
    sets[file.slice(0, -".jsonl".length)] = parsePeople(text, `${folder.path}/${file}`);
  }
  return { sets, hash };
}

/** One set by name. @throws InputError listing the sets there are */
export function chooseSet(sets: Record<string, Person[]>, name: string): Person[] {
  const people = Object.hasOwn(sets, name) ? sets[name] : undefined;
  if (!people) {
    const known = Object.keys(sets).map((set) => `"${set}"`).join(", ");
    throw new InputError(`Cannot use the set "${name}": there are ${known}`);
  }
  return people;
}
