/**
 * Who may ask, how often and how much at once: keys and their rotation, rates, memory, origins, refusing to start open.
 * Also what one answer over layers says, and that the OpenAPI document holds together.
 */
import assert from "node:assert/strict";
import { decide, decideLayers } from "../core/probe/decide.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import { authenticate, createKey, keysInKv, keysOf } from "../functions/auth.ts";
import type { Encoder } from "../functions/encoder.ts";
import { openApiDocument } from "../functions/openapi.ts";
import { PROBLEMS } from "../functions/problems.ts";
import { createQueue } from "../functions/queue.ts";
import { tokenBuckets } from "../functions/rate.ts";
import { isLoopback, serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { keysInFile, readKeys, writeKeys } from "../scripts/keys.ts";
import { isProblem, meansEncoder, png, post, root as stored, withService } from "./service_probe.ts";

const root = new URL("..", import.meta.url).pathname;
const problem = (name: string) => (thrown: { problem?: string }) => thrown.problem === name;

Deno.test("keys: scope, expiry, rotation, and nothing of the key in what is kept", async () => {
  const now = Date.UTC(2026, 0, 1), soon = new Date(now + 1000).toISOString();
  const old = await createKey(["score"], "old", soon), next = await createKey(["score", "admin"], "next");
  const find = keysOf([old.record, next.record]);
  const let_in = (key: string, at = now) => authenticate(`Bearer ${key}`, find, "score", at);
  assert.equal((await let_in(old.key)).id, old.record.id);
  assert.equal((await let_in(next.key)).id, next.record.id, "both are valid at once");
  await assert.rejects(let_in(old.key, now + 1000), problem("key-invalid"));
  await assert.rejects(authenticate(`Bearer ${old.key}`, find, "admin", now), problem("scope-missing"));
  await assert.rejects(authenticate(`Basic ${old.key}`, find, "score", now), problem("key-missing"));
  await assert.rejects(authenticate(undefined, find), problem("key-missing"));
  // The id of one key with the secret of another.
  await assert.rejects(let_in(old.key.slice(0, 19) + next.key.slice(19)), problem("key-invalid"));
  assert(!JSON.stringify(old.record).includes(old.key.slice(20)));
  assert.equal(new Set([old.key, next.key, (await createKey(["score"])).key]).size, 3);
  const stored = new Map<string, unknown>([[`key:${old.record.id}`, old.record], ["key:aaaaaaaa", {
    id: "x",
  }]]);
  const kv = keysInKv({ get: (name) => Promise.resolve(stored.get(name) ?? null) });
  assert.deepEqual(await kv(old.record.id), old.record);
  assert.equal(await kv("aaaaaaaa"), undefined, "what is no record is no key");
  assert.equal(await kv("bbbbbbbb"), undefined);
});

Deno.test("the file of keys is read again when it changes, and outlives a broken one", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.remove(path);
    assert.deepEqual(await readKeys(path), []);
    const [one, two] = [(await createKey(["score"])).record, (await createKey(["admin"])).record];
    await writeKeys(path, [one]);
    if (Deno.build.os !== "windows") assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    const find = await keysInFile(path, 0);
    assert.deepEqual(await find(one.id), one);
    await writeKeys(path, [one, two]);
    assert.deepEqual(await find(two.id), two);
    await Deno.writeTextFile(path, '{"keys":[{"id":"x"}]}');
    await assert.rejects(readKeys(path), /field "keys\.0\.id"/);
    const { error } = console;
    try {
      const said: string[] = [];
      console.error = (line: string) => said.push(line);
      assert.deepEqual(await find(two.id), two);
      assert.match(said.join(), /field "keys\.0\.id"/);
    } finally {
      console.error = error;
    }
    await writeKeys(path, [two]);
    assert.equal(await find(one.id), undefined, "revoked");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a bucket gives its burst, then one token after another, to each caller", async () => {
  let now = 0;
  const { take } = tokenBuckets({ perMinute: 60, burst: 3, now: () => now });
  assert.deepEqual([await take("a"), await take("a"), await take("a"), await take("a")], [0, 0, 0, 1]);
  assert.equal(await take("b"), 0);
  now = 1000;
  assert.deepEqual([await take("a"), await take("a")], [0, 1]);
  now = 60_000;
  assert.deepEqual([await take("a"), await take("a"), await take("a"), await take("a")], [0, 0, 0, 1]);
  const slow = tokenBuckets({ perMinute: 1, burst: 1, now: () => now });
  assert.deepEqual([await slow.take("a"), await slow.take("a")], [0, 60]);
});

