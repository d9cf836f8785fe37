/**
 * `deno task serve`: answers HTTP with the probes of a store, through WebGPU or through another host that has it.
 * It listens on this machine alone unless told otherwise, for it asks nobody for a key; it refuses an empty store.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { readManifest } from "../core/formats/manifest.ts";
import type { Encoder } from "../functions/encoder.ts";
import { LIMITS } from "../functions/limits.ts";
import { jsonLines } from "../functions/log.ts";
import { serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { upstreamEncoder } from "../functions/upstream.ts";
import { promptSchema } from "../core/text/codec.ts";
import { openGpu } from "../gpu/device.ts";
import { openRun, openSession } from "../gpu/session.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { createGpuEncoder, type OpenModel } from "./encoder.ts";
import { DiskFolder } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { weightSettings, weightsOf } from "./weights.ts";

const schema = z.object({
  store: z.string().describe("folder with one probe folder an id"),
  ...modelFlags,
  run: z.array(z.string()).default([]).describe(
    "finished runs of that model, served beside the model as it is",
  ),
  upstream: z.url({ protocol: /^https?$/ }).optional().describe(
    "URL of another host that has the GPU and the models",
  ),
  host: z.string().default("127.0.0.1").describe("address to listen on"),
  port: z.number().int().min(0).max(65535).default(8787).describe("0 takes any free one"),
  ...promptSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  waiting: z.number().int().min(0).max(1000).default(LIMITS.waiting).describe(
    "requests under way beside the one encoded",
  ),
  maxBytes: z.number().int().min(1).default(LIMITS.bodyBytes).describe("largest image file taken"),
  maxPixels: z.number().int().min(1).default(LIMITS.pixels).describe("largest picture taken"),
});
type Settings = z.infer<typeof schema>;

/** The models of this machine, opened before the first request. */
async function ownEncoder(
  { model, mmProjector, visionTower, run, weights: type, quant, adapter, template, system }: Settings,
): Promise<{ encoder: Encoder; by: string }> {
  const text = { template, system }, weights = weightsOf({ weights: type, quant });
  const base = await modelFolder(model, { mmProjector, visionTower }), gpu = await openGpu(adapter);
  const models: OpenModel[] = [{ session: await openSession(gpu, base, { weights, text }), adapter: null }];
  for (const path of run) {
    const folder = new DiskFolder(path);
    const { hash } = await readManifest(folder, "run");
    models.push({ session: await openRun(gpu, base, folder, weights, text), adapter: hash });
  }
  return { encoder: createGpuEncoder(models), by: gpu.name };
}

await runTask({
  name: "serve",
  summary: "Serve stored probes over HTTP: an image in, per-layer scores out",
  schema,
  examples: [
    "deno task serve --store runs/demo/store --run runs/demo/arms/known",
    "deno task serve --store runs/demo/store --upstream https://gpu.example.org",
  ],
  async run(settings) {
    const { upstream, host, port, waiting, maxBytes, maxPixels } = settings;
    const store = folderStore(new DiskFolder(settings.store));
    const ids = (await store.list()).map(({ id }) => id);
    if (ids.length === 0) throw new InputError(`Cannot serve "${settings.store}": it holds no stored probe`);
    const { encoder, by } = upstream === undefined
      ? await ownEncoder(settings)
      : { encoder: upstreamEncoder(upstream), by: upstream };
    const limits = { waiting, bodyBytes: maxBytes, pixels: maxPixels };
    const deps = { store, encoder, limits, log: jsonLines(console.log) };
    const service = serveApp(deps, { host, port, signal: interruptSignal() });
    console.error(`Serving ${ids.join(", ")} at ${service.url}, encoded by ${by}`);
    await service.finished;
  },
});
