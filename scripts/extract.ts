/**
 * `deno task extract`: runs a model, tuned or not, over pictures with one question and writes the activations of
 * chosen sites as an activation set, ready for `deno task probe fit`.
 */
import { z } from "zod";
import { personOf } from "../core/data/sample.ts";
import { InputError } from "../core/errors.ts";
import { promptSchema } from "../core/text/codec.ts";
import { writeActivations } from "../core/probe/activations.ts";
import { openGpu } from "../gpu/device.ts";
import { extract } from "../gpu/extract.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { openDataset } from "./dataset.ts";
import { DiskFolder } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { progress } from "./progress.ts";
import { openChosen, tunedFlags, tunedParent } from "./tuned.ts";
import { weightSettings, weightsOf } from "./weights.ts";

await runTask({
  name: "extract",
  summary: "Write the activations that a model has on pictures, layer by layer",
  schema: z.object({
    ...modelFlags,
    ...tunedFlags,
    data: z.array(z.string()).describe("LLaVA- or Qwen-VL-format JSON files, one a set: u1.json,u2.json"),
    images: z.array(z.string()).describe("their image folders, in the same order"),
    sets: z.array(z.string()).default(["U1", "U2"]).describe("names of the sets, in the same order"),
    out: z.string().describe("folder of the activation set"),
    prompt: z.string().default("What is the username?").describe("the question asked about every picture"),
    sites: z.array(z.string()).default(["layers.*.resid_post"]).describe("tap sites, with globs"),
    reductions: z.array(z.string()).default(["index:-2", "last", "image-mean"]).describe(
      "last, index:N, image-mean, text-mean or mean",
    ),
    microTokens: z.number().int().positive().default(4096).describe("tokens that one pass packs at most"),
    ...promptSchema.shape,
    ...weightSettings,
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: [
    "deno task extract --run runs/first --data u1/data.json,u2/data.json --images u1,u2 --out activations",
  ],
  async run(config) {
    if (config.data.length !== config.images.length || config.data.length !== config.sets.length) {
      throw new InputError("Cannot pair --data, --images and --sets: they need as many entries each");
    }
    const sources = await Promise.all(config.data.map((file, i) => openDataset(file, config.images[i])));
    const items = sources.flatMap((source, i) =>
      source.samples.map((sample) => ({ source, sample, set: config.sets[i] }))
    );
    const people = items.map(({ sample }) => personOf(sample));
    const base = await modelFolder(config.model, config), gpu = await openGpu(config.adapter);
    const session = await openChosen(gpu, base, config, {
      weights: weightsOf(config),
      text: promptSchema.parse(config),
    });
    const bar = progress("extracting", items.length);
    const requests = config.sites.flatMap((site) =>
      config.reductions.map((reduction) => ({ site, reduction }))
    );
    const features = await extract(
      gpu,
      session.model,
      items.length,
      async (i) => {
        const { source, sample } = items[i];
        return session.encoder.ask(sample.id, config.prompt, await source.pictures(sample));
      },
      requests,
      { microTokens: config.microTokens, signal: interruptSignal(), onProgress: (done) => bar.update(done) },
    );
    bar.stop();
    const rows = items.map(({ sample, set }, i) => ({
      id: `${set}/${sample.id}`,
      image: sample.images.join(", ") || "none",
      person: people[i],
      set,
      scene: sample.id,
    }));
    const parents: Record<string, string> = { model: session.hash, ...await tunedParent(config) };
    sources.forEach(({ hash }, i) => parents[`data ${config.sets[i]}`] = hash);
    await writeActivations(new DiskFolder(config.out), rows, features, {
      config: { ...config },
      parents,
      facts: { adapter: gpu.name, template: session.encoder.text.template },
    });
    console.log(JSON.stringify({ samples: rows.length, features: [...features.keys()] }));
    gpu.close();
  },
});
