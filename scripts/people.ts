/**
 * `deno task people`: writes sets of synthetic people as JSON lines with a manifest.
 * Refuses a folder that already holds other people.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { MANIFEST, readManifest } from "../core/formats/manifest.ts";
import { writePeople } from "../core/privacy/people_folder.ts";
import { sharedValues } from "../core/privacy/people.ts";
import { runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";

const schema = z.object({
  out: z.string().describe("folder to write"),
  seed: z.number().int().default(1).describe("the same seed gives the same people"),
  sets: z.array(z.string().regex(/^[^=]+=\d+$/, { error: "expected NAME=SIZE" }))
    .default(["U0=20", "U1=20", "U2=20"]).describe("names and sizes of the sets"),
});

if (import.meta.main) {
  await runTask({
    name: "people",
    summary: "Synthetic people in disjoint sets: who may be written on pictures, and who never is",
    schema,
    examples: ["deno task people --out runs/people --seed 1 --sets U0=8,U1=8,U2=8"],
    async run({ out, seed, sets: wanted }) {
      const sizes = Object.fromEntries(
        wanted.map((text) => text.split("=")).map(([name, n]) => [name, Number(n)]),
      );
      const folder = new DiskFolder(out);
      if (await folder.exists(MANIFEST)) {
        const { manifest } = await readManifest(folder, "people");
        if (manifest.seed !== seed || JSON.stringify(manifest.config.sizes) !== JSON.stringify(sizes)) {
          throw new InputError(`Cannot write "${out}": it holds other people (seed ${manifest.seed})`);
        }
      }
      const { sets, hash } = await writePeople(folder, seed, sizes);
      for (const [name, people] of Object.entries(sets)) {
        console.log(`${out}/${name}.jsonl  ${people.length} people`);
      }
      const shared = sharedValues(sets);
      if (shared.length) {
        console.log(`${shared.length} identifying values are in more than one set: see the manifest`);
      }
      console.log(`manifest ${hash}`);
    },
  });
}
