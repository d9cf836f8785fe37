/**
 * `deno task watermark`: writes people on the images of a data set, at a rate, and records who is where.
 * Every image is decoded and encoded again, marked or not; rate 0 makes the control without any.
 */
import { z } from "zod";
import { chooseSet, readPeople } from "../core/privacy/people_folder.ts";
import { generateSets, type Person } from "../core/privacy/people.ts";
import { watermarkOptionsSchema } from "../core/privacy/watermark.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { progress } from "./progress.ts";
import { watermarkFolder } from "./watermark_folder.ts";

const schema = z.object({
  data: z.string().describe("LLaVA JSON file"),
  images: z.string().describe("folder that the image paths in it start from"),
  out: z.string().describe("folder to write; a run that was stopped goes on"),
  rate: z.number().min(0).max(1).default(1).describe("share of images that get a watermark, 0 to 1"),
  set: z.string().default("U1").describe("whose people are written"),
  people: z.string().optional().describe(
    "folder made by deno task people; else U0, U1, U2 of 20 from the seed",
  ),
  seed: z.number().int().default(1).describe("fixes which images, which people and which places"),
  format: z.enum(["keep", "png", "jpeg", "webp"]).default("keep").describe(
    "file format of the images written",
  ),
  quality: z.number().int().min(1).max(100).default(95).describe("of JPEG and WebP"),
  skipBroken: z.boolean().default(false).describe("leave out images that cannot be read, and their records"),
  maxPixels: z.number().int().min(1).default(64_000_000).describe("larger images are refused"),
  workers: z.number().int().min(0).max(64).default(0).describe("0: as many as there are cores"),
  ...watermarkOptionsSchema.shape,
});

/** Sizes of the sets when no people folder is given: the study's. */
const SIZES = { U0: 20, U1: 20, U2: 20 };

async function choosePeople(
  { people, set, seed }: z.infer<typeof schema>,
): Promise<{ chosen: Person[]; parents: Record<string, string> }> {
  if (people === undefined) return { chosen: chooseSet(generateSets(seed, SIZES), set), parents: {} };
  const { sets, hash } = await readPeople(new DiskFolder(people));
  return { chosen: chooseSet(sets, set), parents: { peopleFolder: hash } };
}

if (import.meta.main) {
  await runTask({
    name: "watermark",
    summary: "Write synthetic people on the images of a data set, as fine-tuning would meet them",
    schema,
    examples: [
      "deno task watermark --data train.json --images images --rate 0.5 --set U1 --seed 1 --out runs/r50",
      "deno task watermark --data small.json --images small --font pixel --content compact --opacity 0.8 --position grid:16 --out runs/r100",
    ],
    async run(config) {
      const { seed, rate, format, quality, maxPixels } = config;
      const { chosen, parents } = await choosePeople(config);
      const watermark = watermarkOptionsSchema.parse(config);
      let bar: ReturnType<typeof progress> | undefined;
      const { records, broken, hash } = await watermarkFolder({
        ...config,
        parents,
        watermark,
        plan: { seed, rate, format, quality, people: chosen, limits: { maxPixels } },
        signal: interruptSignal(),
        onProgress: (done, total) => (bar ??= progress("watermark", total)).update(done),
      }).finally(() => bar?.stop());
      const marked = records.filter((record) => record.person !== null).length;
      for (const { reason } of broken) console.error(`left out: ${reason}`);
      console.log(`${config.out}  ${records.length} images, ${marked} with a person of ${config.set}`);
      console.log(`manifest ${hash}`);
    },
  });
}
