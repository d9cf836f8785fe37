/**
 * The HTTP service over real HTTP: every route, every status, the bounds, the upstream and the Worker's pieces.
 * The encoder is the tests' own (means of the picture's channels): what it gives can be worked out by hand.
 */
import assert from "node:assert/strict";
import { bytesSource, MemoryFolder } from "../core/formats/folder.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import type { Deps } from "../functions/app.ts";
import type { Encoder } from "../functions/encoder.ts";
import type { LogEntry } from "../functions/log.ts";
import { Problem } from "../functions/problems.ts";
import { healthSchema, probeListSchema, problemSchema, scoreSchema } from "../functions/schemas.ts";
import { type Listening, serveApp } from "../functions/serve.ts";
import { type Bucket, bucketFolder } from "../functions/store/bucket_folder.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { upstreamEncoder } from "../functions/upstream.ts";
import { createWorker } from "../functions/worker.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { saveTestProbe } from "./service_probe.ts";

const FEATURES = ["layers.0.resid_post@image-mean", "layers.1.resid_post@last"];

/** Means of red, green and blue, 0 to 1, times the layer's number plus one. */
function channelMeans({ data }: Picture): number[] {
  const sums = [0, 0, 0];
  for (let i = 0; i < data.length; i++) sums[i % 3] += data[i] / 255;
  return sums.map((sum) => (sum * 3) / data.length);
}
const meansEncoder: Encoder = {
  activations: (probe, image) =>
    Promise.resolve(Object.fromEntries(
      probe.layers.map(({ feature }, i) => [
        feature,
        Float32Array.from(channelMeans(image), (mean) => mean * (i + 1)),
      ]),
    )),
};

const picture: Picture = blankPicture(20, 10);
for (let i = 0; i < picture.data.length; i++) picture.data[i] = (i * 7) % 256;
const png = await encodeImage(picture, "png");

const root = new MemoryFolder("store");
const probe = await saveTestProbe(root, "tiny-test", FEATURES);

