/**
 * Hostile images, requests and connections: each is answered with 200 or a 4xx problem, and soon.
 * The whole run, thousands of them against a process of its own, is `tests/by_hand/hostile.ts`.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { readBounded } from "../functions/body.ts";
import { type Answer, askBytes, askEndlessly, askOne, askSlowly } from "./hostile_ask.ts";
import { hostileImages } from "./hostile_images.ts";
import { hostileBytes, hostileRequests } from "./hostile_requests.ts";
import { isProblem, png, post, withService } from "./service_probe.ts";

/** A watch on the clock and on this process's work, of which the lesser counts: other programs stretch the one, other threads the other. */
function watch(): () => number {
  const worked = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const [clock, work] = [performance.now(), worked()];
  return () => Math.min(performance.now() - clock, worked() - work);
}

/** How often each came out. */
function counter() {
  const counts = new Map<string, number>(), of = (outcome: string) => counts.get(outcome) ?? 0;
  return { of, add: ({ outcome }: Answer) => void counts.set(outcome, of(outcome) + 1) };
}

Deno.test("360 hostile images: a score or a problem document of the 400s, each within 2 s", () =>
  withService({}, async (url, log) => {
    const address = `${url}/v1/probes/tiny-test/score`, counts = counter();
    for (const { name, type, bytes: body } of await hostileImages(5, 360, { megabytes: 60, heavy: false })) {
      counts.add(await askOne(address, { name, type, body }, watch));
    }
    const refusals = ["unknown-format", "truncated", "malformed", "animated", "cmyk", "undecodable"];
    const expected = [...refusals, "too-many-pixels", "too-many-scans"].map((code) =>
      `/problems/image-${code}`
    );
    for (const outcome of ["scored", ...expected, "/problems/body-empty", "/problems/body-too-large"]) {
      assert(counts.of(outcome) > 0, `no "${outcome}"`);
    }
    assert(counts.of("scored") > 50);
    assert.deepEqual(log.filter(({ level }) => level === "error"), []);
    // After all that it still tells a good picture from a bad one.
    assert.equal((await post(address, png)).status, 200);
    await isProblem(await post(address, png.slice(0, 40)), 422, "image-truncated");
  }));

Deno.test("forms, encodings and types that are wrong: a score or a problem of the 400s, each within 2 s", () =>
  withService({}, async (url, log) => {
    const address = `${url}/v1/probes/tiny-test/score`, counts = counter();
    for (const request of await hostileRequests(png)) counts.add(await askOne(address, request, watch));
    for (const code of ["multipart-invalid", "media-type-unsupported", "body-too-large", "body-empty"]) {
      assert(counts.of(`/problems/${code}`) > 0, code);
    }
    assert(counts.of("scored") > 5);
    assert.deepEqual(log.filter(({ level }) => level === "error"), []);
  }));

/** What must not stall a suite on a busy machine; how fast answers are, the run by hand says. */
const PATIENCE_MS = 15_000;

Deno.test("broken framing and slow uploads: 2xx, 4xx or a closed connection, and the service goes on", () =>
  withService({}, async (url, log) => {
    const path = "/v1/probes/tiny-test/score", address = url + path, counts = counter();
    const slowly = { pieces: 10, overMs: 300, withinMs: PATIENCE_MS };
    const slow = Array.from({ length: 8 }, () => askSlowly(address, png, slowly));
    const left = hostileBytes(path, png),
      work = async () => {
        for (let next = left.shift(); next; next = left.shift()) {
          counts.add(await askBytes(url, next, PATIENCE_MS));
        }
      };
    await Promise.all([work(), work(), work(), work(), ...slow]);
    for (const outcome of ["200", "400", "404", "422"]) {
      assert(counts.of(`connection: ${outcome}`) > 0, outcome);
    }
    assert.deepEqual(log.filter(({ level }) => level === "error"), []);
    assert.equal((await post(address, png)).status, 200);
  }));

Deno.test("an upload that never ends is refused with 408; one of crumbs with 413", () =>
  withService({ limits: { bodyMs: 500 } }, async (url) => {
    const address = `${url}/v1/probes/tiny-test/score`;
    await Promise.all([1, 2, 3].map(() => askEndlessly(address, 50, PATIENCE_MS)));
    const crumbs = async (count: number, size: number) => {
      const request = new Request(address, { method: "POST", body: stream(count, new Uint8Array(size)) });
      return await readBounded(request, 8_000_000, 30_000).then(({ length }) => length);
    };
    assert.equal(await crumbs(9000, 1), 9000);
    assert.equal(await crumbs(11_000, 64), 704_000);
    await assert.rejects(crumbs(11_000, 63), /more than 10000 pieces/);
  }));

function stream(count: number, piece: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    pull: (controller) => count-- > 0 ? controller.enqueue(piece) : controller.close(),
  });
}
