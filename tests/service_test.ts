/**
 * The HTTP service over real HTTP: every route, every status, the bounds of bodies and of the queue.
 * What a score must be is worked out by hand from the picture.
 */
import assert from "node:assert/strict";
import { sha256 } from "../core/formats/manifest.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import type { Encoder } from "../functions/encoder.ts";
import { Problem } from "../functions/problems.ts";
import { healthSchema, probeListSchema, scoreSchema } from "../functions/schemas.ts";
import {
  channelMeans,
  FEATURES,
  isProblem,
  meansEncoder,
  picture,
  png,
  post,
  probe,
  withService,
} from "./service_probe.ts";

Deno.test("health, list and description", () =>
  withService({}, async (url) => {
    const health = await fetch(`${url}/healthz`);
    assert.equal(health.status, 200);
    assert.deepEqual(healthSchema.parse(await health.json()).queue, { running: 0, waiting: 0, places: 64 });
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
      for (const route of ["encode", "activations", "batch"]) {
        await isProblem(await post(`${url}/v1/probes/${id}/${route}`, png), 422, "probe-id-invalid");
      }
    }
    const methods: [string, string, string][] = [
      ["POST", "/healthz", "GET, HEAD"],
      ["DELETE", "/v1/probes", "GET, HEAD"],
      ["POST", "/v1/probes/tiny-test", "GET, HEAD, PUT, DELETE"],
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
      key_id: undefined,
      bytes: png.length,
      problem: undefined,
      error: undefined,
    });
    assert.equal(log[1].problem, "/problems/not-found");
  }));