/** Runs `test` against a service with these deps, then stops it. */
async function withService(
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

const post = (url: string, body: BodyInit, type = "image/png", more: RequestInit = {}): Promise<Response> =>
  fetch(url, { method: "POST", body, headers: { "content-type": type }, ...more });

/** Fails unless the answer is this problem; gives the document back. */
async function isProblem(response: Response, status: number, type: string) {
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

Deno.test("health, list and description", () =>
  withService({}, async (url) => {
    const health = await fetch(`${url}/healthz`);
    assert.equal(health.status, 200);
    assert.deepEqual(healthSchema.parse(await health.json()).queue, { running: 0, waiting: 0, places: 16 });
    const list = probeListSchema.parse(await (await fetch(`${url}/v1/probes`)).json());
    assert.deepEqual(list.probes.map(({ id, layers }) => [id, layers]), [["tiny-test", 2]]);
    const text = await (await fetch(`${url}/v1/probes/tiny-test`)).text();
    const description = JSON.parse(text);
    assert.equal(description.primary, FEATURES[1]);
    assert.equal(description.layers[0].dim, 3);
    assert(!/coef|intercept|weights/.test(text), "no weights");
    const head = await fetch(`${url}/healthz`, { method: "HEAD" });
    assert.equal(head.status, 200);
  }));

Deno.test("scores of raw and multipart images in three formats", () =>
  withService({}, async (url, log) => {
    const address = `${url}/v1/probes/tiny-test/score`;
    for (const format of ["png", "jpeg", "webp"] as const) {
      const file = await encodeImage(picture, format);
      const form = new FormData();
      form.set("image", new Blob([file]), "x");
      for (
        const response of [
          await post(address, file, `image/${format}`),
          await fetch(address, { method: "POST", body: form }),
        ]
      ) {
        const text = await response.text();
        assert.equal(response.status, 200, text);
        const result = scoreSchema.strict().parse(JSON.parse(text));
        assert.deepEqual(result.image, { sha256: await sha256(file), width: 20, height: 10, format });
        assert.deepEqual(result.layers.map(({ feature }) => feature), FEATURES);
        assert.equal(result.primary.feature, FEATURES[1]);
        assert.deepEqual(result.primary, result.layers[1]);
        assert.deepEqual(result.model, probe.model);
        if (format !== "png") continue;
        // By hand: intercept + coef . means, with the numbers that saveTestProbe stores.
        result.layers.forEach(({ score, probability }, i) => {
          const means = channelMeans(picture).map((mean) => Math.fround(mean * (i + 1)));
          const expected = 0.25 * (i + 1) + means[0] * 1 + means[1] * -2 + means[2] * 3;
          assert(Math.abs(score - expected) < 1e-9, `${score} ${expected}`);
          assert(Math.abs(probability - 1 / (1 + Math.exp(-expected))) < 1e-12);
        });
      }
    }
    // What the bytes are decides, not what the header says; a type may carry parameters.
    const jpeg = await encodeImage(picture, "jpeg");
    const misnamed = await post(address, jpeg, "IMAGE/PNG; charset=x");
    assert.equal((await misnamed.json()).image.format, "jpeg");
    assert.equal(log.length, 7);
    assert.deepEqual(
      log.map(({ status, level, bytes }) => [status, level, bytes! > 0]),
      log.map(() => [200, "info", true]),
    );
  }));

Deno.test("addresses, ids and methods that do not fit", () =>
  withService({}, async (url) => {
    await isProblem(await fetch(`${url}/nothing`), 404, "not-found");
    await isProblem(await fetch(`${url}/v1/probes/`), 404, "not-found");
    await isProblem(await fetch(`${url}/v1/probes/unknown`), 404, "probe-unknown");
    await isProblem(await post(`${url}/v1/probes/unknown/score`, png), 404, "probe-unknown");
    const ids = [
      "..%2f..",
      "..%2F..%2Fetc%2Fpasswd",
      "%2e%2e%2f",
      ".hidden",
      "UPPER",
      "a..b",
      "a%00b",
      "a%5Cb",
      "x".repeat(65),
      "a%20b",
    ];
    for (const id of ids) {
      await isProblem(await fetch(`${url}/v1/probes/${id}`), 422, "probe-id-invalid");
      await isProblem(await post(`${url}/v1/probes/${id}/score`, png), 422, "probe-id-invalid");
      await isProblem(await post(`${url}/v1/probes/${id}/activations`, png), 422, "probe-id-invalid");
    }
    const methods: [string, string, string][] = [
      ["POST", "/healthz", "GET, HEAD"],
      ["DELETE", "/v1/probes", "GET, HEAD"],
      ["PUT", "/v1/probes/tiny-test", "GET, HEAD"],
      ["GET", "/v1/probes/tiny-test/score", "POST"],
      ["OPTIONS", "/v1/probes/tiny-test/activations", "POST"],
    ];
    for (const [method, path, allow] of methods) {
      const response = await fetch(url + path, { method });
      assert.equal(response.headers.get("allow"), allow);
      await isProblem(response, 405, "method-not-allowed");
    }
  }));

Deno.test("bodies that do not fit", () =>
  withService({ limits: { bodyBytes: 2000, pixels: 300, bodyMs: 200 } }, async (url) => {
    const address = `${url}/v1/probes/tiny-test/score`;
    const gif = await post(address, png, "image/gif");
    assert.match(gif.headers.get("accept-post")!, /image\/png, image\/jpeg, image\/webp, multipart/);
    await isProblem(gif, 415, "media-type-unsupported");
    await isProblem(
      await fetch(address, { method: "POST", body: png.slice() }),
      415,
      "media-type-unsupported",
    );
    const zipped = { headers: { "content-type": "image/png", "content-encoding": "gzip" } };
    await isProblem(await post(address, png, "", zipped), 415, "media-type-unsupported");
    await isProblem(
      await fetch(address, { method: "POST", headers: { "content-type": "image/png" } }),
      422,
      "body-empty",
    );

    await isProblem(await post(address, new Uint8Array(2001)), 413, "body-too-large");
    let chunks = 0; // no Content-Length: only counting can tell
    const long = new ReadableStream<Uint8Array>({
      pull: (controller) => chunks++ < 5 ? controller.enqueue(new Uint8Array(700)) : controller.close(),
    });
    await isProblem(await post(address, long), 413, "body-too-large");
    let rest: ReadableStreamDefaultController<Uint8Array>;
    const slow = new ReadableStream<Uint8Array>({
      start: (controller) => (rest = controller).enqueue(png.slice(0, 20)),
    });
    await isProblem(await post(address, slow), 408, "body-timeout");
    rest!.close();
    const form = new FormData();
    form.set("image", new Blob([new Uint8Array(2001)]), "x");
    await isProblem(await fetch(address, { method: "POST", body: form }), 413, "body-too-large");

    const other = new FormData();
    other.set("picture", new Blob([png]), "x");
    await isProblem(await fetch(address, { method: "POST", body: other }), 422, "multipart-invalid");
    const words = new FormData();
    words.set("image", "text");
    await isProblem(await fetch(address, { method: "POST", body: words }), 422, "multipart-invalid");
    await isProblem(
      await post(address, "nonsense", "multipart/form-data; boundary=b"),
      422,
      "multipart-invalid",
    );
    await isProblem(await post(address, "nonsense", "multipart/form-data"), 422, "multipart-invalid");

    await isProblem(await post(address, "no image at all"), 422, "image-unknown-format");
    const cut = await isProblem(await post(address, png.slice(0, png.length - 20)), 422, "image-truncated");
    assert.match(cut.detail, /^Cannot read "image": /);
    const large = await encodeImage(blankPicture(20, 20), "png");
    await isProblem(await post(address, large), 413, "image-too-many-pixels");
    // After all that the service still answers.
    assert.equal((await post(address, png)).status, 200);
  }));

Deno.test("a full queue answers 503 and frees its places", async () => {
  const gate = Promise.withResolvers<void>();
  const encoder: Encoder = {
    activations: async (...args) => {
      await gate.promise;
      return await meansEncoder.activations(...args);
    },
  };
  await withService({ encoder, limits: { concurrent: 1, waiting: 2 } }, async (url) => {
    const address = `${url}/v1/probes/tiny-test/score`;
    const state = async () => (await (await fetch(`${url}/healthz`)).json()).queue;
    const first = [1, 2, 3].map(() => post(address, png).then((response) => response.json()));
    while ((await state()).waiting < 2) await new Promise((wake) => setTimeout(wake, 5));
    const refused = await post(address, png);
    assert.match(refused.headers.get("retry-after")!, /^[1-9]\d*$/);
    await isProblem(refused, 503, "busy");
    // Other routes do not queue.
    assert.equal((await (await fetch(`${url}/v1/probes`)).json()).probes.length, 1);
    gate.resolve();
    for (const result of await Promise.all(first)) assert.equal(result.probe, "tiny-test");
    assert.deepEqual(await state(), { running: 0, waiting: 0, places: 3 });
  });
});

Deno.test("a client that goes away gives up its place", async () => {
  const aborted = Promise.withResolvers<void>();
  const encoder: Encoder = {
    activations: (_probe, _image, signal) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => {
          aborted.resolve();
          reject(signal.reason);
        })
      ),
  };
  await withService({ encoder, limits: { concurrent: 1, waiting: 0 } }, async (url, log) => {
    // A bare socket, and a small picture: Deno notices a client that hangs up only if body and head came together.
    const small = await encodeImage(blankPicture(8, 8), "png");
    const client = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
    const head = "POST /v1/probes/tiny-test/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n";
    const bytes = new TextEncoder().encode(`${head}Content-Length: ${small.length}\r\n\r\n`);
    await client.write(Uint8Array.from([...bytes, ...small]));
    const state = async () => (await (await fetch(`${url}/healthz`)).json()).queue;
    while ((await state()).running < 1) await new Promise((wake) => setTimeout(wake, 5));
    client.close();
    await aborted.promise;
    while ((await state()).running > 0) await new Promise((wake) => setTimeout(wake, 5));
    const cancelled = () =>
      log.some(({ status, problem }) => status === 499 && problem?.endsWith("request-cancelled"));
    while (!cancelled()) await new Promise((wake) => setTimeout(wake, 5));
  });
});

