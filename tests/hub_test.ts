/**
 * Models by name: what is downloaded from a hub in this process, how it lies in the cache, and what interruptions, wrong
 * bytes, redirects, refusals and a second process do. No answer of a hub may lead out of the cache.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { chooseFiles, hubSnapshot, parseHubName } from "../scripts/hub.ts";
import { type HubSettings, hubSettings } from "../scripts/hub_settings.ts";
import { modelFolder } from "../scripts/model.ts";
import { type Asked, COMMIT, fakeHub, hashOf } from "./hub_server.ts";

const random = new Random(5);
const shard = (name: string, count: number) =>
  encodeSafetensors({
    [name]: { shape: [count], data: Float32Array.from({ length: count }, () => random.float()) },
  });
const FIRST = "model-00001-of-00002.safetensors", SECOND = "model-00002-of-00002.safetensors";
const files = {
  "README.md": "# A model",
  "config.json": '{"model_type":"llama"}',
  "tokenizer.json": "{}",
  "merges.txt": "a b",
  "trainer_state.json": "{}",
  "model.safetensors.index.json": JSON.stringify({ weight_map: { a: FIRST, b: SECOND } }),
  [FIRST]: shard("a", 50_000),
  [SECOND]: shard("b", 2000),
  "model.fp16.safetensors": shard("a", 4),
  "pytorch_model.bin": "old",
  "pytorch_model.bin.index.json": "{}",
  "onnx/config.json": "{}",
};
const NEEDED = ["config.json", "merges.txt", FIRST, SECOND, "model.safetensors.index.json", "tokenizer.json"];
const name = parseHubName("org/name")!;
const blobOf = (file: keyof typeof files): string =>
  hashOf(file, typeof files[file] === "string" ? new TextEncoder().encode(files[file]) : files[file]);

const scratch = await Deno.makeTempDir();
globalThis.addEventListener("unload", () => Deno.removeSync(scratch, { recursive: true }));

async function settingsFor(endpoint: string, change: Partial<HubSettings> = {}): Promise<HubSettings> {
  const cache = await Deno.makeTempDir({ dir: scratch });
  return { endpoint, cache, offline: false, retryMs: 1, ...change };
}

async function namesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

const cachedRefs = ({ cache }: HubSettings) => namesIn(`${cache}/models--org--name/refs`).catch(() => []);

const refused = (promise: Promise<unknown>, pattern: RegExp) =>
  assert.rejects(promise, (error) => {
    assert(error instanceof InputError, String(error));
    assert.match(error.message, pattern);
    return true;
  });

async function assertWhole(snapshot: string): Promise<void> {
  for (const file of NEEDED) {
    const bytes = await Deno.readFile(`${snapshot}/${file}`), expected = files[file as keyof typeof files];
    assert.deepEqual(
      bytes,
      typeof expected === "string" ? new TextEncoder().encode(expected) : expected,
      file,
    );
  }
}

Deno.test("a snapshot holds what is needed, as Hugging Face's tools lay it out; the token stays with the hub", async () => {
  await using hub = fakeHub(files);
  const settings = await settingsFor(hub.endpoint, { token: "hf_secret" });
  const snapshot = await hubSnapshot(name, settings), root = `${settings.cache}/models--org--name`;
  assert.equal(snapshot.replace(/\/$/, ""), `${root}/snapshots/${COMMIT}`);
  assert.deepEqual(await namesIn(snapshot), [...NEEDED].sort());
  await assertWhole(snapshot);
  assert.equal(await Deno.readTextFile(`${root}/refs/main`), COMMIT);
  assert.equal(await Deno.readLink(`${snapshot}/${FIRST}`), `../../blobs/${blobOf(FIRST)}`);
  assert.deepEqual(
    await namesIn(`${root}/blobs`),
    NEEDED.map((file) => blobOf(file as keyof typeof files)).sort(),
  );

  assert(hub.asked.some(({ port }) => port === "files"));
  for (const { port, authorization } of hub.asked) {
    assert.equal(authorization, port === "hub" ? "Bearer hf_secret" : null);
  }
  hub.asked.length = 0;
  await hubSnapshot(name, settings);
  assert(hub.asked.every(({ path }) => path.startsWith("/api/")), "a file was fetched again");
  hub.asked.length = 0;
  await hubSnapshot({ ...name, revision: COMMIT }, settings);
  assert.deepEqual(hub.asked, [], "a commit that is whole needs no question");
});

const rangesOf = ({ asked }: { asked: Asked[] }, file: string) =>
  asked.filter(({ port, path }) => port === "files" && path.includes(file)).map(({ range }) => range);

Deno.test("a broken connection is taken up where it broke", async () => {
  await using hub = fakeHub(files);
  hub.trouble = { breakAfter: [60_000, 60_000] };
  await assertWhole(await hubSnapshot(name, await settingsFor(hub.endpoint)));
  assert.deepEqual(rangesOf(hub, FIRST), [null, "bytes=60000-", "bytes=120000-"]);
});

Deno.test("what has arrived before a download is given up is kept for the next", async () => {
  await using hub = fakeHub(files);
  const settings = await settingsFor(hub.endpoint);
  hub.trouble = { breakAfter: [70_000, 0, 0, 0, 0] };
  await refused(
    hubSnapshot(name, settings),
    /^Cannot download "org\/name": .*; the cache does not hold it whole$/,
  );
  const partial = `${settings.cache}/models--org--name/blobs/${blobOf(FIRST)}.incomplete`;
  assert.equal((await Deno.stat(partial)).size, 70_000);
  assert.deepEqual(await cachedRefs(settings), [], "a branch is not said to be here before it is");
  hub.asked.length = 0;
  await assertWhole(await hubSnapshot(name, settings));
  assert.deepEqual(rangesOf(hub, FIRST), ["bytes=70000-"]);
  await assert.rejects(Deno.stat(partial), Deno.errors.NotFound);
});

Deno.test("a host without ranges sends the file from its beginning", async () => {
  await using hub = fakeHub(files);
  hub.trouble = { breakAfter: [60_000], ignoreRanges: true };
  await assertWhole(await hubSnapshot(name, await settingsFor(hub.endpoint)));
  assert.deepEqual(rangesOf(hub, FIRST), [null, "bytes=60000-"]);
});

Deno.test("wrong bytes never enter the cache; a damaged beginning is fetched again", async () => {
  await using hub = fakeHub(files);
  const settings = await settingsFor(hub.endpoint), blobs = `${settings.cache}/models--org--name/blobs`;
  hub.trouble = { wrongBytes: true };
  await refused(
    hubSnapshot(name, settings),
    /^Cannot download "model-00001-of-00002\.safetensors": its hash is \w+, expected \w+$/,
  );
  assert(!(await namesIn(blobs)).some((blob) => blob.startsWith(blobOf(FIRST))));
  hub.trouble = {};
  await Deno.writeFile(`${blobs}/${blobOf(FIRST)}.incomplete`, new Uint8Array(1000));
  await Deno.writeFile(`${blobs}/${blobOf(SECOND)}.incomplete`, new Uint8Array(1_000_000)); // longer than the file
  hub.asked.length = 0;
  await assertWhole(await hubSnapshot(name, settings));
  assert.deepEqual(rangesOf(hub, FIRST), ["bytes=1000-", null]);
  assert.deepEqual(rangesOf(hub, SECOND), [null]);
});

Deno.test("offline the cache must hold it whole", async () => {
  await using hub = fakeHub(files);
  const settings = await settingsFor(hub.endpoint), offline = { ...settings, offline: true };
  await refused(
    hubSnapshot(name, offline),
    /^Cannot use "org\/name" offline: the cache has no revision "main" of it$/,
  );
  const snapshot = await hubSnapshot(name, settings);
  hub.asked.length = 0;
  assert.equal(await hubSnapshot(name, offline), snapshot);
  assert.deepEqual(hub.asked, []);
  const closed = fakeHub({}), nowhere = { ...settings, endpoint: closed.endpoint };
  await closed[Symbol.asyncDispose]();
  assert.equal(
    await hubSnapshot(name, nowhere),
    snapshot,
    "an endpoint that does not answer leaves the cache",
  );
  hub.trouble = { refuse: { status: 503 } };
  assert.equal(await hubSnapshot(name, settings), snapshot);
  await Deno.remove(`${snapshot}/${SECOND}`);
  await refused(hubSnapshot(name, offline), new RegExp(`the cache has no "${SECOND}" of it$`));
  await refused(hubSnapshot(name, nowhere), /does not answer: .*; the cache does not hold it whole$/);
});

Deno.test("two processes at once fetch each file once and disturb each other nowhere", async () => {
  await using hub = fakeHub(files);
  const { cache } = await settingsFor(hub.endpoint),
    module = new URL("../scripts/hub.ts", import.meta.url).href;
  const code = `const { hubSnapshot, parseHubName } = await import(${JSON.stringify(module)});
    await hubSnapshot(parseHubName("org/name"));`;
  const env = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_TOKEN: "", HF_HUB_OFFLINE: "" };
  const run = () =>
    new Deno.Command(Deno.execPath(), { args: ["eval", code], env, stderr: "piped" }).output();
  for (const { code, stderr } of await Promise.all([run(), run()])) {
    assert.equal(code, 0, new TextDecoder().decode(stderr));
  }
  await assertWhole(`${cache}/models--org--name/snapshots/${COMMIT}`);
  assert.deepEqual([rangesOf(hub, FIRST), rangesOf(hub, SECOND)], [[null], [null]]);
});

Deno.test("what the hub refuses is said in one line", async () => {
  await using hub = fakeHub(files);
  const settings = await settingsFor(hub.endpoint), withToken = { ...settings, token: "hf_x" };
  const says = async (refuse: { status: number; code?: string }, pattern: RegExp, hubSettings = settings) => {
    hub.trouble = { refuse };
    await refused(hubSnapshot(name, hubSettings), pattern);
  };
  await says({ status: 401, code: "GatedRepo" }, /it is gated: accept its terms on the hub and set HF_TOKEN/);
  await says({ status: 403, code: "GatedRepo" }, /it is gated, and the account of HF_TOKEN/, withToken);
  await says({ status: 401 }, /no such model, or it is private and HF_TOKEN is not set$/);
  await says(
    { status: 404, code: "RepoNotFound" },
    /no such model, or the account of HF_TOKEN may not read it$/,
    withToken,
  );
  await says({ status: 418 }, /the hub answers 418$/);
  hub.trouble = {};
  await refused(
    hubSnapshot({ ...name, revision: "v9" }, settings),
    /^Cannot download "org\/name": it has no revision "v9"$/,
  );
  await hubSnapshot({ ...name, revision: "v1/a" }, settings);
  assert.equal(await Deno.readTextFile(`${settings.cache}/models--org--name/refs/v1/a`), COMMIT);
});

Deno.test("no answer leads out of the cache", async () => {
  const index = JSON.stringify({ weight_map: { a: "../../../evil" } });
  await using climbing = fakeHub({ ...files, "model.safetensors.index.json": index });
  await refused(
    hubSnapshot(name, await settingsFor(climbing.endpoint)),
    /Cannot use the file name "\.\.\/\.\.\/\.\.\/evil"/,
  );
  await using lacking = fakeHub({
    ...files,
    "model.safetensors.index.json": JSON.stringify({ weight_map: { a: "x.safetensors" } }),
  });
  await refused(
    hubSnapshot(name, await settingsFor(lacking.endpoint)),
    /its index names "x\.safetensors", which it has not$/,
  );
  await using forging = fakeHub(files);
  forging.forged.push({ type: "file", path: "special_tokens_map.json", size: 3, oid: "../../../evil" });
  await refused(hubSnapshot(name, await settingsFor(forging.endpoint)), /of another form than expected$/);
});

Deno.test("names of models, and what else may look like one", () => {
  assert.deepEqual(parseHubName("org/name"), { repo: "org/name", revision: "main", gguf: undefined });
  assert.deepEqual(parseHubName("a-b/C.1_x@refs/pr/2:Q8_0"), {
    repo: "a-b/C.1_x",
    revision: "refs/pr/2",
    gguf: "Q8_0",
  });
  for (
    const other of ["name", "a/b/c", "./a", "../a", "/a/b", "a/..", "a/b.git", "a--b/c", "a/b@", "C:\\a/b"]
  ) {
    assert.equal(parseHubName(other), undefined, other);
  }
  assert.throws(() => parseHubName("a/b@x/../y"), InputError);
});

Deno.test("safetensors go before bin, bin before GGUF; a GGUF among several is chosen by its end", () => {
  const choose = (names: string[], spec = "org/name") => chooseFiles(names, parseHubName(spec)!);
  assert.deepEqual(choose(["config.json", "model.safetensors", "pytorch_model.bin"]), [
    "config.json",
    "model.safetensors",
  ]);
  assert.deepEqual(choose(["pytorch_model.bin.index.json", "a.gguf", "mm_projector.bin"]), [
    "pytorch_model.bin.index.json",
    "mm_projector.bin",
  ]);
  assert.deepEqual(choose(["config.json", "mm_projector.bin"]), ["config.json", "mm_projector.bin"]);
  assert.deepEqual(choose(["config.json", "m-q8_0.gguf"]), ["m-q8_0.gguf"]);
  const several = ["m-Q4_K_M.gguf", "m-Q8_0.gguf"];
  assert.deepEqual(choose(several, "org/name:q8_0"), ["m-Q8_0.gguf"]);
  assert.throws(
    () => choose(several),
    /has m-Q4_K_M\.gguf, m-Q8_0\.gguf; write "org\/name:m-Q4_K_M\.gguf" for the first$/,
  );
  assert.throws(() => choose(several, "org/name:Q2_K"), /Cannot choose "Q2_K"/);
  assert.throws(
    () => choose(["config.json"]),
    /has no model\.safetensors, no pytorch_model\.bin and no GGUF file$/,
  );
});

Deno.test("the environment says where hub and cache are, as for Hugging Face's own tools", () => {
  const none = hubSettings({ HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" });
  assert.deepEqual([none.token, none.offline, new URL(none.endpoint).protocol], [undefined, false, "https:"]);
  assert(none.cache.endsWith("/.cache/huggingface/hub"));
  assert.equal(hubSettings({ HF_HOME: "/a" }).cache, "/a/hub");
  assert.equal(hubSettings({ HF_HOME: "/a", HF_HUB_CACHE: "/b" }).cache, "/b");
  assert.equal(hubSettings({ HF_ENDPOINT: "http://mirror:80/" }).endpoint, "http://mirror:80");
  assert.equal(hubSettings({ HF_TOKEN: "t", HF_HUB_OFFLINE: "1" }).token, "t");
  assert(hubSettings({ HF_HUB_OFFLINE: "YES" }).offline);
  assert.throws(() => hubSettings({ HF_ENDPOINT: "mirror" }), /Cannot use HF_ENDPOINT "mirror"/);
});

Deno.test("a model is opened by its name, and a folder of that name goes first", async () => {
  await using hub = fakeHub(files);
  const { cache } = await settingsFor(hub.endpoint), home = await Deno.makeTempDir({ dir: scratch });
  const before = { HF_ENDPOINT: Deno.env.get("HF_ENDPOINT"), HF_HUB_CACHE: Deno.env.get("HF_HUB_CACHE") };
  Deno.env.set("HF_ENDPOINT", hub.endpoint);
  Deno.env.set("HF_HUB_CACHE", cache);
  try {
    const weights = await openWeights(await modelFolder("org/name@main"));
    assert.deepEqual(weights.names(), ["a", "b"]);
    assert.equal((await weights.f32("b")).length, 2000);
    weights.close();
    assert.equal((await modelFolder("models/tiny")).path, "models/tiny");
    await refused(modelFolder(home), /has no config\.json and no GGUF file$/);
    await refused(modelFolder("org/name", { mmProjector: "p.bin" }), /--vision-tower is missing$/);
    await refused(
      modelFolder("models/missing@v9"),
      /"models\/missing": it has no revision "v9"; there is no folder of that name here either$/,
    );
  } finally {
    for (const [key, value] of Object.entries(before)) {
      value === undefined ? Deno.env.delete(key) : Deno.env.set(key, value);
    }
  }
});
