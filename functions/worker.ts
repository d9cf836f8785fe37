/**
 * The Cloudflare Worker: bundles in R2, API keys in KV, rates by binding, models on onnxruntime-web or on an upstream host.
 * It lets nobody in without a key unless the variable `AFTERIMAGE_OPEN` says "yes".
 */
import { type CodecModules, initCodecs } from "../core/image/codecs.ts";
import { createApp } from "./app.ts";
import { keysInKv, type KeyValues } from "./auth.ts";
import { chooseEncoder } from "./encoders.ts";
import type { Limits } from "./limits.ts";
import { jsonLines } from "./log.ts";
import { onnxEncoder } from "./onnx_encoder.ts";
import { bindingLimiter, type RateBinding } from "./rate.ts";
import { type Bucket, bucketFolder } from "./store/bucket_folder.ts";
import { folderStore } from "./store/folder_store.ts";
import { upstreamEncoder } from "./upstream.ts";

/** What wrangler.toml binds. */
export interface Env {
  PROBES: Bucket;
  KEYS: KeyValues;
  RATE_KEY: RateBinding;
  RATE_ADDRESS: RateBinding;
  /** URL of a host with a GPU, for probes whose bundle holds no model; empty for none. */
  AFTERIMAGE_UPSTREAM?: string;
  /** A secret: the upstream's API key. */
  AFTERIMAGE_UPSTREAM_KEY?: string;
  /** "yes" lets everybody score. */
  AFTERIMAGE_OPEN?: string;
  /** Origins whose pages may call, with commas between. */
  AFTERIMAGE_ORIGINS?: string;
}

/** WebAssembly as the bundler compiled it: a Worker compiles none itself. */
export interface WorkerModules extends CodecModules {
  onnxRuntime?: WebAssembly.Module;
}

/** An isolate has 128 MB for the runtime, the model and all pictures together. */
const WORKER_LIMITS: Partial<Limits> = {
  bodyBytes: 4_000_000,
  pixels: 4_000_000,
  concurrent: 2,
  waiting: 14,
  heldBytes: 24_000_000,
  batchImages: 100,
  batchBytes: 90_000_000,
  activationBytes: 8_000_000,
  bundleBytes: 24_000_000,
};
/** The period of both limits in wrangler.toml. */
const RATE_SECONDS = 60;

type App = ReturnType<typeof createApp>;

async function start(
  env: Env,
  { onnxRuntime, ...codecs }: WorkerModules,
  write: (line: string) => void,
): Promise<App> {
  await initCodecs(codecs);
  const { AFTERIMAGE_UPSTREAM: upstream, AFTERIMAGE_UPSTREAM_KEY: key, AFTERIMAGE_ORIGINS: origins } = env;
  // A Worker's fetch must be called as a plain function.
  const send: typeof fetch = (input, init) => fetch(input, init);
  return createApp({
    store: folderStore(bucketFolder(env.PROBES), { freshMs: 2000 }),
    encoder: chooseEncoder({
      onnx: onnxEncoder({ wasm: onnxRuntime, kept: 1 }),
      other: upstream ? upstreamEncoder(upstream, { send, key }) : undefined,
    }),
    keys: env.AFTERIMAGE_OPEN === "yes" ? undefined : keysInKv(env.KEYS),
    rates: {
      key: bindingLimiter(env.RATE_KEY, RATE_SECONDS),
      address: bindingLimiter(env.RATE_ADDRESS, RATE_SECONDS),
    },
    origins: origins?.split(",").map((origin) => origin.trim()).filter(Boolean),
    limits: WORKER_LIMITS,
    log: jsonLines(write),
  });
}

/** The Worker; the app is made at the first request. */
export function createWorker(
  modules: WorkerModules,
  write: (line: string) => void = console.log,
): { fetch(request: Request, env: Env): Promise<Response> } {
  let starting: Promise<App> | undefined;
  return {
    async fetch(request, env) {
      starting ??= start(env, modules, write).catch((error) => {
        starting = undefined; // so that the next request tries again
        throw error;
      });
      const address = request.headers.get("cf-connecting-ip") ?? "unknown";
      return await (await starting).fetch(request, { address });
    },
  };
}