Deno.test("an encoder that fails, stalls or lacks the model", async () => {
  const failing = (error: () => Error): Encoder => ({ activations: () => Promise.reject(error()) });
  const address = (url: string) => `${url}/v1/probes/tiny-test/score`;
  await withService({ encoder: failing(() => new Error("secret detail")) }, async (url, log) => {
    const document = await isProblem(await post(address(url), png), 500, "internal");
    assert(!document.detail.includes("secret"));
    assert.equal(log[0].level, "error");
    assert.equal(log[0].error, "secret detail");
  });
  const absent = () => new Problem("model-not-served", "This host serves another model");
  await withService({ encoder: failing(absent) }, async (url) => {
    await isProblem(await post(address(url), png), 503, "model-not-served");
  });
  const short: Encoder = { activations: () => Promise.resolve({ [FEATURES[0]]: new Float32Array(2) }) };
  await withService({ encoder: short }, async (url, log) => {
    await isProblem(await post(address(url), png), 500, "internal");
    assert.match(log[0].error!, /the encoder gave 2 values, expected 3/);
  });
  const stalled: Encoder = { activations: () => new Promise(() => {}) };
  await withService({ encoder: stalled, limits: { encodeMs: 50 } }, async (url) => {
    await isProblem(await post(address(url), png), 504, "encoder-timeout");
  });
});

