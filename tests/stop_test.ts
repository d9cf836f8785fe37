/**
 * SIGTERM to a real `deno task serve`: what is under way is answered in full, what comes after is refused, it ends with 0.
 * Its clients are still sending when the signal comes, which is when a server is quickest to cut them off.
 */
import assert from "node:assert/strict";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { scoreSchema } from "../functions/schemas.ts";
import { isProblem } from "./service_probe.ts";

/** Well below the grace of ten seconds, after which it would end whatever is under way. */
const AT_ONCE_MS = 5000;

const SERVE = new URL("../scripts/serve.ts", import.meta.url).pathname;
const png = await encodeImage(blankPicture(64, 64), "png");

/** The service in its own process, on the example bundle. */
async function start() {
  const args = ["run", "-A", "--no-check", SERVE, "--port", "0"];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "null", stderr: "piped" }).spawn();
  const words = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  const hear = async (pattern: RegExp) => {
    while (!pattern.test(said)) {
      const { done, value } = await words.read();
      if (done) throw new Error(`Cannot hear ${pattern}: the service ended after "${said}"`);
      said += value;
    }
    return pattern.exec(said)!;
  };
  const [, url] = await hear(/at (http:\S+),/);
  return {
    url,
    /** Sends SIGTERM and waits until the service has taken notice. */
    async terminate() {
      child.kill("SIGTERM");
      await hear(/Stopping/);
    },
    async ended() {
      while (!(await words.read()).done);
      return (await child.status).code;
    },
  };
}

/** A body that is sent piece by piece. */
function openBody() {
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>>();
  return { body: readable, writer: writable.getWriter() };
}

const post = (url: string, type: string, body: BodyInit) =>
  fetch(url, { method: "POST", body, headers: { "content-type": type } });

Deno.test("SIGTERM: bodies under way are read and answered to their end, readiness falls, new work is refused", async () => {
  const { url, terminate, ended } = await start(), probe = `${url}/v1/probes/example`;
  const queue = async () => (await (await fetch(`${url}/healthz`)).json()).queue;

  const line = new TextEncoder().encode(JSON.stringify({ image: btoa(String.fromCharCode(...png)) }) + "\n");
  const many = openBody(), one = openBody();
  const batch = post(`${probe}/batch`, "application/x-ndjson", many.body);
  const score = post(`${probe}/score`, "image/png", one.body);
  await many.writer.write(line);
  await one.writer.write(png.subarray(0, 20));
  const streaming = await batch; // its first line is out
  while ((await queue()).waiting + (await queue()).running < 2) {
    await new Promise((wake) => setTimeout(wake, 5));
  }

  await terminate();
  await isProblem(await fetch(`${url}/readyz`), 503, "not-ready");
  const refused = await post(`${probe}/score`, "image/png", png);
  assert.equal(refused.headers.get("retry-after"), "1");
  await isProblem(refused, 503, "not-ready");
  assert.equal((await queue()).places > 0, true, "it is alive as long as somebody is answered");

  await one.writer.write(png.subarray(20));
  await one.writer.close();
  assert.equal(scoreSchema.parse(await (await score).json()).image.format, "png");
  await many.writer.write(line);
  await many.writer.write(line);
  await many.writer.close();
  const lines = (await streaming.text()).trim().split("\n").map((text) => JSON.parse(text));
  assert.deepEqual(
    lines.map(({ index, score }) => [index, score?.probe]),
    [0, 1, 2].map((n) => [n, "example"]),
  );

  const last = performance.now();
  assert.equal(await ended(), 0);
  const ms = performance.now() - last;
  assert(ms < AT_ONCE_MS, `it ended ${ms} ms after its last answer`);
  await assert.rejects(fetch(`${url}/healthz`));
});

Deno.test("SIGTERM: a service that has nothing to do ends at once with 0", async () => {
  const { url, terminate, ended } = await start();
  await (await fetch(`${url}/healthz`)).body?.cancel();
  const told = performance.now();
  await terminate();
  assert.equal(await ended(), 0);
  const ms = performance.now() - told;
  assert(ms < AT_ONCE_MS, `it took ${ms} ms`);
});
