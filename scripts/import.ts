/**
 * `deno task import`: brings data into the form that training reads, LLaVA's conversation JSON beside its images.
 * Refuses sources whose images are missing; exactly one source is imported at a time.
 */
import { join } from "node:path";
import { z } from "zod";
import { readEasyVqa } from "../core/data/easy_vqa.ts";
import { imagesOf, samplesToLlava } from "../core/data/llava.ts";
import { QUESTION_KINDS, syntheticItem } from "../core/data/synthetic.ts";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { Random } from "../core/random.ts";
import { runTask } from "./cli.ts";
import { DiskFolder, writeFile } from "./folder.ts";
import { progress } from "./progress.ts";

const schema = z.object({
  easyVqa: z.string().optional().describe("a folder of easy-VQA: questions.json and images/"),
  synthetic: z.number().int().min(1).max(1_000_000).optional().describe(
    "how many scenes of coloured shapes to draw",
  ),
  out: z.string().describe("the JSON file to write, or for --synthetic the folder"),
  seed: z.number().int().default(0).describe("seed of the scenes"),
  questions: z.number().int().min(1).default(4).describe("most questions about a scene"),
  kinds: z.array(z.enum(QUESTION_KINDS)).min(1).default([...QUESTION_KINDS]).describe(
    "kinds of questions about a scene",
  ),
});
type Settings = z.infer<typeof schema>;

/** Writes one LLaVA record an image of the folder. @throws InputError naming the images that are missing */
export async function importEasyVqa(source: string, out: string): Promise<number> {
  const folder = new DiskFolder(source);
  const records = readEasyVqa(await readJson(folder, "questions.json"), join(source, "questions.json"));
  const missing: string[] = [];
  for (const image of records.flatMap(imagesOf)) if (!await folder.exists(image)) missing.push(image);
  if (missing.length) {
    const names = missing.slice(0, 5).map((name) => `"${name}"`).join(", ");
    throw new InputError(`Cannot import "${source}": ${missing.length} images are missing, first ${names}`);
  }
  await writeFile(out, JSON.stringify(records, null, 1) + "\n");
  return records.length;
}

/** Draws scenes into a data set folder: `data.json`, `images/`, `manifest.json`. Returns the manifest's hash. */
export async function importSynthetic(count: number, settings: Omit<Settings, "easyVqa" | "synthetic">) {
  const folder = new DiskFolder(settings.out);
  const random = new Random(settings.seed, "synthetic");
  const bar = progress("Drawing scenes", count);
  const samples = [];
  for (let i = 0; i < count; i++) {
    const { picture, sample } = syntheticItem(random, i, settings.kinds, settings.questions);
    await folder.write(sample.images[0], await encodeImage(picture, "png"));
    samples.push(sample);
    bar.update(i + 1);
  }
  bar.stop();
  await folder.write("data.json", JSON.stringify(samplesToLlava(samples), null, 1) + "\n");
  const { seed, questions, kinds } = settings;
  return await writeManifest(folder, {
    kind: "dataset",
    seed,
    config: { source: "synthetic", count, questions, kinds },
    facts: { images: count, turns: samples.reduce((n, sample) => n + sample.turns.length, 0) },
    files: ["data.json", ...samples.flatMap((sample) => sample.images)],
  });
}

if (import.meta.main) {
  await runTask({
    name: "import",
    summary: "Bring a data set into LLaVA's form: easy-VQA, or seeded scenes of coloured shapes.",
    schema,
    examples: [
      "deno task import --easy-vqa easy-vqa/train --out easy-vqa/train/data.json",
      "deno task import --synthetic 500 --seed 1 --out runs/shapes",
    ],
    async run({ easyVqa, synthetic, ...settings }) {
      if (easyVqa !== undefined && synthetic === undefined) {
        console.log(`${await importEasyVqa(easyVqa, settings.out)} records in ${settings.out}`);
      } else if (synthetic !== undefined && easyVqa === undefined) {
        const { hash } = await importSynthetic(synthetic, settings);
        console.log(`${synthetic} scenes in ${settings.out}, manifest ${hash}`);
      } else throw new InputError("Cannot import: give one of --easy-vqa and --synthetic");
    },
  });
}