Deno.test("activations go over HTTP and an edge host scores them alike", () =>
  withService({}, async (gpu) => {
    const response = await post(`${gpu}/v1/probes/tiny-test/activations`, png);
    assert.equal(response.headers.get("content-type"), "application/vnd.safetensors");
    const file = await SafetensorsFile.open(
      bytesSource("answer", new Uint8Array(await response.arrayBuffer())),
    );
    assert.deepEqual(await file.f32(FEATURES[0]), Float32Array.from(channelMeans(picture)));
    const here = await (await post(`${gpu}/v1/probes/tiny-test/score`, png)).json();
    await withService({ encoder: upstreamEncoder(`${gpu}/`) }, async (edge) => {
      const there = await (await post(`${edge}/v1/probes/tiny-test/score`, png)).json();
      assert.deepEqual({ ...there, timings_ms: 0 }, { ...here, timings_ms: 0 });
    });
    // The edge's probe was fitted on another model than the upstream serves.
    const other = new MemoryFolder("other");
    await saveTestProbe(other, "tiny-test", FEATURES, "another-model");
    await withService({ store: folderStore(other), encoder: upstreamEncoder(gpu) }, async (edge, log) => {
      await isProblem(await post(`${edge}/v1/probes/tiny-test/score`, png), 502, "upstream-failed");
      assert.match(log[0].error!, /expected "another-model/);
    });
  }));

Deno.test("an upstream that is away, busy or wrong", async () => {
  const answers: [Response | Error, number, string][] = [
    [new Error("connection refused"), 502, "upstream-failed"],
    [new Response("not safetensors"), 502, "upstream-failed"],
    [new Response("{}", { status: 404 }), 502, "upstream-failed"],
    [new Response("{}", { status: 503 }), 502, "upstream-failed"], // such as "model-not-served"
    [new Response("", { status: 503, headers: { "retry-after": "7" } }), 503, "busy"],
  ];
  for (const [answer, status, type] of answers) {
    const send = () => answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    await withService({ encoder: upstreamEncoder("http://gpu.example", send) }, async (url) => {
      const response = await post(`${url}/v1/probes/tiny-test/score`, png);
      if (type === "busy") assert.equal(response.headers.get("retry-after"), "7");
      const document = await isProblem(response, status, type);
      assert(!document.detail.includes("gpu.example"));
    });
  }
});

Deno.test("security headers, request ids and one log line a request without the image", () =>
  withService({}, async (url, log) => {
    const headers = { "content-type": "image/png", "x-request-id": "abc-123" };
    const response = await fetch(`${url}/v1/probes/tiny-test/score?token=secret`, {
      method: "POST",
      body: png,
      headers,
    });
    await response.body?.cancel();
    assert.equal(response.headers.get("x-request-id"), "abc-123");
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    assert.equal(response.headers.get("cache-control"), "no-store");
    assert.match(response.headers.get("content-security-policy")!, /default-src 'none'/);
    const bad = await fetch(`${url}/x`, { headers: { "x-request-id": "<script>" } });
    await bad.body?.cancel();
    assert.match(bad.headers.get("x-request-id")!, /^[0-9a-f-]{36}$/);
    assert.equal(bad.headers.get("x-content-type-options"), "nosniff");
    assert.equal(log.length, 2);
    assert.deepEqual({ ...log[0], time: "", ms: 0 }, {
      time: "",
      level: "info",
      request_id: "abc-123",
      method: "POST",
      path: "/v1/probes/tiny-test/score",
      status: 200,
      ms: 0,
      bytes: png.length,
      problem: undefined,
      error: undefined,
    });
    assert.equal(log[1].problem, "/problems/not-found");
  }));

Deno.test("stopping waits for the requests under way", async () => {
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const encoder: Encoder = {
    activations: async (...args) => {
      started.resolve();
      await gate.promise;
      return await meansEncoder.activations(...args);
    },
  };
  await withService({ encoder }, async (url, _log, service) => {
    const request = post(`${url}/v1/probes/tiny-test/score`, png);
    await started.promise;
    const stopped = service.stop();
    gate.resolve();
    assert.equal((await (await request).json()).probe, "tiny-test");
    await stopped;
    await assert.rejects(fetch(`${url}/healthz`));
  });
});

Deno.test({
  name: "a client that never ends its body cannot keep the service from stopping",
  sanitizeOps: false, // its connection is left to the end of the process
  sanitizeResources: false,
  async fn() {
    const service = serveApp({ store: folderStore(root), encoder: meansEncoder }, { graceMs: 100 });
    const client = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(service.url).port) });
    const head = "POST /v1/probes/tiny-test/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n";
    await client.write(new TextEncoder().encode(`${head}Content-Length: 1000\r\n\r\n`));
    const state = async () => (await (await fetch(`${service.url}/healthz`)).json()).queue;
    while ((await state()).waiting < 1) await new Promise((wake) => setTimeout(wake, 5));
    const start = performance.now();
    await service.stop();
    const ms = performance.now() - start;
    assert(ms >= 95 && ms < 2000, `${ms} ms`);
    client.close();
  },
});

