/**
 * `deno task serve` with its own example in a real browser, by hand: `deno run -A tests/by_hand/visit.ts [folder]`.
 * It asks about a marked, a clean and a broken picture by mouse and by keyboard, reads /docs, and fails at the first surprise.
 */
import assert from "node:assert/strict";
import { demoPeople, probeSamples } from "../../core/demo/arms.ts";
import { encodeImage } from "../../core/image/codecs.ts";
import { createWatermarker } from "../../core/privacy/mark.ts";
import { scoreSchema } from "../../functions/schemas.ts";
import { TINY_WATERMARK } from "../../core/privacy/watermark.ts";
import { DEMO_PEOPLE } from "../../scripts/demo_run.ts";
import { startService } from "../../scripts/service_process.ts";
import { eventually, type Page, withPage } from "./browser.ts";

const [out = await Deno.makeTempDir()] = Deno.args;
const LOOKS = [[1100, "light"], [1100, "dark"], [390, "light"], [390, "dark"]] as const;
/** The text of axe-core's axe.min.js, where the variable AXE names it; it is no part of this project. */
const axe = Deno.env.get("AXE") && await Deno.readTextFile(Deno.env.get("AXE")!);
await Deno.mkdir(out, { recursive: true });

/** A person of those seen in a scene that no probe has seen, the scene without, and a file that breaks off. */
async function pictures(): Promise<string[]> {
  const people = demoPeople(0, DEMO_PEOPLE), watermarker = await createWatermarker(TINY_WATERMARK);
  const { picture, clean } = probeSamples(77, 1, people, watermarker)
    .find(({ person }) => person.username === "Anneli Andersson")!;
  const marked = await encodeImage(picture, "png"), paths = ["marked.png", "clean.jpg", "broken.png"];
  const files = [marked, await encodeImage(clean, "jpeg"), marked.subarray(0, 300)];
  for (const [n, name] of paths.entries()) await Deno.writeFile(`${out}/${name}`, files[n]);
  return paths.map((name) => `${out}/${name}`);
}

async function withServer(work: (url: string) => Promise<void>): Promise<void> {
  const { url, stop } = await startService();
  try {
    await work(url);
  } finally {
    await stop();
  }
}

/** What someone with another sight would stumble over, by axe-core. */
async function accessible(page: Page, what: string): Promise<void> {
  if (!axe) return;
  await page.evaluate(`${axe};0`);
  const found = await page.evaluate<string[]>(
    `axe.run(document).then(({ violations }) => violations.map(({ id, impact, nodes }) => ` +
      `[impact, id, nodes[0].html].join(": ")))`,
  );
  assert.deepEqual(found, [], what);
}

const fits = async (page: Page, what: string) =>
  assert(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), `${what} overflows`);

const answered = `document.querySelectorAll(".result:not([aria-busy])").length === 3`;
const drawn =
  `[...document.querySelectorAll(".result:not(.failed)")].every((result) => result.querySelector(".chart svg .point"))`;

/** The three pictures as everybody sees them. */
async function answers(page: Page, url: string, paths: string[]): Promise<void> {
  for (const [width, scheme] of LOOKS) {
    await page.look(width, 800, scheme);
    await page.go(url);
    await page.until(`document.querySelector("#about").textContent !== ""`);
    if (width > 500) await page.drop("#drop", paths);
    else await page.choose("#files", paths);
    await page.until(answered);
    await page.until(drawn);
    const told = await page.evaluate<string[]>(
      `[...document.querySelectorAll(".result")].map((result) => result.innerText)`,
    );
    assert.match(told[0], /^marked\.png\n+▲ Flagged\n[^]*at most 1 in 100[^]*What it does not mean/);
    assert.match(told[1], /^clean\.jpg\n+▽ Not flagged\n[^]*do not stand out[^]*What it does not mean/);
    assert.match(told[2], /^broken\.png\n+This image is not taken\n[^]*breaks off[^]*image-truncated/);
    assert.doesNotMatch(told[2], /Try again/);
    await fits(page, `the page at ${width}`);
    await page.picture(`${out}/visit_${width}_${scheme}.png`);
    await accessible(page, `the page at ${width}, ${scheme}`);
  }
}

