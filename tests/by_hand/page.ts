/**
 * The page in a real browser, by hand, since it needs Chromium: `deno run -A tests/by_hand/page.ts [folder] [url] [id]`.
 * It goes the ways of mouse, keyboard, key and failure, writes pictures of each to the folder, and fails at the first surprise.
 */
import assert from "node:assert/strict";
import { MemoryFolder } from "../../core/formats/folder.ts";
import { type Facts, saveProbe } from "../../core/probe/stored.ts";
import { createKey, keysOf } from "../../functions/auth.ts";
import { scoreSchema } from "../../functions/schemas.ts";
import { serveApp } from "../../functions/serve.ts";
import { folderStore } from "../../functions/store/folder_store.ts";
import { meansEncoder } from "../service_probe.ts";
import { eventually, type Page, withPage } from "./browser.ts";

const [out = await Deno.makeTempDir(), given, id = "example"] = Deno.args;
const IMAGES = new URL("../fixtures/images/", import.meta.url).pathname;
await Deno.mkdir(out, { recursive: true });
await Deno.remove(`${out}/rgb.png.json`).catch(() => {}); // of an earlier time

/** A probe of nine features with everything that a page may show: thresholds, bands, a layer that cannot answer. */
async function drawnStore() {
  const features = [
    "projector@image-mean",
    ...[0, 1, 2, 3].map((n) => `layers.${n}.resid_post@image-mean`),
    ...[0, 1, 2, 3].map((n) => `layers.${n}.resid_post@last`),
  ];
  const group = { set: "U", people: 8 }, root = new MemoryFolder("store");
  const metrics = { auroc: 0.91, accuracy: 0.8, tpr_at_1pct_fpr: 0.4, tpr_at_5pct_fpr: 0.6, partitions: 5 };
  const facts: Facts = {
    id,
    title: "Drawn for the page",
    mode: "sound",
    model: { name: "test-model", hash: "ab".repeat(32), adapter: null },
    content: "made up",
    prompt: "what is this",
    primary: features[3],
    seen: group,
    unseen: group,
    seed: 0,
    layers: features.map((feature, i) => {
      const [site, reduction] = feature.split("@");
      return {
        feature,
        site,
        reduction,
        dim: 3,
        metrics: { single: metrics },
        threshold: { fpr01: i === 0 ? null : 1 + i / 8, fpr001: null },
        calibration: {
          method: "platt",
          slope: 0.8,
          offset: -0.5,
          scores: [-20, 20],
          people: 16,
          band: [[-5, 0, 0.1], [0, 0.2, 0.55], [5, 0.8, 1]],
        },
      };
    }),
  };
  const tensors = Object.fromEntries(features.map((feature, i) => [
    feature,
    { coef: Float64Array.of(2 - i / 5, -1.5, 3 * Math.sin(i)), intercept: Math.cos(i) },
  ]));
  await saveProbe(root.folder(id), facts, tensors);
  return folderStore(root);
}

const broken = `${out}/broken.png`;
await Deno.writeFile(broken, (await Deno.readFile(`${IMAGES}rgb.png`)).subarray(0, 100));
const files = ["rgb.png", "wide.png", "turned1.jpg", "lossy.webp"].map((name) => IMAGES + name);
const done = (n: number) => `document.querySelectorAll(".result:not([aria-busy])").length === ${n}`;
const focused = (page: Page) =>
  page.evaluate<string>("document.activeElement.id || document.activeElement.textContent.slice(0, 30)");
const loaded =
  `document.querySelector("#probe").value !== "" && document.querySelector("#about").textContent !== ""`;

/** Upload, curves, an error, no request elsewhere, and pictures of it all. */
async function uploads(page: Page, url: string): Promise<void> {
  await page.look(1100, 800, "light");
  await page.go(url);
  await page.until(loaded);
  await page.choose("#files", [...files, broken]);
  await page.until(done(5));
  await page.until(`document.querySelectorAll(".chart svg[role=img] title").length === 4`);
  const points = await page.evaluate<number>(
    `document.querySelector(".chart").querySelectorAll(".point").length`,
  );
  assert(points >= 2 && points % 2 === 0, `${points} points`);
  assert.match(await page.evaluate<string>(`document.querySelector(".failed").innerText`), /image-truncated/);
  assert.equal(await page.evaluate(`[...document.images].filter((image) => image.alt === "").length`), 0);
  await page.call("Page.setDownloadBehavior", { behavior: "allow", downloadPath: await Deno.realPath(out) });
  await page.evaluate(`document.querySelector("a[download]").click()`);
  const saved = scoreSchema.parse(JSON.parse(await eventually(`${out}/rgb.png.json`)));
  assert.equal(saved.layers.length * 2, points);
  for (const [width, scheme] of [[1100, "light"], [1100, "dark"], [390, "light"], [390, "dark"]] as const) {
    await page.look(width, 800, scheme);
    assert(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), `${width} overflows`);
    await page.picture(`${out}/answers_${width}_${scheme}.png`);
  }
}

