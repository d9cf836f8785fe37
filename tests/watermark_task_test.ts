/**
 * The watermark task on a disk: the same bytes by any number of workers and after any stop; what is outside or broken.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readLlava } from "../core/data/llava.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { readManifest, sha256 } from "../core/formats/manifest.ts";
import { decodeImage, encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { generateSets, parsePeople } from "../core/privacy/people.ts";
import { watermarkOptionsSchema } from "../core/privacy/watermark.ts";
import { Random } from "../core/random.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { nameInFormat } from "../scripts/watermark_file.ts";
import { watermarkFolder, type WatermarkRun } from "../scripts/watermark_folder.ts";

const { U1 } = generateSets(1, { U1: 20, U2: 20 });
const COUNT = 12;

/** A folder with `in/a/0.png`... of noise and `data.json` with one record each, two for the first, one without image. */
async function makeInput(): Promise<string> {
  const root = await Deno.makeTempDir();
  await Deno.mkdir(join(root, "in/a"), { recursive: true });
  const random = new Random(1);
  const records: unknown[] = [{ id: "text", conversations: turns("what color") }];
  for (let i = 0; i < COUNT; i++) {
    const picture = blankPicture(70, 66);
    for (let at = 0; at < picture.data.length; at++) picture.data[at] = random.int(256);
    const format = i % 3 === 0 ? "jpeg" : "png";
    const image = `a/${i}.${format === "jpeg" ? "jpg" : "png"}`;
    await Deno.writeFile(join(root, "in", image), await encodeImage(picture, format));
    records.push({ id: i, image, extra: "kept", conversations: turns("<image>\nwhat color") });
    if (i === 0) records.push({ id: "again", image, conversations: turns("<image>\nwhat shape") });
  }
  await Deno.writeTextFile(join(root, "data.json"), JSON.stringify(records));
  return root;
}

const turns = (question: string) => [{ from: "human", value: question }, { from: "gpt", value: "red" }];

function runOf(root: string, out: string, over: Partial<WatermarkRun> = {}): WatermarkRun {
  return {
    data: join(root, "data.json"),
    images: join(root, "in"),
    out: join(root, out),
    set: "U1",
    parents: {},
    watermark: watermarkOptionsSchema.parse({ font: "pixel", content: "compact", position: "grid:16" }),
    plan: { seed: 1, rate: 0.5, people: U1, format: "keep", quality: 95 },
    skipBroken: false,
    workers: 1,
    ...over,
  };
}

/** Name -> sha256 of every file in a folder. */
async function hashes(path: string): Promise<Record<string, string>> {
  const folder = new DiskFolder(path);
  const names = await folder.list();
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await sha256(await folder.read(name))])),
  );
}