/** What has the focus, and whether that can be seen. */
const focus = (page: Page) =>
  page.evaluate<[string, boolean]>(`(() => {
    const at = document.activeElement, shown = at.id === "files" ? at.nextElementSibling : at;
    const { outlineStyle, outlineWidth } = getComputedStyle(shown);
    return [at.id || at.name || at.textContent, outlineStyle !== "none" && outlineWidth !== "0px"];
  })()`);

/** Every stop of the Tab key in order, and Enter where it does something. */
async function keyboard(page: Page, url: string, paths: string[]): Promise<void> {
  await page.go(url);
  await page.until(`document.querySelector("#about").textContent !== ""`);
  await page.choose("#files", paths);
  await page.until(answered);
  await page.evaluate("document.activeElement.blur()");
  await page.call("Page.setDownloadBehavior", { behavior: "allow", downloadPath: await Deno.realPath(out) });
  const stops: string[] = [];
  while (stops.at(-1) !== "Probes as JSON" && stops.length < 20) {
    await page.press("Tab");
    const [name, seen] = await focus(page);
    assert(seen, `the focus on "${name}" cannot be seen`);
    stops.push(name);
    const first = stops.filter((stop) => stop === name).length === 1;
    if (first && ["Every layer in numbers", "This answer as JSON"].includes(name)) await page.press("Enter");
  }
  const opened = ["Every layer in numbers", "LayerScoreThresholdzProbabilityFlagged", "This answer as JSON"];
  const expected = ["probe", "fpr", "files", ...opened, "Every layer in numbers", "This answer as JSON"];
  assert.deepEqual(
    stops.map((stop) => stop.startsWith(opened[1]) ? opened[1] : stop),
    [...expected, "API", "OpenAPI document", "Probes as JSON"],
  );
  const saved = await eventually(`${out}/marked.png.json`);
  const { decision, layers } = scoreSchema.parse(JSON.parse(saved));
  assert.equal(decision.answer, "flagged");
  assert.equal(
    await page.evaluate(`document.querySelectorAll("details[open] tbody tr").length`),
    layers.length,
  );
}

async function docs(page: Page, url: string): Promise<void> {
  for (const [width, scheme] of LOOKS) {
    await page.look(width, 1600, scheme);
    await page.go(`${url}/docs`);
    await fits(page, `/docs at ${width}`);
    await page.picture(`${out}/docs_${width}_${scheme}.png`);
    await accessible(page, `/docs at ${width}, ${scheme}`);
    await page.evaluate(
      `[...document.querySelectorAll("nav a")].find((a) => /score/.test(a.textContent)).focus()`,
    );
    await page.press("Enter");
    await page.until(
      `location.hash !== "" && document.querySelector(location.hash).getBoundingClientRect().top < 5`,
    );
    const lost =
      `[...document.querySelectorAll("a[href^='#']")].filter((a) => !document.querySelector(a.hash)).length`;
    assert.equal(await page.evaluate(lost), 0, "links to nowhere");
  }
}

const paths = await pictures();
await Deno.remove(`${out}/marked.png.json`).catch(() => {}); // of an earlier time
await withServer((url) =>
  withPage(url, async (page) => {
    await answers(page, url, paths);
    await keyboard(page, url, paths);
    await docs(page, url);
    // The browser's own line about the refused picture, once a look and once by keyboard, and nothing else.
    assert.deepEqual([...new Set(page.problems.map((line) => line.replace(/.*status of /, "")))], [
      "422 (Unprocessable Entity)",
    ]);
    assert.equal(page.problems.length, LOOKS.length + 1);
    const asked = page.requests.filter((address) => address.startsWith(`${url}/v1/probes/example/score`));
    assert.equal(asked.length, 3 * (LOOKS.length + 1));
    console.log(`${page.requests.length} requests, all to the service itself; pictures are in ${out}`);
  })
);