/** Everything without a mouse: choosing, changing, opening the numbers. */
async function keyboard(page: Page, url: string): Promise<void> {
  await page.go(url);
  await page.until(loaded);
  const order: string[] = [];
  for (let n = 0; n < 3; n++) {
    await page.press("Tab");
    order.push(await focused(page));
  }
  assert.deepEqual(order.filter((name) => name !== ""), ["probe", "files"]);
  assert.equal(
    await page.evaluate(`getComputedStyle(document.querySelector("#files + label")).outlineStyle`),
    "solid",
  );
  await page.picture(`${out}/focus.png`);
  await page.evaluate(`document.querySelector("[name=fpr]").focus()`);
  await page.press("ArrowRight");
  assert.equal(await page.evaluate(`document.forms.settings.elements.fpr.value`), "0.001");
  await page.choose("#files", files.slice(0, 1));
  await page.until(done(1));
  await page.evaluate(`document.querySelector("#files").focus()`);
  await page.press("Tab");
  assert.equal(await focused(page), "Every layer in numbers");
  await page.press("Enter");
  assert(await page.evaluate(`document.querySelector("details").open`));
  await page.picture(`${out}/numbers.png`);
  const { nodes } = await page.call<{ nodes: { role?: { value: string }; name?: { value: string } }[] }>(
    "Accessibility.getFullAXTree",
  );
  const names = nodes.map(({ role, name }) => `${role?.value}: ${name?.value}`);
  for (
    const name of [
      "combobox: Probe",
      "radio: 1 in 100",
      "heading: Answers",
      "image: rgb.png",
      "region: Every layer in numbers",
    ]
  ) {
    assert(names.includes(name), `no "${name}" for a screen reader: ${names.join("\n")}`);
  }
  assert(names.some((name) => /^image: Scores of \d+ layers/.test(name)), "the curve has no name");
  assert(names.some((name) => /: Choose pictures/.test(name)), "the file field has no name");
}

/** A service that asks for a key, and one that went away. */
async function keysAndFailure(store: Awaited<ReturnType<typeof drawnStore>>): Promise<void> {
  const { key, record } = await createKey(["score"]);
  const service = serveApp({ store, encoder: meansEncoder, keys: keysOf([record]) });
  await withPage(service.url, async (page) => {
    await page.look(390, 800, "light");
    await page.go(service.url);
    await page.until(`document.activeElement.id === "key"`);
    await page.picture(`${out}/key.png`);
    await page.call("Input.insertText", { text: key });
    await page.press("Enter");
    await page.until(loaded);
    await page.choose("#files", files.slice(0, 1));
    await page.until(done(1));
    assert.equal(await page.evaluate(`document.querySelectorAll(".chart svg").length`), 1);
    await service.stop();
    await page.choose("#files", files.slice(1, 2));
    await page.until(done(2));
    await page.picture(`${out}/away.png`);
    assert.match(
      await page.evaluate<string>(`document.querySelector(".failed").innerText`),
      /cannot be reached/,
    );
    assert.equal(await page.evaluate(`document.querySelector(".failed button").textContent`), "Try again");
  });
}

const store = await drawnStore();
const service = given === undefined ? serveApp({ store, encoder: meansEncoder }) : undefined;
const url = given ?? service!.url;
await withPage(url, async (page) => {
  await uploads(page, url);
  await keyboard(page, url);
  const surprises = page.problems.filter((line) => !/status of 422/.test(line));
  assert.deepEqual(surprises, []);
});
await service?.stop();
if (!service) console.log(`The page at ${url} works; pictures are in ${out}`);
else {
  await keysAndFailure(store);
  console.log(`The page works; pictures are in ${out}`);
}