async function withInput(test: (root: string) => Promise<void>): Promise<void> {
  const root = await makeInput();
  try {
    await test(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("a data set: every image re-encoded, marked records name their person, hashes agree", () =>
  withInput(async (root) => {
    const { records, broken, hash } = await watermarkFolder(runOf(root, "out"));
    assert.deepEqual(broken, []);
    assert.deepEqual(
      records.map((record) => record.image),
      Array.from({ length: COUNT }, (_, i) => `a/${i}.${i % 3 ? "png" : "jpg"}`),
    );
    const out = new DiskFolder(join(root, "out"));
    const { manifest, hash: read } = await readManifest(out, "dataset", { verify: true });
    assert.equal(read, hash);
    const marked = records.filter((record) => record.person !== null);
    assert.equal(manifest.facts.marked, marked.length);
    assert(marked.length > 0 && marked.length < COUNT, `${marked.length} marked`);
    for (const record of records) {
      const before = await Deno.readFile(join(root, "in", record.image));
      const after = await out.read(`images/${record.image}`);
      assert.equal(record.before, await sha256(before));
      assert.equal(record.after, await sha256(after));
      assert.equal((await decodeImage(after)).format, record.image.endsWith("jpg") ? "jpeg" : "png");
    }
    const data = JSON.parse(new TextDecoder().decode(await out.read("data.json")));
    assert.equal(readLlava(data, "data.json").length, COUNT + 2);
    for (const record of data) {
      const person = records.find(({ image }) => image === record.image)?.person ?? undefined;
      assert.equal(record.person, person);
    }
    assert.equal(data[1].extra, "kept");
    assert.deepEqual(
      parsePeople(new TextDecoder().decode(await out.read("people.jsonl")), "people.jsonl"),
      U1,
    );
    // Once more: nothing to do, the same answer.
    assert.deepEqual(await watermarkFolder(runOf(root, "out")), { records, broken, hash });
    await assert.rejects(
      watermarkFolder(runOf(root, "out", { plan: { ...runOf(root, "").plan, seed: 2 } })),
      /it holds a data set made otherwise/,
    );
  }));

Deno.test("a record with several images names the person of each", () =>
  withInput(async (root) => {
    const images = ["a/1.png", "a/2.png", "a/5.png"];
    const conversations = turns("<image>\n<image>\n<image>\nsame color");
    await Deno.writeTextFile(
      join(root, "data.json"),
      JSON.stringify([{ id: "three", image: images, conversations }]),
    );
    const { records } = await watermarkFolder(runOf(root, "out"));
    const people = records.map(({ person }) => person);
    assert(people.some((person) => person) && people.includes(null), people.join(" "));
    const [record] = JSON.parse(await Deno.readTextFile(join(root, "out/data.json")));
    assert.deepEqual(record, { id: "three", image: images, conversations, person: people });
    // Qwen-VL's file of the same images gives the same ones marked, written as LLaVA's.
    const value = images.map((image, i) => `Picture ${i + 1}: <img>${image}</img>\n`).join("") + "same color";
    const qwen = [{ from: "user", value }, { from: "assistant", value: "red" }];
    await Deno.writeTextFile(join(root, "data.json"), JSON.stringify([{ id: "three", conversations: qwen }]));
    await watermarkFolder(runOf(root, "qwen"));
    assert.deepEqual(JSON.parse(await Deno.readTextFile(join(root, "qwen/data.json"))), [record]);
  }));

Deno.test("neither the number of workers nor a stop changes a byte", () =>
  withInput(async (root) => {
    await watermarkFolder(runOf(root, "one"));
    await watermarkFolder(runOf(root, "two", { workers: 2 }));
    const stop = new AbortController();
    await assert.rejects(
      watermarkFolder(
        runOf(root, "stopped", { signal: stop.signal, onProgress: (done) => done === 5 && stop.abort() }),
      ),
      (error) => error instanceof Interrupted && /stopped after 5 of 12/.test(error.message),
    );
    assert.equal(await new DiskFolder(join(root, "stopped")).exists("manifest.json"), false);
    // As a kill would leave it: half a journal line, half an image.
    const journal = join(root, "stopped/journal.jsonl.partial");
    await Deno.writeTextFile(journal, '{"image":"a/7.p', { append: true });
    await Deno.truncate(join(root, "stopped/images/a/1.png"), 100);
    const kept = join(root, "stopped/images/a/2.png"), written = (await Deno.stat(kept)).mtime;
    await assert.rejects(
      watermarkFolder(runOf(root, "stopped", { plan: { ...runOf(root, "").plan, rate: 1 } })),
      /it was begun with other settings/,
    );
    await watermarkFolder(runOf(root, "stopped"));
    assert.deepEqual((await Deno.stat(kept)).mtime, written, "a finished image is not made again");
    const expected = await hashes(join(root, "one"));
    assert.equal(Object.keys(expected).length, COUNT + 4);
    assert.deepEqual(await hashes(join(root, "two")), expected);
    assert.deepEqual(await hashes(join(root, "stopped")), expected);
  }));

Deno.test("broken images, links out of the folder and missing files are all listed, and left out on request", () =>
  withInput(async (root) => {
    const image = (i: number) => join(root, `in/a/${i}.png`);
    const whole = await Deno.readFile(image(1));
    await Deno.writeFile(image(1), whole.subarray(0, 900));
    await Deno.writeFile(join(root, "secret.png"), whole);
    await Deno.remove(image(2));
    await Deno.symlink(join(root, "secret.png"), image(2));
    await Deno.remove(image(4));
    await assert.rejects(watermarkFolder(runOf(root, "out")), (error) => {
      assert(error instanceof InputError);
      assert.match(error.message, /^Cannot use 3 of 12 images \(--skip-broken/);
      assert.match(error.message, /Cannot read "a\/1\.png": /);
      assert.match(error.message, /Cannot open "a\/2\.png": it leads out of the image folder/);
      assert.match(error.message, /Cannot open "a\/4\.png": no such file/);
      return true;
    });
    const { records, broken } = await watermarkFolder(runOf(root, "out", { skipBroken: true }));
    assert.deepEqual(broken.map(({ image }) => image), ["a/1.png", "a/2.png", "a/4.png"]);
    assert.equal(records.length, COUNT - 3);
    const data = JSON.parse(await Deno.readTextFile(join(root, "out/data.json")));
    assert.equal(data.length, COUNT + 2 - 3);
  }));

Deno.test("another format renames images in the data too", () =>
  withInput(async (root) => {
    const plan = { ...runOf(root, "").plan, format: "webp" as const };
    const { records } = await watermarkFolder(runOf(root, "out", { plan }));
    assert.deepEqual([records[0].image, records[0].source], ["a/0.webp", "a/0.jpg"]);
    const data = JSON.parse(await Deno.readTextFile(join(root, "out/data.json")));
    assert.equal(data[1].image, "a/0.webp");
    assert.equal((await decodeImage(await Deno.readFile(join(root, "out/images/a/0.webp")))).format, "webp");
    assert.equal(nameInFormat("b.c/d", "jpeg"), "b.c/d.jpg");
    assert.equal(nameInFormat("x.JPEG", "jpeg"), "x.JPEG");
  }));

Deno.test("images are never written over themselves, and paths that climb are refused", () =>
  withInput(async (root) => {
    await Deno.rename(join(root, "in"), join(root, "images"));
    await assert.rejects(
      watermarkFolder(runOf(root, ".", { images: join(root, "images") })),
      /its images are the ones to be read/,
    );
    await Deno.writeTextFile(
      join(root, "data.json"),
      JSON.stringify([{ id: 1, image: "../secret.png", conversations: turns("<image>\nwho") }]),
    );
    await assert.rejects(
      watermarkFolder(runOf(root, "out", { images: join(root, "images") })),
      /record 0.*"image"/,
    );
  }));

Deno.test("wrong settings stop the run at once, also from a worker, and are no broken images", () =>
  withInput(async (root) => {
    const watermark = watermarkOptionsSchema.parse({ font: "pixel", position: "fixed:500,3" });
    for (const workers of [1, 2]) {
      await assert.rejects(
        watermarkFolder(runOf(root, "out", { watermark, workers, skipBroken: true })),
        (error) =>
          error instanceof InputError &&
          /at 500,3: the picture is 70x66 \(image "a\/\d+\./.test(error.message),
      );
    }
    const people = [{ ...U1[0], username: "山田 太郎" }];
    const plan = { ...runOf(root, "").plan, people, rate: 1 };
    await assert.rejects(
      watermarkFolder(runOf(root, "sans", { watermark: watermarkOptionsSchema.parse({}), plan })),
      /Cannot draw "username: 山田 太郎.*the font has no "山" \(image "a\/0\.jpg"\)/,
    );
    // Nothing was done with them, so that the same folder can be tried again with better ones.
    await watermarkFolder(runOf(root, "sans"));
  }));
