/**
 * The service's hosts and stores: upstream, directory, bucket, Worker, and stopping.
 * Scores must be the same wherever they are worked out.
 */
import assert from "node:assert/strict";
import { bytesSource, MemoryFolder } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import type { Encoder } from "../functions/encoder.ts";
import { scoreSchema } from "../functions/schemas.ts";
import { serveApp } from "../functions/serve.ts";
import { type Bucket, bucketFolder } from "../functions/store/bucket_folder.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { upstreamEncoder } from "../functions/upstream.ts";
import { createWorker } from "../functions/worker.ts";
import { DiskFolder } from "../scripts/folder.ts";
import {
  channelMeans,
  FEATURES,
  isProblem,
  meansEncoder,
  picture,
  png,
  post,
  root,
  saveTestProbe,
  withService,
} from "./service_probe.ts";

Deno.test("activations go over HTTP and an edge host scores them alike", () =>
  withService({}, async (gpu) => {
    const response = await post(`${gpu}/v1/probes/tiny-test/encode`, png);
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
    await withService({ encoder: upstreamEncoder("http://gpu.example", { send }) }, async (url) => {
      const response = await post(`${url}/v1/probes/tiny-test/score`, png);
      if (type === "busy") assert.equal(response.headers.get("retry-after"), "7");
      const document = await isProblem(response, status, type);
      assert(!document.detail.includes("gpu.example"));
    });
  }
});

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
    put: (key, data) => {
      files.set(key, typeof data === "string" ? new TextEncoder().encode(data) : data.slice());
      return Promise.resolve();
    },
    delete: (key) => Promise.resolve(void files.delete(key)),
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
    await folder.write("x/y", "z");
    assert.equal(new TextDecoder().decode(await folder.folder("x").read("y")), "z");
    await folder.remove("x/y");
    assert.equal(await folder.exists("x/y"), false);
    await assert.rejects(folder.read("missing"), /no such object/);
    const source = await folder.open("tiny-test/probe.json");
    assert.deepEqual(await source.readAt(1, 5), (await root.read("tiny-test/probe.json")).slice(1, 6));

    const lines: string[] = [];
    const worker = createWorker({}, (line) => lines.push(line));
    const pass = { limit: () => Promise.resolve({ success: true }) };
    const env = {
      PROBES: bucket,
      KEYS: { get: () => Promise.resolve(null) },
      RATE_KEY: pass,
      RATE_ADDRESS: pass,
      AFTERIMAGE_OPEN: "yes",
      AFTERIMAGE_UPSTREAM: gpu,
    };
    const request = (path: string, init?: RequestInit) =>
      worker.fetch(new Request(`https://edge.example${path}`, init), env);
    const shut = createWorker({}, () => {});
    const closed = await shut.fetch(new Request("https://edge.example/v1/probes"), {
      ...env,
      AFTERIMAGE_OPEN: "",
    });
    await isProblem(closed, 401, "key-missing");
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
