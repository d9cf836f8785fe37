/**
 * The HTTP service as one Hono app over a store of probes and an encoder, the same on every host.
 * It refuses whatever the schemas, the keys, the limits and the image guard do not let pass, always as a problem document.
 */
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { requestId } from "hono/request-id";
import { InputError, messageOf } from "../core/errors.ts";
import { VERSION } from "../core/formats/manifest.ts";
import { MAX_SCANS } from "../core/image/guard.ts";
import type { FalseAlarms } from "../core/probe/decide.ts";
import { readActivations, SAFETENSORS_TYPE, writeActivations } from "./activations.ts";
import { authenticate, type KeySource, type Scope } from "./auth.ts";
import { answerBatch, NDJSON } from "./batch.ts";
import { drain, readBounded } from "./body.ts";
import { bundleFiles, readAlias } from "./bundle_body.ts";
import { docsPage, docsStyle } from "./docs_page.ts";
import type { Encoder } from "./encoder.ts";
import { securityHeaders } from "./headers.ts";
import { readImageBody } from "./image_body.ts";
import { LIMITS, type Limits } from "./limits.ts";
import type { Log } from "./log.ts";
import { createMetrics, type Gauge } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { addPage } from "./page.ts";
import { expectType } from "./parts.ts";
import { describeProblem, Problem } from "./problems.ts";
import { createQueue, type Place } from "./queue.ts";
import type { RateLimiter } from "./rate.ts";
import { type ProbeDescription, probeIdSchema, scoreQuerySchema, summarize } from "./schemas.ts";
import { createScorer } from "./scorer.ts";
import type { ProbeStore, ServedProbe } from "./store/types.ts";

export interface Deps {
  store: ProbeStore;
  encoder: Encoder;
  /** Who may ask; without it everybody may score and nobody may change what is stored. */
  keys?: KeySource;
  /** Per key, and per address, of what lies below /v1; without them nobody is held back. */
  rates?: { key: RateLimiter; address: RateLimiter };
  /** Origins whose pages may call from a browser; "*" for all. */
  origins?: readonly string[];
  limits?: Partial<Limits>;
  log?: Log;
  gauges?: readonly Gauge[];
  /** Whether the host is short of memory: then it takes no more images. */
  memoryShort?: () => boolean;
  /** Whether the host is about to stop: then it is not ready any more. */
  stopping?: () => boolean;
}

/** What a host gives with each request. */
export interface HostFacts {
  /** The client's address, as the rate limit counts it. */
  address?: string;
}
type Variables = { bytes?: number; problem?: string; error?: string; keyId?: string };
export type AppEnv = { Bindings: HostFacts; Variables: Variables };
type Ctx = Context<AppEnv>;

