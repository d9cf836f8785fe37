/**
 * The client against a service that refuses, stalls, breaks off and answers, and against the real one.
 * Waits are counted in what the client asked for, not in what the clock did.
 */
import assert from "node:assert/strict";
import { createClient } from "../functions/client.ts";
import type { NamedImage } from "../functions/client_batch.ts";
import { ServiceError } from "../functions/client_error.ts";
import { limiter, retryAfterMs, waitMs } from "../functions/retry.ts";
import type { BatchLine, Score } from "../functions/schemas.ts";
import { FEATURES, png, withService } from "./service_probe.ts";

const HASH = "ab".repeat(32);
const layer = {
  feature: "f@last",
  site: "f",
  reduction: "last",
  score: 1,
  probability: 0.7,
  calibrated: false,
  interval: null,
  z: null,
  threshold: null,
  flagged: null,
  beyond: false,
};
const score: Score = {
  probe: "p",
  bundle: HASH,
  fpr: 0.01,
  image: { sha256: HASH, width: 1, height: 1, format: "png" },
  decision: { answer: "abstain", feature: "f@last", agreement: null, reason: "no-threshold", detail: "few" },
  layers: [layer],
  primary: layer,
  model: { name: "m", hash: HASH, adapter: null },
  timings_ms: { decode: 0, encode: 0, score: 0 },
};
const problem = (status: number, type = "busy") => ({
  type: `/problems/${type}`,
  title: "t",
  status,
  detail: "d",
  request_id: "r",
});
const refusal = (status: number, headers: HeadersInit = {}) =>
  Response.json(problem(status), { status, headers });
const lines = (...all: object[]) => new Response(all.map((line) => JSON.stringify(line) + "\n").join(""));
const ok = () => Response.json(score);

/** A client of a service that gives these answers in turn, and what it was asked. */
function client(answers: (() => Response | Promise<Response>)[], options = {}) {
  const asked: { path: string; init: RequestInit }[] = [];
  const send = (input: RequestInfo | URL, init: RequestInit = {}) => {
    asked.push({ path: String(input).replace("http://x", ""), init });
    return Promise.resolve(answers[asked.length - 1]());
  };
  const settings = { baseMs: 1, fetch: send as typeof fetch, random: () => 0.5, ...options };
  return { ...createClient("http://x/", settings), asked };
}

async function all(images: AsyncIterable<BatchLine>): Promise<BatchLine[]> {
  const out: BatchLine[] = [];
  for await (const line of images) out.push(line);
  return out;
}

