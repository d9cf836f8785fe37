/**
 * A typed client of the service for Deno, Node and browsers: it retries with jitter, obeys Retry-After and bounds what is under way.
 * It refuses answers that the schemas do not know, and throws a `ServiceError` for whatever the service refuses.
 */
import type { z } from "zod";
import { messageOf } from "../core/errors.ts";
import { sniffFormat } from "../core/image/header.ts";
import { batchLines, type ImageBytes, type NamedImage, readLines } from "./client_batch.ts";
import { ServiceError } from "./client_error.ts";
import { limiter, mayPass, pause, retryAfterMs, type RetryOptions, waitMs } from "./retry.ts";
import {
  type ActivationScores,
  activationScoresSchema,
  type BatchLine,
  type ProbeDescription,
  probeDescriptionSchema,
  type ProbeList,
  probeListSchema,
  problemSchema,
  type Score,
  scoreSchema,
} from "./schemas.ts";

export interface ClientOptions extends Partial<RetryOptions> {
  /** An API key with the scope "score". */
  key?: string;
  /** Requests under way at once, over all calls of this client; 4 unless told. */
  concurrency?: number;
  /** Of one try, from its turn to the last byte of its answer; 120 s unless told. */
  timeoutMs?: number;
  /** The host's own unless told. */
  fetch?: typeof fetch;
}

export interface CallOptions {
  signal?: AbortSignal;
}
export interface ScoreOptions extends CallOptions {
  /** The share of unseen people's pictures that may be flagged; the service's 0.01 unless told. */
  fpr?: 0.01 | 0.001;
}
export interface BatchOptions extends ScoreOptions {
  /** Images of one request; 16 unless told. */
  images?: number;
  /** Bytes of one request's images; 8 MB unless told. */
  bytes?: number;
}

/** Every call throws a ServiceError, or the reason of its own signal. */
export interface Client {
  probes(options?: CallOptions): Promise<ProbeList["probes"]>;
  probe(id: string, options?: CallOptions): Promise<ProbeDescription>;
  score(id: string, image: ImageBytes, options?: ScoreOptions): Promise<Score>;
  /** One line an image, in order, as they arrive; an image that is refused has a `problem` in place of its `score`. */
  batch(
    id: string,
    images: Iterable<NamedImage> | AsyncIterable<NamedImage>,
    options?: BatchOptions,
  ): AsyncGenerator<BatchLine, void>;
  /** Scores of activations that the caller extracted: a safetensors file, one tensor (dim) or (rows, dim) a feature. */
  activations(id: string, file: Uint8Array<ArrayBuffer>, options?: ScoreOptions): Promise<ActivationScores>;
}

/** Sends one request as often as it takes; `read` makes the answer, in the same turn and under the same timeout. */
export type Send = <T>(
  path: string,
  init: RequestInit,
  read: (answer: Response) => Promise<T>,
  options?: CallOptions,
) => Promise<T>;

/** Not seeded: clients that were refused together must not come back together. */
const drawn = (): number => crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32;
const DEFAULTS = {
  retries: 4,
  baseMs: 300,
  maxMs: 20_000,
  random: drawn,
  concurrency: 4,
  timeoutMs: 120_000,
};

/** A client of the service at `url`. */
export function createClient(url: string, options: ClientOptions = {}): Client {
  const settings = { ...DEFAULTS, ...options };
  const base = url.replace(/\/+$/, "");
  // A browser's and a Worker's fetch must be called as a plain function.
  const go: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init));
  const inTurn = limiter(settings.concurrency);

  const attempt = <T>(
    path: string,
    init: RequestInit,
    read: (answer: Response) => Promise<T>,
    signal?: AbortSignal,
  ) =>
    inTurn(async () => {
      const timeout = AbortSignal.timeout(settings.timeoutMs);
      const headers = new Headers(init.headers);
      if (settings.key !== undefined) headers.set("authorization", `Bearer ${settings.key}`);
      const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
      const answer = await go(base + path, { ...init, headers, signal: either });
      if (!answer.ok) throw await refused(answer);
      return await read(answer);
    }, signal);

  const send: Send = async (path, init, read, { signal } = {}) => {
    for (let n = 0;; n++) {
      try {
        return await attempt(path, init, read, signal);
      } catch (thrown) {
        signal?.throwIfAborted();
        const error = thrown instanceof ServiceError ? thrown : unreachable(base, thrown);
        if (!error.passing || n >= settings.retries || error.retryAfterMs > settings.maxMs) throw error;
        await pause(waitMs(n, error.retryAfterMs, settings), signal);
      }
    }
  };
  const get = <S extends z.ZodType>(path: string, schema: S, call?: CallOptions) =>
    send(path, {}, (answer) => readJson(answer, schema), call);
  const score: Client["score"] = async (id, image, call = {}) => {
    const headers = { "content-type": await mediaType(image) };
    const init = { method: "POST", headers, body: image };
    return await send(probePath(id, "/score", call), init, (answer) => readJson(answer, scoreSchema), call);
  };

  return {
    probes: async (call) => (await get("/v1/probes", probeListSchema, call)).probes,
    probe: (id, call) => get(probePath(id), probeDescriptionSchema, call),
    score,
    batch(id, images, call = {}) {
      const limits = { images: 16, bytes: 8_000_000, width: settings.concurrency, ...call };
      return batchLines(images, limits, {
        post(group, take, signal) {
          const body = new FormData();
          for (const { image, name } of group) body.append("image", new Blob([image]), name ?? "image");
          const init = { method: "POST", body };
          return send(probePath(id, "/batch", call), init, (answer) => readLines(answer, take), { signal });
        },
        score: (image, signal) => score(id, image, { ...call, signal }),
      });
    },
    activations(id, file, call = {}) {
      const init = { method: "POST", headers: { "content-type": "application/vnd.safetensors" }, body: file };
      const read = (answer: Response) => readJson(answer, activationScoresSchema);
      return send(probePath(id, "/activations", call), init, read, call);
    },
  };
}

const probePath = (id: string, verb = "", { fpr }: ScoreOptions = {}): string =>
  `/v1/probes/${encodeURIComponent(id)}${verb}${fpr === undefined ? "" : `?fpr=${fpr}`}`;

async function mediaType(image: ImageBytes): Promise<string> {
  const head = image instanceof Blob ? new Uint8Array(await image.slice(0, 16).arrayBuffer()) : image;
  return `image/${sniffFormat(head) ?? "png"}`; // the service says what is wrong with a file that is none of these
}

/** @throws ServiceError when the answer is not what the schema says: that is no use trying again */
async function readJson<S extends z.ZodType>(answer: Response, schema: S): Promise<z.infer<S>> {
  const parsed = schema.safeParse(await answer.json());
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new ServiceError(`Cannot read the answer: field "${path.join(".")}": ${message}`, {
    status: answer.status,
    passing: false,
  });
}

/** What a refusal says: its problem document's detail where there is one. */
async function refused(answer: Response): Promise<ServiceError> {
  const { status } = answer;
  const parsed = problemSchema.safeParse(await answer.json().catch(() => undefined));
  const problem = parsed.success ? parsed.data : undefined;
  const what = problem ? `${problem.detail} (${problem.type})` : "no problem document came with it";
  return new ServiceError(`The service answered ${status}: ${what}`, {
    status,
    problem,
    retryAfterMs: retryAfterMs(answer.headers.get("retry-after")),
    passing: mayPass(status),
  });
}

function unreachable(base: string, cause: unknown): ServiceError {
  return new ServiceError(`Cannot reach "${base}": ${messageOf(cause)}`, { status: 0, passing: true, cause });
}
