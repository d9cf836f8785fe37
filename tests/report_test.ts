/**
 * The report: its page stands alone and escapes what it is given, its charts show every number's place,
 * and its conclusions follow the numbers. All data is made up (report_data.ts).
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { aurocChart, gradientChart, lossChart, smoothLosses } from "../core/report/charts.ts";
import { conclude } from "../core/report/conclude.ts";
import { renderDemoReport } from "../core/report/demo_report.ts";
import { markup } from "../core/report/markup.ts";
import { type DemoReport, demoReportSchema, type Result } from "../core/report/schema.ts";
import { summarizeDemo } from "../core/report/summary.ts";
import { pValue } from "../core/report/words.ts";
import { madeUpReport } from "./report_data.ts";

const made = await madeUpReport();

/** The made-up data with some of one arm's primary result replaced. */
function changed(arm: string, sound: Partial<Result["sound"]>, rest: Partial<Result> = {}): DemoReport {
  const data = structuredClone(made);
  const result = data.results.find((one) => one.arm === arm && one.feature === data.primary)!;
  Object.assign(result.sound, sound);
  Object.assign(result, rest);
  return demoReportSchema.parse(data);
}

Deno.test("the page is whole, stands alone and is the same each time", async () => {
  const page = await renderDemoReport(made);
  assert.equal(await renderDemoReport(made), page);
  assert(page.startsWith("<!doctype html>") && page.trimEnd().endsWith("</html>"));
  const addresses = [...page.matchAll(/\b(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)/g)].map((match) =>
    match[1]
  );
  assert(addresses.length >= 2 * made.examples.length);
  for (const address of addresses) assert(/^(data:image\/png;base64,|#)/.test(address), address.slice(0, 80));
  assert(!/<script|@import|<link/i.test(page));
  assert.match(page, /prefers-color-scheme: dark/);
  assert.match(page, /image-rendering: pixelated/);
  for (const { name } of made.design.arms) assert.match(page, new RegExp(`<h3>${name}</h3>`));
  // Every chart speaks: as many titles and descriptions inside SVGs as there are SVGs.
  const charts = page.match(/<svg role="img"/g)!.length;
  assert.equal(charts, 2 + made.design.arms.length + 2); // losses and gradients twice, wide and narrow
  assert.equal(page.match(/<svg role="img"[^>]*><title>[^<]+<\/title><desc>[^<]+<\/desc>/g)!.length, charts);
  // Elements opened are closed.
  for (const tag of ["section", "figure", "div", "table", "tr", "ul", "li", "details", "dl", "svg"]) {
    const count = (pattern: string) => (page.match(new RegExp(pattern, "g")) ?? []).length;
    assert.equal(count(`<${tag}[\\s>]`), count(`</${tag}>`), tag);
  }
});

Deno.test("text from the data cannot become markup", async () => {
  const data = structuredClone(made);
  data.title = '<script>alert("1")</script>';
  data.examples[0].caption = `"><img src=x onerror=1>`;
  data.features[0].label = "<b>L0</b>";
  const page = await renderDemoReport(data);
  assert(!page.includes("<script>") && !page.includes("<img src=x") && !page.includes("<b>L0"));
  assert(page.includes("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"));
  assert.equal(
    markup`<i>${["a<", markup`<u>${"b&"}</u>`]}${undefined}${false}</i>`.text,
    "<i>a&lt;<u>b&amp;</u></i>",
  );
});

Deno.test("data that does not fit is refused with the field's name", async () => {
  const bad = structuredClone(made) as unknown as { results: { sound: { p: number } }[] };
  bad.results[3].sound.p = 0;
  await assert.rejects(
    renderDemoReport(bad as unknown as DemoReport),
    (error) => error instanceof InputError && /field "results\.3\.sound\.p"/.test(error.message),
  );
  const missing = { ...made, results: made.results.filter(({ arm }) => arm !== "corr0") };
  await assert.rejects(
    renderDemoReport(missing),
    /arm "corr0" has no result for "layers.1.resid_post@image-mean"/,
  );
});

Deno.test("marks lie where their numbers say", async () => {
  // Two AUROCs .25 apart on an axis from .3 to 1 must be .25/.7 of its width apart, in the same row.
  const arm = made.design.arms[0];
  const feature = made.features[0];
  const at = async (auroc: number) => {
    const results = [{
      arm: arm.name,
      feature: feature.feature,
      faithful: { auroc: 0.9 },
      sound: { auroc, null95: [0.4, 0.6] as [number, number], p: 0.5 },
    }];
    const svg = (await aurocChart({ ...made, features: [feature], results }, arm, 285)).text;
    const circle = svg.match(/translate\(([\d.]+),[\d.]+\)" d="M[^"]*A[^"]*" fill="var\(--sound\)"/);
    assert(circle, "the sound mode's mark is drawn");
    return Number(circle[1]);
  };
  assert(Math.abs(await at(0.75) - await at(0.5) - 200 * 0.25 / 0.7) < 0.01);
  const losses = (await lossChart(made.losses, 600)).text;
  for (const { arm } of made.losses) assert(losses.includes(`>${arm}</text>`), arm);
  const gradients = (await gradientChart(made.gradients!, 600)).text;
  for (const { label } of made.gradients!.perturbations) {
    assert(gradients.includes(`>${label}</text>`), label);
  }
  assert.match(gradients, /batch 1, private text: 0\.82 \(0\.77 to 0\.87\)/);
});

Deno.test("smoothed losses are means of windows", () => {
  const points = Array.from({ length: 300 }, (_, step) => ({ step, loss: step }));
  const smooth = smoothLosses({ arm: "a", points });
  assert.deepEqual(smooth[0], { step: 9, loss: 4.5 });
  assert.deepEqual(smooth.at(-1), { step: 299, loss: 294.5 });
  assert.equal(smooth.length, 146);
  assert.deepEqual(smoothLosses({ arm: "a", points: points.slice(0, 1) }), [{ step: 0, loss: 0 }]);
  assert.deepEqual(smoothLosses({ arm: "a", points: [] }), []);
});

const has = (sentences: string[], pattern: RegExp) =>
  assert(sentences.some((one) => pattern.test(one)), `${pattern}\n${sentences.join("\n")}`);
const hasNot = (sentences: string[], pattern: RegExp) =>
  assert(!sentences.some((one) => pattern.test(one)), `${pattern}`);

Deno.test("conclusions of the expected pattern", () => {
  const { may, mayNot } = conclude(made);
  has(may, /"known".*AUROC 0\.91, null band 0\.26 to 0\.74, p = 0\.005, the least that 200 draws can give/);
  has(may, /stays quiet: "base" .* and "r0" .*0\.63 \(base\) and 0\.60 \(r0\)/);
  has(may, /"corr0" never saw the people probed.* jumps from 0\.60 \(r0\) to 0\.85/);
  has(
    mayNot,
    /watermarks of "r100" are not remembered: .*below about 0\.65.*would most likely have been missed\.$/,
  );
  has(mayNot, /moves the gradient in a way of its own: at all 4 batch sizes/);
  has(mayNot, /blind to memory that differs from person to person/);
  has(mayNot, /which layer/);
  has(mayNot, /349,888 parameters/);
  hasNot(may, /r100/);
  hasNot([...may, ...mayNot], /NaN|undefined/);
});

Deno.test("conclusions turn with the numbers", () => {
  let { may, mayNot } = conclude(changed("known", { p: 0.2, auroc: 0.6 }));
  hasNot(may, /known/);
  has(mayNot, /other arms' nulls: the positive control "known" was not found/);
  has(mayNot, /"r100" are not remembered.*even that floor is not shown/);

  ({ may, mayNot } = conclude(changed("r100", { p: 0.02, auroc: 0.68 })));
  hasNot(may, /r100/); // its difference to r0 is still p = .4
  has(
    mayNot,
    /That "r100" remembers its watermarks: .* the difference to the right control is not \(\+0\.01 to r0/,
  );

  const difference = { value: 0.17, null95: [-0.15, 0.15] as [number, number], p: 0.01 };
  ({ may } = conclude(changed("r100", { p: 0.02, auroc: 0.68 }, { difference })));
  has(
    may,
    /"r100" deserves to be repeated.*AUROC 0\.68.*\+0\.17 to r0.*p = 0\.010\)\. It is one seed, and 1 watermark arm of this kind/,
  );

  ({ may, mayNot } = conclude(changed("base", { p: 0.03, auroc: 0.66 })));
  has(mayNot, /That "base" remembers anyone.*false alarm/);
  has(may, /stays quiet: "r0"/);

  ({ may, mayNot } = conclude(changed("corr0", { p: 0.04 })));
  has(mayNot, /immune to better reading: "corr0"/);
  hasNot(may, /corr0/);

  ({ may, mayNot } = conclude(changed("corr0", {}, { faithful: { auroc: 0.65 } })));
  has(mayNot, /moves the image split from 0\.60 \(r0\) to 0\.65, \+0\.05, less than the 0\.10/);

  const apart = structuredClone(made);
  apart.gradients!.rows[0].difference = { mean: 0.07, ci95: [0.01, 0.15] };
  has(conclude(apart).may, /at 1 of 4 batch sizes \(batch 1: \+0\.07, 0\.01 to 0\.15; uncorrected\)/);
  has(conclude({ ...made, quick: true }).mayNot, /run was shortened/);
  const alone = {
    ...made,
    design: { ...made.design, arms: made.design.arms.filter(({ role }) => role !== "positive") },
  };
  has(conclude(alone).mayNot, /no positive control/);
});

Deno.test("the summary holds the report's own numbers", () => {
  const summary = summarizeDemo(made);
  assert.deepEqual(Object.keys(summary.arms), ["base", "r0", "r100", "corr0", "known"]);
  assert.deepEqual(summary.arms.corr0.faithful, { auroc: 0.85 });
  assert.deepEqual(summary.arms.known.sound, { auroc: 0.91, null95: [0.26, 0.74], p: 1 / 201 });
  assert.equal(summary.seconds, 288.4);
  assert.equal(summary.gradients.length, 4);
  assert.deepEqual(JSON.parse(JSON.stringify(summary)), summary);
});

Deno.test("p-values are never rounded to zero", () => {
  assert.equal(pValue(1 / 201, 200), "0.005, the least that 200 draws can give");
  assert.equal(pValue(0.0144, 1000), "0.014");
  assert.equal(pValue(1 / 100001, 100000), "0.00001, the least that 100000 draws can give");
  assert.equal(pValue(0.42, 200), "0.42");
});