Deno.test("a directory is a store: read once, again when it changes, refused when it was tampered with", async () => {
  const path = await Deno.makeTempDir();
  try {
    const disk = new DiskFolder(path);
    await saveTestProbe(disk, "on-disk", FEATURES);
    await disk.write("unfinished/probe.json", "{}");
    await disk.write("notes.txt", "not a probe");
    const store = folderStore(disk);
    assert.deepEqual((await store.list()).map(({ id }) => id), ["on-disk"]);
    assert.equal(await store.get("on-disk"), await store.get("on-disk"));
    assert.equal(await store.get("unfinished"), undefined);
    assert.equal(await store.get("../on-disk"), undefined);
    const before = await store.get("on-disk");
    await saveTestProbe(disk, "on-disk", FEATURES, "retrained");
    const after = await store.get("on-disk");
    assert.notEqual(after, before);
    assert.equal(after!.model.name, "retrained");
    const weights = await disk.read("on-disk/probe.safetensors");
    weights[weights.length - 1] ^= 1;
    await disk.write("on-disk/probe.safetensors", weights);
    await assert.rejects(folderStore(disk).get("on-disk"), /probe\.safetensors.*sha256/);
    await withService({ store: folderStore(disk) }, async (url, log) => {
      const document = await isProblem(await fetch(`${url}/v1/probes/on-disk`), 500, "internal");
      assert(!document.detail.includes(path));
      assert.match(log[0].error!, /sha256/);
    });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

/** An R2 bucket's interface over memory, two keys a page. */
function memoryBucket(files: Map<string, Uint8Array<ArrayBuffer>>): Bucket {
  return {
    head: (key) => Promise.resolve(files.has(key) ? { size: files.get(key)!.length } : null),
    get(key, options) {
      const bytes = files.get(key);
      if (!bytes) return Promise.resolve(null);
      const { offset, length } = options?.range ?? { offset: 0, length: bytes.length };
      return Promise.resolve({
        arrayBuffer: () => Promise.resolve(bytes.slice(offset, offset + length).buffer),
      });
    },
    list({ prefix, cursor }) {
      const keys = [...files.keys()].filter((key) => key.startsWith(prefix)).sort();
      const start = Number(cursor ?? 0), truncated = start + 2 < keys.length;
      const objects = keys.slice(start, start + 2).map((key) => ({ key }));
      return Promise.resolve({ objects, truncated, ...(truncated && { cursor: String(start + 2) }) });
    },
  };
}

Deno.test("a bucket is a store, and the Worker scores through its upstream", () =>
  withService({}, async (gpu) => {
    const bucket = memoryBucket(root.files);
    const folder = bucketFolder(bucket);
    assert.deepEqual(await folder.list(), await root.list());
    await assert.rejects(folder.write("x", "y"), /read-only/);
    await assert.rejects(folder.read("missing"), /no such object/);
    const source = await folder.open("tiny-test/probe.json");
    assert.deepEqual(await source.readAt(1, 5), (await root.read("tiny-test/probe.json")).slice(1, 6));

    const lines: string[] = [];
    const worker = createWorker({}, (line) => lines.push(line));
    const request = (path: string, init?: RequestInit) =>
      worker.fetch(new Request(`https://edge.example${path}`, init), {
        PROBES: bucket,
        AFTERIMAGE_UPSTREAM: gpu,
      });
    await assert.rejects(
      worker.fetch(new Request("https://edge.example/healthz"), { PROBES: bucket }),
      /AFTERIMAGE_UPSTREAM/,
    );
    assert.equal((await (await request("/v1/probes")).json()).probes[0].id, "tiny-test");
    const init = { method: "POST", body: png, headers: { "content-type": "image/png" } };
    const scored = scoreSchema.parse(await (await request("/v1/probes/tiny-test/score", init)).json());
    const here = scoreSchema.parse(await (await post(`${gpu}/v1/probes/tiny-test/score`, png)).json());
    assert.deepEqual(scored.layers, here.layers);
    assert.deepEqual(lines.map((line) => JSON.parse(line).path), [
      "/v1/probes",
      "/v1/probes/tiny-test/score",
    ]);
  }));
