/**
 * The Cloudflare Worker: probes from an R2 bucket, activations from an upstream host with a GPU.
 * It refuses to start without `AFTERIMAGE_UPSTREAM`, for a Worker has no GPU of its own.
 */
import { InputError } from "../core/errors.ts";
import { type CodecModules, initCodecs } from "../core/image/codecs.ts";
import { createApp } from "./app.ts";
import { jsonLines } from "./log.ts";
import { type Bucket, bucketFolder } from "./store/bucket_folder.ts";
import { folderStore } from "./store/folder_store.ts";
import { upstreamEncoder } from "./upstream.ts";

/** What wrangler.toml binds. */
export interface Env {
  PROBES: Bucket;
  AFTERIMAGE_UPSTREAM?: string;
}

/** A Worker has 128 MB: smaller pictures, and a few requests that only wait for the upstream. */
const WORKER_LIMITS = { bodyBytes: 4_000_000, pixels: 4_000_000, concurrent: 4, waiting: 4 };

type App = ReturnType<typeof createApp>;

async function start(env: Env, codecs: CodecModules, write: (line: string) => void): Promise<App> {
  if (!env.AFTERIMAGE_UPSTREAM) {
    throw new InputError(
      'Cannot start: the variable "AFTERIMAGE_UPSTREAM" is not set, expected the URL of a GPU host',
    );
  }
  await initCodecs(codecs);
  return createApp({
    store: folderStore(bucketFolder(env.PROBES)),
    // A Worker's fetch must be called as a plain function.
    encoder: upstreamEncoder(env.AFTERIMAGE_UPSTREAM, { send: (input, init) => fetch(input, init) }),
    limits: WORKER_LIMITS,
    log: jsonLines(write),
  });
}

/** The Worker, with the decoders' WebAssembly as its bundler compiled it; the app is made at the first request. */
export function createWorker(
  codecs: CodecModules,
  write: (line: string) => void = console.log,
): { fetch(request: Request, env: Env): Promise<Response> } {
  let starting: Promise<App> | undefined;
  return {
    async fetch(request, env) {
      starting ??= start(env, codecs, write).catch((error) => {
        starting = undefined; // so that the next request tries again
        throw error;
      });
      return await (await starting).fetch(request, env);
    },
  };
}