Deno.test("waits: full jitter over an exponential bound, never less than the server asks", () => {
  const options = { retries: 9, baseMs: 100, maxMs: 1000, random: () => 0.5 };
  assert.deepEqual([0, 1, 2, 3, 4, 9].map((n) => waitMs(n, 0, options)), [50, 100, 200, 400, 500, 500]);
  assert.equal(waitMs(0, 700, options), 750);
  assert.equal(retryAfterMs("7"), 7000);
  assert.equal(retryAfterMs("Wed, 21 Oct 2026 07:28:10 GMT", Date.UTC(2026, 9, 21, 7, 28, 0)), 10_000);
  for (const nothing of [null, "", "soon", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"]) {
    assert.equal(retryAfterMs(nothing), 0, String(nothing));
  }
});

Deno.test("what may pass is asked again, what may not is thrown at once", async () => {
  const busy = () => refusal(503), cut = () => Promise.reject(new TypeError("connection reset"));
  const patient = client([busy, cut, () => refusal(429, { "retry-after": "0" }), ok]);
  assert.deepEqual(await patient.score("p", png), score);
  assert.equal(patient.asked.length, 4);
  const sent = patient.asked[3];
  assert.equal(sent.path, "/v1/probes/p/score");
  assert.equal(new Headers(sent.init.headers).get("content-type"), "image/png");

  for (const status of [400, 401, 404, 413, 422, 500]) {
    const once = client([() => refusal(status)]);
    await assert.rejects(once.score("p", png), (error) => {
      assert(error instanceof ServiceError);
      assert.deepEqual([error.status, error.problem], [status, problem(status)]);
      return true;
    });
  }
  const tired = client([busy, busy, busy], { retries: 2 });
  await assert.rejects(tired.score("p", png), /answered 503: d/);
  assert.equal(tired.asked.length, 3);
  // A server that asks for more patience than the client has is not waited for.
  const long = client([() => refusal(503, { "retry-after": "3600" })]);
  await assert.rejects(long.score("p", png), (error) => (error as ServiceError).retryAfterMs === 3_600_000);
  const strange = client([() => Response.json({ probe: "p" })]);
  await assert.rejects(strange.score("p", png), /Cannot read the answer: field "bundle"/);
});

Deno.test("keys, the chosen share of false alarms and ids go along as they should", async () => {
  const asked = client([ok, ok], { key: "afterimage_k" });
  await asked.score("a/b", new Blob([png], { type: "text/html" }), { fpr: 0.001 });
  const { path, init } = asked.asked[0], headers = new Headers(init.headers);
  assert.equal(path, "/v1/probes/a%2Fb/score?fpr=0.001");
  assert.equal(headers.get("authorization"), "Bearer afterimage_k");
  assert.equal(headers.get("content-type"), "image/png");
});

Deno.test("no more requests under way than allowed; a call that is given up frees its turn", async () => {
  let running = 0, most = 0;
  const slow = async () => {
    most = Math.max(most, ++running);
    await new Promise((wake) => setTimeout(wake, 2));
    running--;
    return ok();
  };
  const busy = client(Array(20).fill(slow), { concurrency: 3 });
  await Promise.all(Array.from({ length: 20 }, () => busy.score("p", png)));
  assert.equal(most, 3);

  const stop = new AbortController();
  const stalled = client([() => new Promise<Response>(() => {})], { concurrency: 1 });
  void stalled.score("p", png).catch(() => {});
  const waiting = stalled.score("p", png, { signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  const turn = limiter(1), gate = Promise.withResolvers<void>();
  const first = turn(() => gate.promise), given = turn(() => Promise.resolve(2), stop.signal);
  await assert.rejects(given, /enough/);
  gate.resolve();
  await first;
  assert.equal(await turn(() => Promise.resolve(3)), 3);
});

const images = (n: number): NamedImage[] =>
  Array.from({ length: n }, (_, i) => ({ name: `${i}.png`, image: png }));

Deno.test("a batch: groups by number and bytes, lines in order, one bad image spoils its own line", async () => {
  const groups = client([
    () =>
      lines({ index: 0, name: "0.png", score }, {
        index: 1,
        name: "1.png",
        problem: problem(422, "image-truncated"),
      }),
    () => lines({ index: 0, name: "2.png", score }, { index: 1, name: "3.png", score }),
    () => lines({ index: 0, name: "4.png", score }),
  ]);
  const answers = await all(groups.batch("p", images(5), { images: 2 }));
  assert.deepEqual(
    answers.map(({ index, name }) => [index, name]),
    images(5).map(({ name }, i) => [i, name]),
  );
  assert.deepEqual(answers.map(({ problem }) => problem?.status), [
    undefined,
    422,
    undefined,
    undefined,
    undefined,
  ]);
  assert.deepEqual(groups.asked.map(({ init }) => (init.body as FormData).getAll("image").length), [2, 2, 1]);
  const heavy = client([
    () => lines({ index: 0, name: null, score }),
    () => lines({ index: 0, name: null, score }),
  ]);
  await all(heavy.batch("p", images(2), { bytes: png.length }));
  assert.equal(heavy.asked.length, 2);
});

Deno.test("a batch that breaks off, is refused whole or meets a busy line asks again for what is missing", async () => {
  const cut = client([
    () => new Response(`${JSON.stringify({ index: 0, name: null, score })}\n{"index":1,"na`),
    ok,
  ], { retries: 0 });
  assert.deepEqual((await all(cut.batch("p", images(2)))).map(({ score }) => score?.probe), ["p", "p"]);
  assert.deepEqual(cut.asked.map(({ path }) => path), ["/v1/probes/p/batch", "/v1/probes/p/score"]);

  const busy = client([
    () => lines({ index: 0, name: null, problem: problem(503) }, { index: 1, name: null, score }),
    () => refusal(503),
    ok,
  ]);
  assert.deepEqual((await all(busy.batch("p", images(2)))).map(({ index }) => index), [0, 1]);
  assert.equal(busy.asked.length, 3);

  const large = client([() => refusal(413), ok, () => refusal(413)]);
  const answers = await all(large.batch("p", images(2)));
  assert.deepEqual(answers.map(({ score, problem }) => score ? "score" : problem!.status), ["score", 413]);

  const shut = client([() => refusal(401)]);
  await assert.rejects(all(shut.batch("p", images(3))), /answered 401/);
  assert.equal(shut.asked.length, 1);
});

Deno.test("whoever stops reading a batch stops it", async () => {
  let aborted = false;
  const send = (_: RequestInfo | URL, init: RequestInit = {}) =>
    new Promise<Response>((resolve, reject) => {
      const form = init.body as FormData;
      if ((form.get("image") as File).name === "0.png") {
        return resolve(lines({ index: 0, name: null, score }));
      }
      init.signal!.addEventListener("abort", () => {
        aborted = true;
        reject(init.signal!.reason);
      });
    });
  const stopped = createClient("http://x", { fetch: send as typeof fetch, concurrency: 2 });
  for await (const line of stopped.batch("p", images(3), { images: 1 })) {
    assert.equal(line.index, 0);
    break;
  }
  assert(aborted);
});

Deno.test("the real service: probes, scores, a batch of many, a bad one among them", () =>
  withService({}, async (url) => {
    const real = createClient(url);
    const [{ id }] = await real.probes();
    assert.equal((await real.probe(id)).primary, FEATURES[1]);
    const alone = await real.score(id, png);
    const many = [...images(20), { name: "bad", image: png.slice(0, 60) }, ...images(5)];
    const answers = await all(real.batch(id, many, { images: 8 }));
    assert.deepEqual(answers.map(({ index }) => index), many.map((_, i) => i));
    assert.equal(answers[20].problem?.type, "/problems/image-truncated");
    assert.equal(answers[20].name, "bad");
    for (const { score } of answers.toSpliced(20, 1)) assert.deepEqual(score!.layers, alone.layers);
    await assert.rejects(real.probe("nobody"), /probe-unknown/);
  }));