Deno.test("too many bytes under way, or a host short of memory, is a busy service", async () => {
  let full = false;
  const { enter } = createQueue({ concurrent: 1, waiting: 9, heldBytes: 100, full: () => full });
  const large = enter(1000); // alone it fits
  assert.throws(() => enter(1), problem("busy"));
  large.leave();
  large.leave();
  const half = [enter(50), enter(50)];
  assert.throws(() => enter(1), problem("busy"));
  half[0].leave();
  enter(50).leave();
  full = true;
  assert.throws(() => enter(1), problem("busy"));
  half[1].leave();
  enter(1).leave(); // alone it fits, else a process that keeps its memory would be shut for good
  // No process fits into one byte: one picture at a time is scored.
  const started = Promise.withResolvers<void>(), go = Promise.withResolvers<void>();
  const encoder: Encoder = {
    async activations(...given) {
      started.resolve();
      await go.promise;
      return await meansEncoder.activations(...given);
    },
  };
  const service = serveApp({ store: folderStore(stored), encoder }, { memoryBytes: 1 });
  const address = `${service.url}/v1/probes/tiny-test/score`, first = post(address, png);
  await started.promise;
  await isProblem(await post(address, png), 503, "busy");
  assert.equal((await fetch(`${service.url}/v1/probes`).then((r) => r.json())).probes.length, 1);
  go.resolve();
  for (const answer of [await first, await post(address, png)]) {
    assert.equal(answer.status, 200);
    await answer.body?.cancel();
  }
  await service.stop();
});

Deno.test("without keys everybody may score and nobody may change anything", () =>
  withService({}, async (url) => {
    const put = await fetch(`${url}/v1/probes/tiny-test`, { method: "PUT", body: new FormData() });
    await isProblem(put, 403, "admin-closed");
    await isProblem(await fetch(`${url}/v1/probes/tiny-test`, { method: "DELETE" }), 403, "admin-closed");
    await isProblem(await fetch(`${url}/v1/probes`, { method: "OPTIONS" }), 405, "method-not-allowed");
  }));

Deno.test("a probe that lies in the store as a folder is not removed over HTTP", async () => {
  const { key, record } = await createKey(["admin"]);
  await withService({ keys: keysOf([record]) }, async (url) => {
    const init = { method: "DELETE", headers: { authorization: `Bearer ${key}` } };
    await isProblem(await fetch(`${url}/v1/probes/tiny-test`, init), 409, "probe-fixed");
    await isProblem(await fetch(`${url}/v1/probes/unknown`, init), 404, "probe-unknown");
  });
});

Deno.test("only the origins that were named may call from a browser", () =>
  withService({ origins: ["https://a.example"] }, async (url) => {
    const allowed = async (origin: string) => {
      const asked = { origin, "access-control-request-method": "POST" };
      const answer = await fetch(`${url}/v1/probes/tiny-test/score`, { method: "OPTIONS", headers: asked });
      assert.equal(answer.status, 204);
      return answer.headers.get("access-control-allow-origin");
    };
    assert.equal(await allowed("https://a.example"), "https://a.example");
    assert.equal(await allowed("https://b.example"), null);
  }));

Deno.test("a service whose store fails is not ready, and says no more than that", async () => {
  const store = { ready: () => Promise.reject(new Error("secret path")) };
  await withService({ store: store as never }, async (url, log) => {
    const document = await isProblem(await fetch(`${url}/readyz`), 503, "not-ready");
    assert(!document.detail.includes("secret"));
    assert.equal(log[0].error, "secret path");
  });
});

