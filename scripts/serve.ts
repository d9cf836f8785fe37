/**
 * `deno task serve`: answers HTTP with the probes of a store, through the models in their bundles, WebGPU or another host.
 * It refuses to listen beyond this machine without API keys unless told to, and to start where it could answer nothing.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { readManifest } from "../core/formats/manifest.ts";
import { promptSchema } from "../core/text/codec.ts";
import type { Encoder } from "../functions/encoder.ts";
import { chooseEncoder } from "../functions/encoders.ts";
import { LIMITS } from "../functions/limits.ts";
import { jsonLines } from "../functions/log.ts";
import { onnxEncoder, verifyModel } from "../functions/onnx_encoder.ts";
import { tokenBuckets } from "../functions/rate.ts";
import { isLoopback, serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { upstreamEncoder } from "../functions/upstream.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { keysInFile, readKeys } from "./keys.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { weightSettings, weightsOf } from "./weights.ts";

const EXAMPLE = new URL("../models/example_bundle", import.meta.url).pathname;
const count = z.number().int().min(1);

const schema = z.object({
  store: z.string().default(EXAMPLE).describe(
    "folder of probes and bundles (default the example in models/)",
  ),
  ...modelFlags,
  run: z.array(z.string()).default([]).describe(
    "finished runs of that model, served beside the model as it is",
  ),
  upstream: z.url({ protocol: /^https?$/ }).optional().describe(
    "URL of another host that has the GPU and the models; AFTERIMAGE_UPSTREAM_KEY holds its key",
  ),
  host: z.string().default("127.0.0.1").describe("address to listen on"),
  port: z.number().int().min(0).max(65535).default(8787).describe("0 takes any free one"),
  keys: z.string().optional().describe("file of API keys, made by deno task key"),
  open: z.boolean().default(false).describe("listen beyond this machine without asking for keys"),
  cors: z.array(z.string()).default([]).describe("origins whose pages may call from a browser, or *"),
  perMinute: z.number().min(0).optional().describe(
    "requests a minute for a key and for an address, 0 for any (default 600 beyond this machine)",
  ),
  ...promptSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  waiting: z.number().int().min(0).max(1000).default(LIMITS.waiting).describe(
    "requests under way beside the one encoded",
  ),
  maxBytes: count.default(LIMITS.bodyBytes).describe("largest image file taken"),
  maxPixels: count.default(LIMITS.pixels).describe("largest picture taken"),
  maxMemory: z.number().int().min(0).default(0).describe(
    "MB of the process above which images are taken one by one; 0 for any",
  ),
});
type Settings = z.infer<typeof schema>;

/** The models of this machine, opened before the first request; what computes them is loaded only here. */
async function gpuEncoder(
  { model, mmProjector, visionTower, run, weights: type, quant, adapter, template, system }: Settings,
): Promise<{ other: Encoder; by: string }> {
  await import("./setup.ts");
  const { openGpu } = await import("../gpu/device.ts");
  const { openRun, openSession } = await import("../gpu/session.ts");
  const { createGpuEncoder } = await import("./encoder.ts");
  const text = { template, system }, weights = weightsOf({ weights: type, quant });
  // Before the GPU: a wrong path is told at once.
  const hashes = await Promise.all(run.map((path) => readManifest(new DiskFolder(path), "run")));
  const base = await modelFolder(model, { mmProjector, visionTower }), gpu = await openGpu(adapter);
  const models = [{
    session: await openSession(gpu, base, { weights, text }),
    adapter: null as string | null,
  }];
  for (const [n, path] of run.entries()) {
    const session = await openRun(gpu, base, new DiskFolder(path), weights, text);
    models.push({ session, adapter: hashes[n].hash });
  }
  return { other: createGpuEncoder(models), by: gpu.name };
}

/** What answers for probes without a model in their bundle. */
async function otherEncoder(settings: Settings, needed: boolean): Promise<{ other?: Encoder; by: string }> {
  const { upstream, run } = settings, key = Deno.env.get("AFTERIMAGE_UPSTREAM_KEY");
  if (upstream !== undefined) return { other: upstreamEncoder(upstream, { key }), by: upstream };
  return needed || run.length > 0 ? await gpuEncoder(settings) : { by: "the models in their bundles" };
}

await runTask({
  name: "serve",
  summary: "Serve stored probes over HTTP: an image in, per-layer scores out",
  schema,
  examples: [
    "deno task serve",
    "deno task serve --store runs/demo/store --run runs/demo/arms/known",
    "deno task serve --store store --host 0.0.0.0 --keys keys.json",
    "deno task serve --store runs/demo/store --upstream https://gpu.example.org",
  ],
  async run(settings) {
    const { host, port, keys, waiting, maxBytes, maxPixels, cors } = settings, near = isLoopback(host);
    const perMinute = settings.perMinute ?? (near ? 0 : 600);
    if (keys !== undefined && (await readKeys(keys)).length === 0) {
      throw new InputError(
        `Cannot serve: "${keys}" holds no keys; make one with deno task key --keys ${keys}`,
      );
    }
    if (keys === undefined && !near && !settings.open) {
      throw new InputError(
        `Cannot listen on "${host}" without API keys: name a file with --keys, or say --open if everybody may ask`,
      );
    }
    const store = folderStore(new DiskFolder(settings.store), { freshMs: 1000 }), probes = await store.list();
    if (probes.length === 0 && keys === undefined) {
      throw new InputError(
        `Cannot serve "${settings.store}": it holds no finished probe or bundle; only a service with --keys can be given one`,
      );
    }
    for (const probe of probes) await verifyModel(probe);
    const needed = probes.some(({ encoder }) => encoder.kind === "upstream");
    const { other, by } = await otherEncoder(settings, needed);
    const rate = () => tokenBuckets({ perMinute, burst: Math.max(1, perMinute / 10) });
    const deps = {
      store,
      encoder: chooseEncoder({ onnx: onnxEncoder(), other }),
      keys: keys === undefined ? undefined : await keysInFile(keys),
      rates: perMinute > 0 ? { key: rate(), address: rate() } : undefined,
      origins: cors,
      limits: { waiting, bodyBytes: maxBytes, pixels: maxPixels },
      log: jsonLines(console.log),
    };
    const memoryBytes = settings.maxMemory * 1_000_000;
    const service = serveApp(deps, { host, port, memoryBytes, signal: interruptSignal() });
    const ids = probes.map(({ id }) => id).join(", ") || "nothing yet";
    console.error(
      `Serving ${ids} at ${service.url}, encoded by ${by}, ${keys ? "with API keys" : "without keys"}`,
    );
    await service.finished;
  },
});
