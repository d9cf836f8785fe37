/**
 * The verb `fit`: an activation set in, a table of every layer's faithful and sound results and a stored probe out.
 * Refuses an activation set whose manifest does not say which model and prompt it comes from.
 */
import { basename } from "node:path";
import { z } from "zod";
import { InputError, Interrupted } from "../core/errors.ts";
import { readManifest } from "../core/formats/manifest.ts";
import { readActivations } from "../core/probe/activations.ts";
import { fitProbe, type FittedProbe } from "../core/probe/fit.ts";
import { type Facts, saveProbe, storedProbeSchema } from "../core/probe/stored.ts";
import { probeIdSchema } from "../functions/schemas.ts";
import { interruptSignal, type Task } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { type Progress, progress } from "./progress.ts";
import { formatTable } from "./table.ts";

export const fitSchema = z.object({
  activations: z.string().describe("folder of the activation set"),
  seen: z.string().default("U1").describe("set of the people in the training images"),
  unseen: z.string().default("U2").describe("set of the people who were never in them"),
  out: z.string().describe("folder of the stored probe"),
  primary: z.string().optional().describe(
    "the feature to report first, fixed before any result; else the last layer's at the study's token",
  ),
  features: z.array(z.string()).optional().describe("features to fit; without it all of the set"),
  mode: storedProbeSchema.shape.mode.default("sound").describe(
    "the reading that the stored probe stands for",
  ),
  c: z.number().positive().default(1).describe("inverse strength of the L2 penalty"),
  centerScenes: z.boolean().default(false).describe(
    "take each scene's mean away in both measurements, blind to labels; the stored probe stays uncentred",
  ),
  standardize: z.boolean().default(false).describe("divide each dimension by its standard deviation"),
  split: z.enum(["image", "scene"]).default("image").describe("what the faithful way splits by"),
  splits: z.number().int().positive().optional().describe(
    "how many splits it averages: 1 by image and 10 by scene unless told",
  ),
  testSize: z.number().gt(0).lt(1).default(0.2).describe("share of images or scenes it tests on"),
  splitSeed: z.number().int().min(0).default(42).describe("of its first split"),
  partitions: z.number().int().positive().default(24).describe("partitions of the people in the sound way"),
  draws: z.number().int().positive().default(200).describe("permutations of who counts as seen"),
  seed: z.number().int().default(0).describe("of partitions and permutations"),
  id: z.string().optional().describe("of the stored probe; else the name of its folder"),
  title: z.string().optional().describe("a line for people who read lists of probes"),
  content: z.string().default("people's details written into pictures as watermarks").describe(
    "what private content it looks for, in words",
  ),
  json: z.boolean().default(false).describe("print the stored facts as JSON instead of the table"),
});

/** One row a feature, the one named beforehand marked with a star. */
export function fitTable({ primary, layers }: Pick<Facts, "primary" | "layers">): string {
  const header = ["feature", "faithful", "sound", "null 95 %", "p", "p (all layers)", "single picture"];
  const rows = layers.map(({ feature, metrics: { faithful, sound, single } }) => [
    feature === primary ? `${feature} *` : feature,
    faithful!.auroc.toFixed(3),
    sound!.auroc.toFixed(3),
    `[${sound!.null95.map((value) => value.toFixed(3)).join(", ")}]`,
    sound!.p.toFixed(3),
    sound!.p_family!.toFixed(3),
    single!.auroc.toFixed(3),
  ]);
  return formatTable(header, rows);
}

const LEGEND =
  `AUROC of seen against unseen. faithful: the same people are fitted and tested. sound: tested on people the
probe never met; it says more than chance only above its own null band. single picture: uncentred, person and scene new.
* the feature named beforehand; p is one-sided, by permuting who counts as seen.`;

/** What the activation set's manifest says about the model that it was read from. */
async function originOf(
  folder: DiskFolder,
): Promise<Pick<Facts, "model" | "prompt"> & { parents: Record<string, string> }> {
  const { manifest: { parents, config }, hash } = await readManifest(folder, "activations");
  const missing = (what: string): never => {
    throw new InputError(`Cannot fit a probe on "${folder.path}": its manifest names no ${what}`);
  };
  if (!parents.model) missing(`parent "model"`);
  if (typeof config.prompt !== "string") missing(`config "prompt"`);
  return {
    model: {
      name: typeof config.model === "string" ? config.model : "unnamed",
      hash: parents.model,
      adapter: parents.run ?? parents.adapter ?? null,
    },
    prompt: config.prompt as string,
    parents: { activations: hash },
  };
}

export const fitTask: Task<typeof fitSchema> = {
  name: "probe fit",
  summary: "Fit probes of seen against unseen people, layer by layer, the faithful and the sound way",
  schema: fitSchema,
  examples: [
    "deno task probe fit --activations runs/activations --seen U1 --unseen U2 --out runs/store/names",
  ],
  async run(config) {
    const name = config.id ?? basename(config.out), id = probeIdSchema.safeParse(name);
    if (!id.success) {
      throw new InputError(`Cannot store a probe as "${name}": expected ${id.error.issues[0].message}`);
    }
    const folder = new DiskFolder(config.activations);
    const { parents, ...origin } = await originOf(folder), set = await readActivations(folder);
    const { split, splits, testSize, splitSeed, ...rest } = config, signal = interruptSignal();
    let bar: Progress | undefined, fitted: FittedProbe;
    try {
      fitted = await fitProbe(set, {
        ...rest,
        calibrate: true,
        faithful: { split, testSize, seed: splitSeed, ...(splits && { partitions: splits }) },
        signal,
        onProgress(done, total, feature) {
          bar ??= progress("fitting", total);
          bar.update(done, feature);
        },
      });
    } catch (thrown) {
      if (signal.aborted) throw new Interrupted("Interrupted: nothing was written");
      throw thrown;
    } finally {
      bar?.stop();
    }
    const facts: Facts = {
      id: id.data,
      title: config.title ?? `${config.seen} against ${config.unseen}`,
      mode: config.mode,
      ...origin,
      content: config.content,
      ...fitted.facts,
    };
    await saveProbe(new DiskFolder(config.out), facts, fitted.tensors, { parents, config: { ...config } });
    if (config.json) console.log(JSON.stringify(facts));
    else console.log(`${fitTable(facts)}\n\n${LEGEND}`);
  },
};
