/**
 * `deno task check` against a service, a probe folder and its own rules: exit codes, JUnit, JSON lines, which pictures.
 * The service's encoder is worked out by hand, so that it is known what must be flagged.
 */
import assert from "node:assert/strict";
import { encodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { saveProbe } from "../core/probe/stored.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { picturePaths } from "../scripts/check_images.ts";
import { type Checked, exitCode, junit, summary, tally } from "../scripts/check_report.ts";
import { withService } from "./service_probe.ts";

const FEATURE = "layers.0.resid_post@image-mean",
  CHECK = new URL("../scripts/check.ts", import.meta.url).pathname;

/** A store whose probe "bright" flags a picture brighter than `threshold`, of 0 to 1; null sets none. */
async function brightness(threshold: number | null) {
  const root = new MemoryFolder("store"), group = { set: "U", people: 8 };
  await saveProbe(root.folder("bright"), {
    id: "bright",
    title: "Bright pictures",
    mode: "sound",
    model: { name: "test-model", hash: "ab".repeat(32), adapter: null },
    content: "light",
    prompt: "what is this",
    primary: FEATURE,
    seen: group,
    unseen: group,
    seed: 0,
    layers: [{
      feature: FEATURE,
      site: "layers.0.resid_post",
      reduction: "image-mean",
      dim: 3,
      metrics: {},
      threshold: { fpr01: threshold, fpr001: null },
    }],
  }, { [FEATURE]: { coef: new Float64Array(3).fill(1 / 3), intercept: 0 } });
  return { store: folderStore(root) };
}

async function grey(path: string, level: number): Promise<void> {
  const picture = blankPicture(8, 8);
  picture.data.fill(level);
  await Deno.writeFile(path, await encodeImage(picture, "png"));
}

async function withFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${folder}/new/deeper`, { recursive: true });
    await grey(`${folder}/new/dark.png`, 20);
    await grey(`${folder}/new/deeper/grey.png`, 100);
    await grey(`${folder}/new/light.png`, 240);
    await Deno.writeTextFile(`${folder}/new/notes.txt`, "no picture");
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs the task as a pipeline would. */
async function run(args: string[], input = ""): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", CHECK, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const child = command.spawn(), writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output(), text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

Deno.test("exit codes over HTTP: 0 clean, 1 flagged, 2 whatever could not be checked", () =>
  withFolder(async (folder) =>
    await withService(await brightness(0.5), async (url) => {
      const base = ["--probe", "bright", "--url", url], cut = `${folder}/cut.png`;
      await Deno.writeFile(cut, (await Deno.readFile(`${folder}/new/light.png`)).subarray(0, 50));
      const [flagged, allowed, clean, broken, absent] = await Promise.all([
        run([
          ...base,
          "--images",
          `${folder}/new`,
          "--jsonl",
          `${folder}/a.jsonl`,
          "--junit",
          `${folder}/a.xml`,
        ]),
        run([...base, "--images", `${folder}/new/*.png`, "--max-flagged", "1"]),
        run([...base, "--images", "-"], `${folder}/new/dark.png\n${folder}/new/deeper/grey.png\n`),
        run([...base, "--images", cut]),
        run(["--probe", "nobody", "--url", url, "--images", cut]),
      ]);
      assert.deepEqual([flagged, allowed, clean].map(({ code }) => code), [1, 0, 0], flagged.err + clean.err);
      assert.match(flagged.out, /^flagged {2}.*light\.png: score 0\.941, threshold 0\.500/m);
      assert.match(
        flagged.out,
        /3 pictures: 1 flagged \(at most 0 allowed\), 2 not, 0 without an answer, 0 failed/,
      );
      const lines = (await Deno.readTextFile(`${folder}/a.jsonl`)).trim().split("\n").map((line) =>
        JSON.parse(line)
      );
      assert.deepEqual(
        lines.map(({ path, score }) => [path.slice(folder.length), score.decision.answer]),
        [["/new/dark.png", "not-flagged"], ["/new/deeper/grey.png", "not-flagged"], [
          "/new/light.png",
          "flagged",
        ]],
      );
      const xml = await Deno.readTextFile(`${folder}/a.xml`);
      assert.match(xml, /tests="3" failures="1" errors="0" skipped="0"/);
      assert.match(clean.err, /checking: 2\/2/);
      assert.equal(broken.code, 2);
      assert.match(broken.out, /failed {2}.*cut\.png: .*image-truncated/);
      assert.equal(absent.code, 2);
      assert.match(absent.err, /probe-unknown/);
    })
  ));

Deno.test("which pictures: folders with all below them, patterns, lists, each once and in order", () =>
  withFolder(async (folder) => {
    const names = async (...selections: string[]) =>
      (await picturePaths(selections)).map((path) => path.slice(folder.length + 5));
    assert.deepEqual(await names(`${folder}/new`), ["dark.png", "deeper/grey.png", "light.png"]);
    assert.deepEqual(await names(`${folder}/new/**/*.png`), ["dark.png", "deeper/grey.png", "light.png"]);
    assert.deepEqual(await names(`${folder}/new/l*`, `${folder}/new`), [
      "light.png",
      "dark.png",
      "deeper/grey.png",
    ]);
    assert.deepEqual(await names(`${folder}/new/notes.txt`), ["notes.txt"]);
    const list = new Blob(["b.png\r\n\na.png\nb.png\n"]).stream();
    assert.deepEqual(await picturePaths(["-"], list), ["b.png", "a.png"]);
    for (const nothing of [`${folder}/new/*.txt`, `${folder}/none*`]) {
      await assert.rejects(picturePaths([nothing]), /names no PNG, JPEG or WebP file/);
    }
    await assert.rejects(picturePaths([`${folder}/none`]), /none": there is no such file or folder/);
    await assert.rejects(picturePaths(["-"], new Blob([]).stream()), /Cannot check "-"/);
  }));

const answered = (path: string, answer: "flagged" | "not-flagged" | "abstain"): Checked => ({
  path,
  score: {
    fpr: 0.01,
    probe: "p",
    bundle: "ab".repeat(32),
    primary: { feature: "f", score: 1.25, threshold: null },
    decision: { answer, detail: "too few people" },
  } as Checked["score"],
});
const failed: Checked = {
  path: "<x>&\x01.png",
  problem: { type: "/problems/image-cmyk", detail: 'say "no"' },
};

Deno.test("nothing is clean that was not answered", () => {
  const codeOf = (checked: Checked[], most = 0) => exitCode(tally(checked), most);
  const [yes, no, none] = [answered("a", "flagged"), answered("b", "not-flagged"), answered("c", "abstain")];
  assert.equal(codeOf([no, no]), 0);
  assert.equal(codeOf([no, none]), 0);
  assert.equal(codeOf([none, none]), 2);
  assert.equal(codeOf([no, failed]), 2);
  assert.equal(codeOf([yes, failed], 5), 2);
  assert.equal(codeOf([yes, no]), 1);
  assert.equal(codeOf([yes, yes, no], 2), 0);
  assert.match(summary([none, no], 0), /without an answer, as of the first: too few people/);
  assert.match(summary([...Array(60).fill(no), yes], 0), /by chance alone about 0\.6 of 61 pictures/);
});

Deno.test("JUnit is well-formed whatever a file is called", () => {
  const xml = junit('p"', [
    answered("a<b", "flagged"),
    answered("c", "abstain"),
    failed,
    answered("d", "not-flagged"),
  ], 1.5);
  assert.match(
    xml,
    /<testsuite name="afterimage check p&quot;" tests="4" failures="1" errors="1" skipped="1" time="1.500">/,
  );
  assert.match(xml, /name="a&lt;b"><failure message="score 1.250, threshold none, at f"\/>/);
  assert.match(
    xml,
    /name="&lt;x&gt;&amp;\ufffd.png"><error message="say &quot;no&quot; \(\/problems\/image-cmyk\)"\/>/,
  );
  assert.equal(xml.match(/<testcase/g)!.length, 4);
});