Deno.test("serve refuses to listen beyond this machine without keys, and with a file that holds none", async () => {
  assert.deepEqual(["127.0.0.1", "::1", "localhost", "127.1.2.3"].map(isLoopback), [true, true, true, true]);
  assert.deepEqual(["0.0.0.0", "::", "192.168.0.1", "127.example.org"].map(isLoopback), [
    false,
    false,
    false,
    false,
  ]);
  const serve = async (...args: string[]) => {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", `${root}scripts/serve.ts`, ...args],
    });
    const { code, stderr } = await command.output();
    return { code, said: new TextDecoder().decode(stderr) };
  };
  const [open, empty] = await Promise.all([
    serve("--host", "0.0.0.0", "--port", "0"),
    serve("--keys", `${root}tests/no_such_keys.json`, "--port", "0"),
  ]);
  assert.deepEqual([open.code, empty.code], [2, 2]);
  assert.match(open.said, /Cannot listen on "0\.0\.0\.0" without API keys/);
  assert.match(empty.said, /holds no keys/);
});

Deno.test("one answer over layers: by the primary layer, with the agreement of those that can answer", () => {
  const layer = (feature: string, threshold: number | null, p?: number) => ({
    feature,
    site: feature,
    reduction: "last",
    dim: 1,
    metrics: p === undefined ? {} : { sound: { p } },
    threshold: { fpr01: threshold, fpr001: null },
  });
  const probe = (...layers: ReturnType<typeof layer>[]) =>
    ({ primary: "a", layers }) as unknown as StoredProbe;
  const answer = (
    stored: StoredProbe,
    scores: number[],
    beyond: boolean[] = [],
    fpr: 0.01 | 0.001 = 0.01,
  ) => {
    const found = stored.layers.map(({ feature }, i) => ({
      feature,
      score: scores[i],
      probability: 0.5,
      calibrated: false,
      beyond: beyond[i] ?? false,
    }));
    return decide(stored, decideLayers(stored, found, fpr), fpr);
  };
  const three = probe(layer("a", 1), layer("b", 1), layer("c", 1), layer("d", null));
  const flagged = answer(three, [2, 0, 2, 9]);
  assert.deepEqual([flagged.answer, flagged.feature, flagged.agreement], ["flagged", "a", 2 / 3]);
  assert.equal(answer(three, [1, 0, 2, 9]).answer, "not-flagged", "a threshold is not exceeded by itself");
  assert.equal(
    answer(three, [2, 0, 2, 9], [false, true]).agreement,
    1,
    "a layer beyond its support has no say",
  );
  assert.equal(answer(three, [2, 2, 2, 2], [true]).reason, "beyond-support");
  assert.equal(answer(three, [2, 2, 2, 2], [], 0.001).reason, "no-threshold");
  assert.equal(answer(probe(layer("a", 1, 0.051)), [2]).reason, "no-evidence");
  assert.equal(answer(probe(layer("a", 1, 0.05)), [2]).answer, "flagged");
});

Deno.test("the OpenAPI document: every reference leads somewhere, every problem's status is known to a route", () => {
  const document = openApiDocument({ keys: true }), text = JSON.stringify(document);
  const names = new Set(Object.keys(document.components.schemas));
  const references = Array.from(text.matchAll(/"\$ref":"([^"]+)"/g), ([, ref]) => ref);
  assert(references.length > 30);
  for (const ref of references) assert(names.has(ref.replace("#/components/schemas/", "")), ref);
  assert(!/"\$(?:schema|id|defs)"/.test(text));
  const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));
  const statuses = new Set(operations.flatMap(({ responses }) => Object.keys(responses).map(Number)));
  // Not of a route: methods that no route has, and clients that are gone.
  const elsewhere = [405, 499];
  const unknown = Object.values(PROBLEMS).filter(([status]) => ![...statuses, ...elsewhere].includes(status));
  assert.deepEqual(unknown, []);
  const ids = operations.map(({ operationId }) => operationId);
  assert.equal(new Set(ids).size, ids.length);
  assert(operations.every(({ tags, security }) => tags[0] === "host" || security.length === 1));
  assert.deepEqual(openApiDocument({ keys: false }).components.securitySchemes, {});
});
