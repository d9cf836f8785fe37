/**
 * The HTTP service as one Hono app over a store of probes and an encoder, the same on every host.
 * It refuses whatever the schemas, the limits and the image guard do not let pass, always as a problem document.
 */
import { type Context, Hono } from "hono";
import { requestId } from "hono/request-id";
import { secureHeaders } from "hono/secure-headers";
import { messageOf } from "../core/errors.ts";
import { sha256, VERSION } from "../core/formats/manifest.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { decodeImage } from "../core/image/codecs.ts";
import { scoreProbe, type StoredProbe } from "../core/probe/stored.ts";
import { readImageBody } from "./body.ts";
import type { Encoder, ReceivedImage } from "./encoder.ts";
import type { Log } from "./log.ts";
import { describeProblem, Problem } from "./problems.ts";
import { createQueue, type Place } from "./queue.ts";
import { type LayerScore, probeIdSchema, type ProbeList, type Score, summarize } from "./schemas.ts";
import type { ProbeStore } from "./store/types.ts";

/** What one request may cost; every number can be set by the host. */
export interface Limits {
  bodyBytes: number;
  bodyMs: number;
  pixels: number;
  /** From the request's turn to its activations, the wait in the queue included. */
  encodeMs: number;
  /** Pieces of work on the encoder at once, and requests that may be under way beside them. */
  concurrent: number;
  waiting: number;
}
export const LIMITS: Limits = {
  bodyBytes: 8_000_000,
  bodyMs: 30_000,
  pixels: 4_000_000,
  encodeMs: 60_000,
  concurrent: 1,
  waiting: 15,
};

export interface Deps {
  store: ProbeStore;
  encoder: Encoder;
  limits?: Partial<Limits>;
  log?: Log;
}

type Variables = { bytes?: number; problem?: string; error?: string };
type Ctx = Context<{ Variables: Variables }>;

