/**
 * `deno task test:workerd`: the service's contract against Cloudflare's own runtime, with R2, KV, rate limits and ONNX.
 * It is no part of `deno task test`, for it installs some 200 MB that nothing else needs.
 */
import assert from "node:assert/strict";
import { askOne } from "./hostile_ask.ts";
import { hostileImages } from "./hostile_images.ts";
import { type HostileRequest, hostileRequests } from "./hostile_requests.ts";
import { CONTRACT } from "./service_contract.ts";
import { ask, bearer, bundleForm, contractKeys, EXAMPLE_BUNDLE, json } from "./service_contract_host.ts";
import { png, renamed, withService } from "./service_probe.ts";
import { withWorkerd } from "./workerd_host.ts";

const logOf = (printed: string) =>
  printed.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));

Deno.test("the contract on workerd", async (t) => {
  const { keys, records } = await contractKeys();
  await withService({ store: renamed("edge") }, async (upstream) => {
    const printed = await withWorkerd({ records, upstream }, async (url) => {
      for (const [name, run] of CONTRACT) await t.step(name, () => run({ url, keys }));
    });
    const log = logOf(printed);
    assert(log.length > 100, `${log.length} lines`);
    for (const key of Object.values(keys)) assert(!printed.includes(key.slice(-43)), "a key is in the log");
  });
});

Deno.test("360 hostile images and 47 wrong forms on workerd: a score or a problem of the 400s, each within 2 s", async () => {
  const { keys, records } = await contractKeys();
  const upstream = "http://127.0.0.1:9"; // nobody: the bundle has its own model
  const printed = await withWorkerd({ records, upstream }, async (url) => {
    const host = { url, keys };
    const stored = await ask(host, "PUT", "/v1/probes/example", {
      key: "admin",
      body: await bundleForm(EXAMPLE_BUNDLE),
    });
    assert.equal(stored.status, 201, await stored.text());
    const address = `${url}/v1/probes/example/score`, headers = bearer(keys.score);
    await json(await ask(host, "POST", "/v1/probes/example/score", { body: png, type: "image/png" })); // warm
    const counts = new Map<string, number>(), images = await hostileImages(9, 360, { megabytes: 60 });
    const requests = await hostileRequests(png);
    const all: HostileRequest[] = [
      ...images.map(({ name, type, bytes: body }) => ({ name, type, body })),
      ...requests,
    ];
    for (const request of all) {
      const { outcome } = await askOne(address, { ...request, headers: { ...request.headers, ...headers } });
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
    }
    assert(counts.get("scored")! > 60, JSON.stringify([...counts]));
    assert.equal(counts.get("/problems/rate-limited"), undefined);
    for (
      const code of ["animated", "cmyk", "too-many-pixels", "too-many-scans", "truncated", "undecodable"]
    ) {
      assert(counts.get(`/problems/image-${code}`)! > 0, code);
    }
  });
  assert.deepEqual(logOf(printed).filter(({ level }) => level === "error"), []);
});
