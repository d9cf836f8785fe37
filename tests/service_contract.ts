/**
 * What the service promises over HTTP, status by status, for any host: the same steps run against Deno and against workerd.
 * A host brings an empty store, three API keys, an upstream that gives channel means, and 600 requests a minute a key.
 */
import assert from "node:assert/strict";
import { bytesSource, MemoryFolder } from "../core/formats/folder.ts";
import { MANIFEST, sha256, writeManifest } from "../core/formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { BUNDLE_FACTS, BUNDLE_TENSORS } from "../core/probe/bundle.ts";
import { modelName } from "../functions/activations.ts";
import * as wire from "../functions/schemas.ts";
import { channelMeans, FEATURES, isProblem, picture, png } from "./service_probe.ts";
import {
  ask,
  bearer,
  bundleForm,
  EXAMPLE_BUNDLE,
  examplePicture,
  image,
  json,
  SCORE,
  type Step,
  upstreamBundle,
} from "./service_contract_host.ts";

export const CONTRACT: Step[] = [
  ["health, documents and pages need no key", async (host) => {
    const open = { key: null };
    wire.healthSchema.parse(await json(await ask(host, "GET", "/healthz", open)));
    assert.equal(wire.readySchema.parse(await json(await ask(host, "GET", "/readyz", open))).probes, 0);
    const document = await json(await ask(host, "GET", "/openapi.json", open)) as {
      openapi: string;
      paths: object;
    };
    assert.equal(document.openapi, "3.1.0");
    for (const path of ["/", "/docs"]) {
      const page = await ask(host, "GET", path, open);
      assert.equal(page.status, 200);
      assert.match(page.headers.get("content-type")!, /^text\/html/);
      assert.match(page.headers.get("content-security-policy")!, /default-src 'none'.*script-src 'self'/);
      assert(!/(?:src|href)="(?:https?:)?\/\//.test(await page.text()), "nothing from elsewhere");
    }
    const style = await ask(host, "GET", "/docs/style.css", open);
    assert.match(style.headers.get("content-type")!, /^text\/css/);
    await style.body?.cancel();
  }],

  ["keys: none, a wrong one, one without the scope", async (host) => {
    for (const path of ["/v1/probes", "/metrics", "/v1/probes/edge"]) {
      const response = await ask(host, "GET", path, { key: null });
      assert.match(response.headers.get("www-authenticate")!, /^Bearer/);
      await isProblem(response, 401, "key-missing");
    }
    const { score } = host.keys, last = score.endsWith("A") ? "B" : "A";
    for (
      const wrong of [
        score.slice(0, -1) + last,
        score.slice(0, -1),
        "x",
        `afterimage_aaaaaaaa_${"x".repeat(43)}`,
      ]
    ) {
      const response = await ask(host, "GET", "/v1/probes", { key: null, headers: bearer(wrong) });
      await isProblem(response, 401, "key-invalid");
    }
    await isProblem(await ask(host, "DELETE", "/v1/probes/edge"), 403, "scope-missing");
    const form = await bundleForm((await upstreamBundle("x")).folder);
    await isProblem(await ask(host, "PUT", "/v1/probes/edge", { body: form }), 403, "scope-missing");
    await isProblem(await ask(host, "POST", SCORE, { key: "admin", ...image() }), 403, "scope-missing");
    assert.deepEqual(await json(await ask(host, "GET", "/v1/probes")), { probes: [] });
  }],

  ["a bundle is stored, moved back and forgotten", async (host) => {
    const one = await upstreamBundle("one"),
      two = await upstreamBundle("two"),
      admin = { key: "admin" } as const;
    const put = async (form: FormData) => await ask(host, "PUT", "/v1/probes/edge", { ...admin, body: form });
    const title = async () => {
      const found = await json(await ask(host, "GET", "/v1/probes/edge"));
      return wire.probeDescriptionSchema.parse(found).title;
    };
    const first = wire.storedAnswerSchema.parse(await json(await put(await bundleForm(one.folder)), 201));
    assert.deepEqual(first, { id: "edge", bundle: one.hash, previous: null });
    assert.equal(await title(), "one");
    const second = await json(await put(await bundleForm(two.folder)));
    assert.deepEqual(second, { id: "edge", bundle: two.hash, previous: one.hash });
    assert.equal(await title(), "two");
    const move = (bundle: unknown) =>
      ask(host, "PUT", "/v1/probes/edge", {
        ...admin,
        type: "application/json",
        body: JSON.stringify({ bundle }),
      });
    assert.deepEqual(await json(await move(one.hash)), { id: "edge", bundle: one.hash, previous: two.hash });
    assert.equal(await title(), "one");
    await isProblem(await move("0".repeat(64)), 404, "bundle-unknown");
    await isProblem(await move("../edge"), 422, "json-invalid");
    const list = wire.probeListSchema.parse(await json(await ask(host, "GET", "/v1/probes")));
    assert.deepEqual(list.probes.map(({ id, bundle, encoder }) => [id, bundle, encoder]), [
      ["edge", one.hash, "upstream"],
    ]);
    assert.equal((await ask(host, "DELETE", "/v1/probes/edge", admin)).status, 204);
    await isProblem(await ask(host, "GET", "/v1/probes/edge"), 404, "probe-unknown");
    await isProblem(await ask(host, "DELETE", "/v1/probes/edge", admin), 404, "probe-unknown");
    // The version is still there: only its manifest has to be named.
    assert.equal((await move(two.hash)).status, 201);
    assert.equal(await title(), "two");
  }],

  ["a bundle that is not what it says changes nothing", async (host) => {
    const { folder, hash } = await upstreamBundle("three"),
      put = async (form: FormData, id = "edge") =>
        await ask(host, "PUT", `/v1/probes/${id}`, { key: "admin", body: form });
    const flipped = (bytes: Uint8Array<ArrayBuffer>) => bytes.with(bytes.length - 1, bytes.at(-1)! ^ 1);
    const wrong: [FormData, RegExp][] = [
      [
        await bundleForm(folder, (name, bytes) => name === BUNDLE_TENSORS ? flipped(bytes) : bytes),
        /sha256 of "probe/,
      ],
      [
        await bundleForm(folder, (name, bytes) => name === BUNDLE_TENSORS ? undefined : bytes),
        /safetensors" is missing/,
      ],
      [
        await bundleForm(folder, (name, bytes) => name === MANIFEST ? undefined : bytes),
        /first file is "bundle.json"/,
      ],
      [await bundleForm(folder, (name, bytes) => name === MANIFEST ? bytes.slice(1) : bytes), /no JSON/],
      [new FormData(), /./],
    ];
    for (const [form, why] of wrong) {
      const response = await put(form);
      assert.equal(response.status, 422);
      assert.match((await response.json()).detail, why);
    }
    const alien = await bundleForm(folder);
    alien.append("../../x", new Blob(["x"]), "x");
    assert.match((await isProblem(await put(alien), 422, "bundle-invalid")).detail, /names no file/);
    const bad = new MemoryFolder("bad");
    await bad.write(BUNDLE_FACTS, await folder.read(BUNDLE_FACTS));
    await bad.write(BUNDLE_TENSORS, encodeSafetensors({ x: { shape: [1], data: Float32Array.of(1) } }));
    await writeManifest(bad, { kind: "bundle" });
    assert.match((await isProblem(await put(await bundleForm(bad)), 422, "bundle-invalid")).detail, /tensor/);
    await isProblem(await put(await bundleForm(folder), "..%2Fx"), 422, "probe-id-invalid");
    const text = await ask(host, "PUT", "/v1/probes/edge", { key: "admin", body: "x", type: "text/plain" });
    await isProblem(text, 415, "media-type-unsupported");
    const body = JSON.stringify({ bundle: hash });
    const moved = await ask(host, "PUT", "/v1/probes/edge", { key: "admin", body, type: "application/json" });
    await isProblem(moved, 404, "bundle-unknown");
    const found = await json(await ask(host, "GET", "/v1/probes/edge"));
    assert.equal(wire.probeDescriptionSchema.parse(found).title, "two");
  }],

  ["scores by an upstream, raw and as a form, in three formats", async (host) => {
    for (const format of ["png", "jpeg", "webp"] as const) {
      const file = await encodeImage(picture, format), form = new FormData();
      form.set("image", new Blob([file]), "x");
      for (const sent of [{ body: file, type: `image/${format}` }, { body: form }]) {
        const score = wire.scoreSchema.strict().parse(await json(await ask(host, "POST", SCORE, sent)));
        assert.deepEqual(score.image, { sha256: await sha256(file), width: 20, height: 10, format });
        assert.equal(score.decision.answer, "flagged");
        assert.equal(score.decision.feature, FEATURES[1]);
        if (format !== "png") continue;
        // By hand: intercept + coef . means, as saveTestProbe stores them.
        const means = channelMeans(picture).map((mean) => Math.fround(mean * 2));
        const expected = 0.5 + means[0] - 2 * means[1] + 3 * means[2];
        assert(Math.abs(score.primary.score - expected) < 1e-9);
      }
    }
    const strict = wire.scoreSchema.parse(await json(await ask(host, "POST", `${SCORE}?fpr=0.001`, image())));
    assert.deepEqual([strict.fpr, strict.decision.answer, strict.primary.threshold], [
      0.001,
      "not-flagged",
      100,
    ]);
    await isProblem(await ask(host, "POST", `${SCORE}?fpr=0.5`, image()), 422, "query-invalid");
  }],

  ["images and bodies that do not fit", async (host) => {
    const chunks = (n: number) => {
      let left = n;
      return new ReadableStream({
        pull(controller) {
          if (left-- > 0) controller.enqueue(new Uint8Array(1_000_000));
          else controller.close();
        },
      });
    };
    const jpeg = await encodeImage(picture, "jpeg"), webp = await encodeImage(picture, "webp");
    const sos = jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xda);
    const scans = Array.from({ length: 3000 }, () => [...jpeg.subarray(sos, jpeg.length - 2)]).flat();
    const manyScans = Uint8Array.from([...jpeg.subarray(0, sos), ...scans, 0xff, 0xd9]);
    const sof = jpeg.findIndex((byte, i) =>
      byte === 0xff && jpeg[i + 1] === 0xc0 || jpeg[i + 1] === 0xc2 && byte === 0xff
    );
    const huge = jpeg.slice();
    huge.set([0xff, 0xff, 0xff, 0xff], sof + 5);
    const bad: [Uint8Array<ArrayBuffer>, number, string][] = [
      [png.slice(0, -20), 422, "image-truncated"],
      [jpeg.slice(0, -2), 422, "image-truncated"],
      [webp.slice(0, -9), 422, "image-truncated"],
      [new TextEncoder().encode("GIF89a and so on"), 422, "image-unknown-format"],
      [new Uint8Array(0), 422, "body-empty"],
      [png.with(40, png[40] ^ 255), 422, "image-malformed"],
      [manyScans, 422, "image-too-many-scans"],
      [huge, 413, "image-too-many-pixels"],
      [await encodeImage(blankPicture(2001, 2000), "png"), 413, "image-too-many-pixels"],
    ];
    for (const [bytes, status, type] of bad) {
      await isProblem(await ask(host, "POST", SCORE, image(bytes)), status, type);
    }
    const large = await ask(host, "POST", SCORE, { body: chunks(9), type: "image/png" });
    await isProblem(large, 413, "body-too-large");
    await isProblem(
      await ask(host, "POST", SCORE, { body: "x", type: "text/plain" }),
      415,
      "media-type-unsupported",
    );
    const zipped = await ask(host, "POST", SCORE, { ...image(), headers: { "content-encoding": "gzip" } });
    await isProblem(zipped, 415, "media-type-unsupported");
    const form = new FormData();
    form.set("picture", new Blob([png]), "x");
    await isProblem(await ask(host, "POST", SCORE, { body: form }), 422, "multipart-invalid");
    await isProblem(await ask(host, "POST", "/v1/probes/nobody/score", image()), 404, "probe-unknown");
    for (const id of ["..%2f..", "%2e%2e%2f", "A", "a..b", "_ids", "x".repeat(65)]) {
      await isProblem(await ask(host, "POST", `/v1/probes/${id}/score`, image()), 422, "probe-id-invalid");
    }
    await isProblem(await ask(host, "GET", "/nothing"), 404, "not-found");
    const get = await ask(host, "GET", SCORE);
    assert.equal(get.headers.get("allow"), "POST");
    await isProblem(get, 405, "method-not-allowed");
  }],

  ["a batch answers in order, and one bad image spoils its own line", async (host) => {
    const jpeg = await encodeImage(picture, "jpeg"), cut = png.slice(0, -20);
    const path = "/v1/probes/edge/batch";
    const read = async (response: Response) => {
      assert.equal(response.status, 200);
      assert.equal(response.headers.get("content-type"), "application/x-ndjson");
      return (await response.text()).trimEnd().split("\n").map((line) =>
        wire.batchLineSchema.parse(JSON.parse(line))
      );
    };
    const form = new FormData();
    [png, cut, jpeg, new Uint8Array(0)].forEach((bytes, i) =>
      form.append("image", new Blob([bytes]), `${i}.png`)
    );
    const lines = await read(await ask(host, "POST", path, { body: form }));
    assert.deepEqual(lines.map(({ index, name, problem }) => [index, name, problem?.type]), [
      [0, "0.png", undefined],
      [1, "1.png", "/problems/image-truncated"],
      [2, "2.png", undefined],
      [3, "3.png", "/problems/body-empty"],
    ]);
    assert.equal(lines[2].score!.image.format, "jpeg");
    const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));
    const items = [
      JSON.stringify({ name: "a", image: base64(png) }),
      "{",
      JSON.stringify({ name: "b", image: "*" }),
      "",
      JSON.stringify({ image: base64(cut) }),
      JSON.stringify({ name: "c", image: base64(png) }),
    ];
    const sent = { body: items.join("\n"), type: "application/x-ndjson" };
    const answers = await read(await ask(host, "POST", `${path}?fpr=0.001`, sent));
    assert.deepEqual(answers.map(({ name, problem, score }) => [name, problem?.type ?? score?.fpr]), [
      ["a", 0.001],
      [null, "/problems/json-invalid"],
      ["b", "/problems/json-invalid"],
      [null, "/problems/image-truncated"],
      ["c", 0.001],
    ]);
    // Before the first image there is nothing to stream, after it the status is out.
    const boundary = "multipart/form-data; boundary=b", ndjson = "application/x-ndjson";
    for (const [body, type, name] of [["x", boundary, "multipart-invalid"], ["\n", ndjson, "body-empty"]]) {
      await isProblem(await ask(host, "POST", path, { body, type }), 422, name);
    }
    const head = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n';
    const cutForm = await read(
      await ask(host, "POST", path, { body: `${head}x\r\n${head}y`, type: boundary }),
    );
    assert.deepEqual(cutForm.map(({ problem }) => problem?.type), [
      "/problems/image-unknown-format",
      "/problems/multipart-invalid",
    ]);
    await isProblem(await ask(host, "POST", path, image()), 415, "media-type-unsupported");
  }],

  ["activations: the host's own, and a caller's", async (host) => {
    const encoded = await ask(host, "POST", "/v1/probes/edge/encode", image());
    assert.equal(encoded.status, 200);
    const file = new Uint8Array(await encoded.arrayBuffer());
    const tensors = await SafetensorsFile.open(bytesSource("answer", file));
    assert.deepEqual(await tensors.f32(FEATURES[0]), Float32Array.from(channelMeans(picture)));
    const path = "/v1/probes/edge/activations", type = "application/vnd.safetensors";
    const send = (body: Uint8Array<ArrayBuffer>) => ask(host, "POST", path, { body, type });
    const own = wire.activationScoresSchema.parse(await json(await send(file)));
    const score = wire.scoreSchema.parse(await json(await ask(host, "POST", SCORE, image())));
    assert.deepEqual(own.rows, [{ decision: score.decision, layers: score.layers, primary: score.primary }]);

    const rows = (n: number, dim = 3, features = FEATURES, metadata = {}) =>
      encodeSafetensors(
        Object.fromEntries(
          features.map((name) => [name, { shape: [n, dim], data: new Float32Array(n * dim) }]),
        ),
        metadata,
      );
    const found = wire.activationScoresSchema.parse(await json(await send(rows(5))));
    assert.deepEqual(found.rows.map(({ primary }) => primary.score), [0.5, 0.5, 0.5, 0.5, 0.5]);
    const bad: [Uint8Array<ArrayBuffer>, RegExp][] = [
      [rows(1, 4), /is \(1,4\), expected \(3\)/],
      [rows(1, 3, FEATURES.slice(1)), /is missing/],
      [rows(0), /0 rows/],
      [rows(1, 3, FEATURES, { model: "another" }), /come from the model "another"/],
      [Uint8Array.of(1, 2, 3), /too few/],
    ];
    for (const [body, why] of bad) {
      assert.match((await isProblem(await send(body), 422, "activations-invalid")).detail, why);
    }
    assert.equal(
      tensors.metadata.model,
      modelName({ model: score.model } as Parameters<typeof modelName>[0]),
    );
    await isProblem(await ask(host, "POST", path, image()), 415, "media-type-unsupported");
  }],

  ["the example bundle's own model", async (host) => {
    const body = await bundleForm(EXAMPLE_BUNDLE);
    const stored = await ask(host, "PUT", "/v1/probes/example", { key: "admin", body });
    wire.storedAnswerSchema.parse(await json(stored, 201));
    const about = wire.probeDescriptionSchema.parse(await json(await ask(host, "GET", "/v1/probes/example")));
    assert.equal(about.encoder, "onnx");
    const send = async () => {
      const response = await ask(host, "POST", "/v1/probes/example/score", image(await examplePicture()));
      return wire.scoreSchema.parse(await json(response));
    };
    const first = await send(), again = await send();
    assert.deepEqual(again.layers, first.layers);
    assert.equal(first.layers.length, about.layers.length);
    assert(first.layers.every(({ score }) => Number.isFinite(score)));
  }],

  ["metrics count what was asked", async (host) => {
    const text = await (await ask(host, "GET", "/metrics")).text();
    const count = (line: string) =>
      Number(text.split("\n").find((l) => l.startsWith(line))?.split(" ").at(-1));
    assert(count('afterimage_requests_total{method="POST",route="/v1/probes/:id/score",status="200"}') >= 7);
    assert(count('afterimage_answers_total{answer="flagged"}') >= 7);
    assert(count('afterimage_request_seconds_bucket{route="/v1/probes/:id/score",le="+Inf"}') >= 7);
    assert(!text.includes("edge"), "no id");
  }],

  ["more requests than a minute allows", async (host) => {
    let refused: Response | undefined;
    for (let n = 0; n < 700 && !refused; n++) {
      const response = await ask(host, "GET", "/v1/probes/none", { key: "spent" });
      if (response.status === 429) refused = response;
      else await response.body?.cancel();
    }
    assert(refused, "no request of 700 was refused");
    assert.match(refused.headers.get("retry-after")!, /^[1-9]\d*$/);
    await isProblem(refused, 429, "rate-limited");
  }],
];