/** The app; give its `fetch` to a host. */
export function createApp(deps: Deps): Hono<{ Variables: Variables }> {
  const { store, encoder } = deps;
  const limits = { ...LIMITS, ...deps.limits };
  const queue = createQueue(limits);
  const app = new Hono<{ Variables: Variables }>();

  app.use(async (c, next) => {
    const start = performance.now();
    await next();
    deps.log?.({
      time: new Date().toISOString(),
      level: c.res.status >= 500 ? "error" : "info",
      request_id: c.get("requestId"),
      method: c.req.method,
      path: c.req.path.slice(0, 200),
      status: c.res.status,
      ms: Math.round(performance.now() - start),
      bytes: c.get("bytes"),
      problem: c.get("problem"),
      error: c.get("error"),
    });
  });
  app.use(requestId({ limitLength: 64 }));
  app.use(secureHeaders({ contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } }));
  app.use(async (c, next) => {
    await next();
    c.res.headers.set("cache-control", "no-store");
  });

  app.get("/healthz", (c) => c.json({ status: "ok", afterimage: VERSION, queue: queue.state() }));

  app.get("/v1/probes", async (c) => {
    const list: ProbeList = { probes: (await store.list()).map(summarize) };
    return c.json(list);
  });

  app.get("/v1/probes/:id", async (c) => c.json(describe(await find(c))));

  app.post("/v1/probes/:id/score", async (c) =>
    c.json(
      await inQueue(c, async (probe, place) => {
        const { image, activations, decode, encode } = await encoded(c, probe, place);
        const start = performance.now();
        const layers = layerScores(probe, activations);
        const score = performance.now() - start;
        const result: Score = {
          probe: probe.id,
          image: {
            sha256: await sha256(image.bytes),
            width: image.width,
            height: image.height,
            format: image.format,
          },
          layers,
          primary: layers.find((layer) => layer.feature === probe.primary)!,
          model: probe.model,
          timings_ms: { decode: round(decode), encode: round(encode), score: round(score) },
        };
        return result;
      }),
    ));

  app.post("/v1/probes/:id/activations", async (c) =>
    await inQueue(c, async (probe, place) => {
      const { activations } = await encoded(c, probe, place);
      const tensors = Object.fromEntries(
        probe.layers.map(({ feature, dim }) => [feature, { shape: [dim], data: activations[feature] }]),
      );
      const file = encodeSafetensors(tensors, { probe: probe.id, model: modelName(probe) });
      return c.body(file, 200, { "content-type": "application/vnd.safetensors" });
    }));

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

  function answer(c: Ctx, thrown: unknown): Response {
    const { document, headers } = describeProblem(thrown, c.get("requestId"));
    c.set("problem", document.type);
    if (document.status >= 500) {
      c.set("error", messageOf(thrown instanceof Problem ? thrown.cause ?? thrown : thrown));
    }
    // Through the context, which keeps the headers set so far; 499 is none of the statuses that Hono's types know.
    return c.body(JSON.stringify(document), document.status as 500, {
      "content-type": "application/problem+json",
      ...headers,
    });
  }

  async function find(c: Ctx): Promise<StoredProbe> {
    const id = probeIdSchema.safeParse(c.req.param("id"));
    if (!id.success) {
      throw new Problem(
        "probe-id-invalid",
        `A probe id is ${id.error.issues.map((i) => i.message).join("; ")}`,
      );
    }
    const probe = await store.get(id.data);
    if (!probe) {
      throw new Problem("probe-unknown", `No probe "${id.data}" is stored; GET /v1/probes lists them`);
    }
    return probe;
  }

  /** Holds a place in the queue while `work` runs: it is taken before the body is read. */
  async function inQueue<T>(c: Ctx, work: (probe: StoredProbe, place: Place) => Promise<T>): Promise<T> {
    const probe = await find(c);
    const place = queue.enter();
    try {
      return await work(probe, place);
    } finally {
      place.leave();
    }
  }

  /** The request's image and what the model makes of it, with the milliseconds that each took. */
  async function encoded(c: Ctx, probe: StoredProbe, place: Place) {
    const bytes = await readImageBody(c.req.raw, limits);
    c.set("bytes", bytes.length);
    const start = performance.now();
    const picture = await decodeImage(bytes, { maxPixels: limits.pixels, name: "image" });
    const decode = performance.now() - start;
    const image: ReceivedImage = { ...picture, bytes };
    const timeout = AbortSignal.timeout(limits.encodeMs);
    const signal = AbortSignal.any([c.req.raw.signal, timeout]);
    let encode = 0;
    const work = async () => {
      const begun = performance.now();
      const activations = await encoder.activations(probe, image, signal);
      encode = performance.now() - begun;
      return activations;
    };
    try {
      const activations = await place.run(work, signal);
      return { image, activations: checked(probe, activations), decode, encode };
    } catch (thrown) {
      if (timeout.aborted) {
        throw new Problem("encoder-timeout", `The encoder gave no answer within ${limits.encodeMs / 1000} s`);
      }
      if (c.req.raw.signal.aborted) throw new Problem("request-cancelled", "The client went away");
      throw thrown;
    }
  }
}

const ROUTES = [
  ["/healthz", "GET, HEAD"],
  ["/v1/probes", "GET, HEAD"],
  ["/v1/probes/:id", "GET, HEAD"],
  ["/v1/probes/:id/score", "POST"],
  ["/v1/probes/:id/activations", "POST"],
] as const;

/** The model an activation comes from, as one string: name, hash of its weights, hash of its adapter. */
export function modelName({ model }: StoredProbe): string {
  return [model.name, model.hash, model.adapter ?? "no adapter"].join(" ");
}

/** Everything stored about a probe but its weights. */
function describe({ tensors: _, ...facts }: StoredProbe): Omit<StoredProbe, "tensors"> {
  return facts;
}

/** The encoder's answer, held to the probe's features: one missing or of another width is the host's fault. */
function checked(
  probe: StoredProbe,
  activations: Record<string, Float32Array>,
): Record<string, Float32Array<ArrayBuffer>> {
  return Object.fromEntries(probe.layers.map(({ feature, dim }) => {
    const values = activations[feature];
    if (values?.length !== dim) {
      throw new Error(
        `Cannot score "${feature}": the encoder gave ${values?.length ?? "no"} values, expected ${dim}`,
      );
    }
    return [feature, Float32Array.from(values)];
  }));
}

function layerScores(probe: StoredProbe, activations: Record<string, Float32Array>): LayerScore[] {
  const scores = new Map(scoreProbe(probe, activations).map((layer) => [layer.feature, layer]));
  return probe.layers.map(({ feature, site, reduction }) => {
    const { score, probability, calibrated, beyond } = scores.get(feature)!;
    return { feature, site, reduction, score, probability, calibrated, beyond };
  });
}

const round = (ms: number): number => Math.round(ms * 100) / 100;