/** The app; give its `fetch` to a host. */
export function createApp(deps: Deps): Hono<AppEnv> {
  const { store } = deps;
  const limits = { ...LIMITS, ...deps.limits };
  const queue = createQueue({ ...limits, full: deps.memoryShort });
  const metrics = createMetrics([
    { name: "afterimage_queue_running", help: "Encodings under way.", read: () => queue.state().running },
    { name: "afterimage_queue_waiting", help: "Requests with a place.", read: () => queue.state().waiting },
    ...deps.gauges ?? [],
  ]);
  const scorer = createScorer(deps.encoder, { ...limits, scans: MAX_SCANS }, metrics);
  const app = new Hono<AppEnv>();

  app.use(async (c, next) => {
    const start = performance.now();
    await next();
    const ms = performance.now() - start;
    metrics.request(c.req.method, routeOf(c.req.path), c.res.status, ms / 1000);
    record(c, c.res.status, ms);
  });
  app.use(requestId({ limitLength: 64 }));
  app.use(securityHeaders());
  if (deps.origins?.length) {
    app.use(cors({
      origin: deps.origins.includes("*") ? "*" : [...deps.origins],
      allowMethods: ["GET", "HEAD", "POST", "PUT", "DELETE"],
      allowHeaders: ["authorization", "content-type", "x-request-id"],
      exposeHeaders: ["x-request-id", "retry-after"],
      maxAge: 600,
    }));
  }

  app.get("/healthz", (c) => c.json({ status: "ok", afterimage: VERSION, queue: queue.state() }));
  app.get("/readyz", async (c) => {
    if (deps.stopping?.()) throw new Problem("not-ready", "The service is stopping");
    try {
      await store.ready();
      return c.json({ status: "ready", probes: (await store.list()).length });
    } catch (thrown) {
      throw new Problem("not-ready", "The store cannot be read", {}, thrown);
    }
  });
  app.get("/metrics", async (c) => {
    await enter(c);
    return c.body(metrics.text(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  addPage(app);
  app.get("/openapi.json", (c) => c.json(openApiDocument({ keys: deps.keys !== undefined })));
  app.get("/docs", (c) => c.html(docsPage(openApiDocument({ keys: deps.keys !== undefined }))));
  app.get("/docs/style.css", (c) => c.body(docsStyle, 200, { "content-type": "text/css; charset=utf-8" }));

  app.get("/v1/probes", async (c) => {
    await enter(c);
    return c.json({ probes: (await store.list()).map((probe) => summarize(kindOf(probe))) });
  });
  app.get("/v1/probes/:id", async (c) => {
    await enter(c);
    return c.json(describe(await find(c)));
  });

  app.post("/v1/probes/:id/score", async (c) => {
    await enter(c, "score");
    const fpr = fprOf(c), probe = await find(c);
    return c.json(
      await inQueue(c, limits.bodyBytes, async (place) => {
        const bytes = await readImageBody(c.req.raw, limits);
        c.set("bytes", bytes.length);
        return await scorer.score(probe, fpr, { bytes, place, signal: c.req.raw.signal });
      }),
    );
  });

  app.post("/v1/probes/:id/encode", async (c) => {
    await enter(c, "score");
    const probe = await find(c);
    return await inQueue(c, limits.bodyBytes, async (place) => {
      const bytes = await readImageBody(c.req.raw, limits);
      c.set("bytes", bytes.length);
      const { activations } = await scorer.encode(probe, { bytes, place, signal: c.req.raw.signal });
      return c.body(writeActivations(probe, activations), 200, { "content-type": SAFETENSORS_TYPE });
    });
  });

  app.post("/v1/probes/:id/batch", async (c) => {
    const who = await enter(c, "score");
    const fpr = fprOf(c), probe = await find(c), signal = c.req.raw.signal, width = limits.concurrent + 1;
    const start = performance.now();
    const place = queue.enter(width * limits.bodyBytes);
    let first = true;
    try {
      const body = await answerBatch(c.req.raw, {
        limits,
        width,
        signal,
        async score(bytes) {
          if (!first) await hold(who); // the first image was counted with its request
          first = false;
          return await scorer.score(probe, fpr, { bytes, place, signal });
        },
        describe(thrown) {
          const { document } = describeProblem(thrown, c.get("requestId"));
          // The request's own line is out by now, and says that all went well.
          if (document.status >= 500) record(c, document.status, performance.now() - start, thrown);
          return document;
        },
        done: () => place.leave(),
      });
      return c.body(body, 200, { "content-type": NDJSON });
    } catch (thrown) {
      place.leave();
      throw thrown;
    }
  });

  app.post("/v1/probes/:id/activations", async (c) => {
    await enter(c, "score");
    const fpr = fprOf(c), probe = await find(c);
    return c.json(
      await inQueue(c, limits.activationBytes, async () => {
        expectType(c.req.raw, [SAFETENSORS_TYPE, "application/octet-stream"]);
        const bytes = await readBounded(c.req.raw, limits.activationBytes, limits.bodyMs);
        return scorer.rows(probe, fpr, await readActivations(probe, bytes, limits.rows));
      }),
    );
  });

  app.put("/v1/probes/:id", async (c) => {
    await enter(c, "admin");
    const id = idOf(c);
    const moved = await inQueue(c, limits.bundleBytes, async () => {
      const bundle = await readAlias(c.req.raw, limits);
      if (bundle === undefined) {
        return await store.put(id, bundleFiles(c.req.raw, limits)).catch(refuseBundle);
      }
      return await store.move(id, bundle);
    });
    if (!moved) throw new Problem("bundle-unknown", "No such version is stored; PUT its files first");
    return c.json({ id, ...moved }, moved.previous === null ? 201 : 200);
  });
  app.delete("/v1/probes/:id", async (c) => {
    await enter(c, "admin");
    const id = idOf(c);
    if (!await store.remove(id)) {
      throw await store.get(id)
        ? new Problem(
          "probe-fixed",
          `"${id}" is a folder of the store and was never put here; remove it there`,
        )
        : unknown(id);
    }
    return c.body(null, 204);
  });

  for (const [path, allow] of ROUTES) {
    app.all(path, (c) => {
      throw new Problem("method-not-allowed", `${c.req.method} is not taken here, expected ${allow}`, {
        allow,
      });
    });
  }
  app.notFound((c) => answer(c, new Problem("not-found", `There is no "${c.req.path.slice(0, 200)}"`)));
  app.onError((thrown, c) => answer(c as Ctx, thrown));
  return app;

  /** A line of the log; with what was thrown, of one image in a batch. */
  function record(c: Ctx, status: number, ms: number, thrown?: unknown): void {
    deps.log?.({
      time: new Date().toISOString(),
      level: status >= 500 ? "error" : "info",
      request_id: c.get("requestId"),
      method: c.req.method,
      path: c.req.path.slice(0, 200),
      status,
      ms: Math.round(ms),
      key_id: c.get("keyId"),
      bytes: c.get("bytes"),
      problem: thrown === undefined ? c.get("problem") : describeProblem(thrown, "").document.type,
      error: thrown === undefined ? c.get("error") : causeOf(thrown),
    });
  }

  async function answer(c: Ctx, thrown: unknown): Promise<Response> {
    await drain(c.req.raw);
    const { document, headers } = describeProblem(thrown, c.get("requestId"));
    c.set("problem", document.type);
    if (document.status >= 500) c.set("error", causeOf(thrown));
    // Through the context, which keeps the headers set so far; 499 is none of the statuses that Hono's types know.
    return c.body(JSON.stringify(document), document.status as 500, {
      "content-type": "application/problem+json",
      ...headers,
    });
  }

  /** Lets a request in that has a key with the scope, where keys are asked for, and is within its rate. */
  async function enter(c: Ctx, scope?: Scope): Promise<Caller> {
    if (scope && deps.stopping?.()) {
      const headers = { "retry-after": "1", "connection": "close" };
      throw new Problem("not-ready", "The service is stopping and takes no more work", headers);
    }
    const address = c.env?.address;
    // The address first: guessing keys is held back too.
    if (address !== undefined) await holdOne(deps.rates?.address, address);
    if (!deps.keys) {
      if (scope === "admin") {
        throw new Problem("admin-closed", "This host asks for no keys, so it lets nobody in");
      }
      return { address };
    }
    const { id } = await authenticate(c.req.header("authorization"), deps.keys, scope);
    c.set("keyId", id);
    await holdOne(deps.rates?.key, id);
    return { address, key: id };
  }

  /** Counts one more image of a caller that was let in. */
  async function hold({ address, key }: Caller): Promise<void> {
    if (address !== undefined) await holdOne(deps.rates?.address, address);
    if (key !== undefined) await holdOne(deps.rates?.key, key);
  }

  async function find(c: Ctx): Promise<ServedProbe> {
    const id = idOf(c), probe = await store.get(id);
    if (!probe) throw unknown(id);
    return probe;
  }

  /** Holds a place in the queue while `work` runs: it is taken before the body is read. */
  async function inQueue<T>(c: Ctx, most: number, work: (place: Place) => Promise<T>): Promise<T> {
    const declared = Number(c.req.header("content-length") ?? NaN);
    const place = queue.enter(declared >= 0 ? Math.min(declared, most) : most);
    try {
      return await work(place);
    } finally {
      place.leave();
    }
  }

  /** Everything stored about a probe but its weights, with what this host takes. */
  function describe({ tensors: _, folder: __, encoder, ...facts }: ServedProbe): ProbeDescription {
    const { bodyBytes, pixels, batchImages, rows } = limits;
    return {
      ...facts,
      encoder: encoder.kind,
      calibrated: facts.layers.every(({ calibration }) => calibration !== undefined),
      limits: { bodyBytes, pixels, scans: MAX_SCANS, batchImages, rows, formats: ["png", "jpeg", "webp"] },
    };
  }
}

interface Caller {
  address?: string;
  key?: string;
}

const READ = "GET, HEAD";
const ROUTES = [
  ["/", READ],
  ["/healthz", READ],
  ["/readyz", READ],
  ["/metrics", READ],
  ["/openapi.json", READ],
  ["/docs", READ],
  ["/docs/style.css", READ],
  ["/v1/probes", READ],
  ["/v1/probes/:id", "GET, HEAD, PUT, DELETE"],
  ["/v1/probes/:id/score", "POST"],
  ["/v1/probes/:id/encode", "POST"],
  ["/v1/probes/:id/batch", "POST"],
  ["/v1/probes/:id/activations", "POST"],
] as const;
const PATTERNS = ROUTES.map(([path]) => ({ path, pattern: new RegExp(`^${path.replace(":id", "[^/]+")}$`) }));

/** The route of a path, for the metrics: whatever is none of ours is one. */
const routeOf = (path: string): string => PATTERNS.find(({ pattern }) => pattern.test(path))?.path ?? "other";

async function holdOne(limiter: RateLimiter | undefined, who: string): Promise<void> {
  const seconds = await limiter?.take(who) ?? 0;
  if (seconds > 0) {
    throw new Problem("rate-limited", `Too many requests; try again in ${seconds} s`, {
      "retry-after": String(seconds),
    });
  }
}

/** What is wrong with a bundle is its sender's business; any other fault is the host's. */
function refuseBundle(thrown: unknown): never {
  if (!(thrown instanceof InputError)) throw thrown;
  throw new Problem("bundle-invalid", thrown.message);
}

const unknown = (id: string): Problem =>
  new Problem("probe-unknown", `No probe "${id}" is stored; GET /v1/probes lists them`);

function idOf(c: Ctx): string {
  const id = probeIdSchema.safeParse(c.req.param("id"));
  if (id.success) return id.data;
  throw new Problem("probe-id-invalid", `A probe id is ${id.error.issues.map((i) => i.message).join("; ")}`);
}

function fprOf(c: Ctx): FalseAlarms {
  const query = scoreQuerySchema.safeParse(c.req.query());
  if (query.success) return Number(query.data.fpr) as FalseAlarms;
  const { path, message } = query.error.issues[0];
  throw new Problem("query-invalid", `The query cannot be used: ${[...path, message].join(": ")}`);
}

/** What went wrong inside, for the log alone. */
const causeOf = (thrown: unknown): string =>
  messageOf(thrown instanceof Problem ? thrown.cause ?? thrown : thrown);

const kindOf = ({ encoder, ...probe }: ServedProbe) => ({ ...probe, encoder: encoder.kind });
