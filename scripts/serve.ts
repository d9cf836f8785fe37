/**
 * `deno task serve`: answers HTTP with the probes of a store, through WebGPU. It listens on this machine alone unless
 * told otherwise, and ends after the requests under way.
 */
import { z } from "zod";
import { readManifest } from "../core/formats/manifest.ts";
import { serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { openGpu } from "../gpu/device.ts";
import { openRun, openSession } from "../gpu/session.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { createGpuEncoder, type OpenModel } from "./encoder.ts";
import { DiskFolder } from "./folder.ts";
import { modelFolder } from "./model.ts";

await runTask({
  name: "serve",
  summary: "Serve stored probes over HTTP: an image in, per-layer scores out",
  schema: z.object({
    store: z.string().describe("folder with one probe folder an id"),
    model: z.string().default("builtin:tiny").describe("builtin:tiny or a checkpoint folder"),
    run: z.array(z.string()).default([]).describe(
      "finished runs of that model, served beside the model as it is",
    ),
    host: z.string().default("127.0.0.1").describe("address to listen on"),
    port: z.number().int().min(0).max(65535).default(8787).describe("0 takes any free one"),
    weights: z.enum(["f32", "bf16"]).default("f32").describe("how frozen matrices lie on the GPU"),
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: ["deno task serve --store runs/demo/store --run runs/demo/arms/known"],
  async run({ store, model, run, host, port, weights, adapter }) {
    const base = await modelFolder(model), gpu = await openGpu(adapter);
    const models: OpenModel[] = [{ session: await openSession(gpu, base, { weights }), adapter: null }];
    for (const path of run) {
      const folder = new DiskFolder(path);
      models.push({
        session: await openRun(gpu, base, folder, weights),
        adapter: (await readManifest(folder, "run")).hash,
      });
    }
    const server = serveApp(
      {
        store: folderStore(new DiskFolder(store)),
        encoder: createGpuEncoder(models),
        log: (entry) => console.log(JSON.stringify(entry)),
      },
      { host, port, signal: interruptSignal() },
    );
    console.error(`Serving ${store} on ${server.url} (${gpu.name})`);
    await server.finished;
  },
});
