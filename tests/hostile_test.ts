/**
 * Hostile images through the endpoint: each is answered with 200 or a 4xx problem, and soon.
 * The whole run, thousands of them against a process of its own, is `tests/by_hand/hostile.ts`.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { problemSchema, scoreSchema } from "../functions/schemas.ts";
import { hostileImages } from "./hostile_images.ts";
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

Deno.test("360 hostile images: a score or a problem document of the 400s, each within 2 s", () =>
  withService({}, async (url, log) => {
    const address = `${url}/v1/probes/tiny-test/score`, statuses = new Map<number, number>();
    for (const { name, type, bytes } of await hostileImages(5, 360, { megabytes: 60, heavy: false })) {
      const elapsed = watch(),
        response = await post(address, bytes, type),
        text = await response.text();
      const ms = elapsed(), { status } = response;
      assert(status === 200 || (status >= 400 && status < 500), `${name}: ${status} ${text}`);
      assert(ms < 2000, `${name}: ${ms} ms`);
      (status === 200 ? scoreSchema : problemSchema).parse(JSON.parse(text));
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    assert.deepEqual([...statuses.keys()].sort(), [200, 413, 422]);
    assert(statuses.get(200)! > 30 && statuses.get(422)! > 100, JSON.stringify([...statuses]));
    assert.deepEqual(log.filter(({ level }) => level === "error"), []);
    // After all that it still tells a good picture from a bad one.
    assert.equal((await post(address, png)).status, 200);
    await isProblem(await post(address, png.slice(0, 40)), 422, "image-truncated");
  }));
