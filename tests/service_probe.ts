/**
 * What the service's tests share: a stored probe with known weights, an encoder whose answer can be worked out by hand
 * (the means of the picture's channels), a running service, and the check of a problem document.
 */
import assert from "node:assert/strict";
import { type Folder, MemoryFolder } from "../core/formats/folder.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { type Facts, saveProbe } from "../core/probe/stored.ts";
import type { Deps } from "../functions/app.ts";
import type { Encoder } from "../functions/encoder.ts";
import type { LogEntry } from "../functions/log.ts";
import { type ProblemDocument, problemSchema } from "../functions/schemas.ts";
import { type Listening, serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import type { ProbeStore } from "../functions/store/types.ts";

/** Saves it below `root` as `id`, as fitted on a model of that name. Returns what was stored about it. */
export async function saveTestProbe(
  root: Folder,
  id: string,
  features: string[],
  model = "test-model",
): Promise<Facts> {
  const facts: Facts = {
    id,
    title: "A probe for tests",
    mode: "sound",
    model: { name: model, hash: "ab".repeat(32), adapter: null },
    content: "made up",
    prompt: "what is this",
    primary: features.at(-1)!,
    seen: { set: "U1", people: 8 },
    unseen: { set: "U2", people: 8 },
    seed: 0,
    layers: features.map((feature) => {
      const [site, reduction] = feature.split("@");
      return { feature, site, reduction, dim: 3, metrics: {}, threshold: null };
    }),
  };
  const tensors = Object.fromEntries(
    features.map((feature, i) => [feature, { coef: Float64Array.of(1, -2, 3), intercept: 0.25 * (i + 1) }]),
  );
  await saveProbe(root.folder(id), facts, tensors);
  return facts;
}

export const FEATURES: string[] = ["layers.0.resid_post@image-mean", "layers.1.resid_post@last"];

/** Means of red, green and blue, 0 to 1, times the layer's number plus one. */
export function channelMeans({ data }: Picture): number[] {
  const sums = [0, 0, 0];
  for (let i = 0; i < data.length; i++) sums[i % 3] += data[i] / 255;
  return sums.map((sum) => (sum * 3) / data.length);
}
export const meansEncoder: Encoder = {
  activations: (probe, image) =>
    Promise.resolve(Object.fromEntries(
      probe.layers.map(({ feature }, i) => [
        feature,
        Float32Array.from(channelMeans(image), (mean) => mean * (i + 1)),
      ]),
    )),
};

export const picture: Picture = blankPicture(20, 10);
for (let i = 0; i < picture.data.length; i++) picture.data[i] = (i * 7) % 256;
export const png: Uint8Array<ArrayBuffer> = await encodeImage(picture, "png");

export const root: MemoryFolder = new MemoryFolder("store");
export const probe: Facts = await saveTestProbe(root, "tiny-test", FEATURES);

/** A store in which the test probe goes by another id too, as an upstream must know it. */
export function renamed(id: string): ProbeStore {
  const store = folderStore(root);
  return {
    ...store,
    get: async (asked) => asked === id ? { ...(await store.get("tiny-test"))!, id } : await store.get(asked),
  };
}

/** Runs `test` against a service with these deps, then stops it. */
export async function withService(
  deps: Partial<Deps>,
  test: (url: string, log: LogEntry[], service: Listening) => Promise<void>,
): Promise<void> {
  const log: LogEntry[] = [];
  const service = serveApp({
    store: folderStore(root),
    encoder: meansEncoder,
    log: (entry) => log.push(entry),
    ...deps,
  });
  try {
    await test(service.url, log, service);
  } finally {
    await service.stop();
  }
}

export const post = (
  url: string,
  body: BodyInit,
  type = "image/png",
  more: RequestInit = {},
): Promise<Response> => fetch(url, { method: "POST", body, headers: { "content-type": type }, ...more });

/** Fails unless the answer is this problem; gives the document back. */
export async function isProblem(response: Response, status: number, type: string): Promise<ProblemDocument> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  const document = problemSchema.parse(JSON.parse(text));
  assert.equal(document.type, `/problems/${type}`);
  assert.equal(document.status, status);
  assert.equal(document.request_id, response.headers.get("x-request-id"));
  assert(!/\.ts:\d|at .*\(/.test(text), "no stack");
  return document;
}
