/**
 * A study's report: every number made again from what cells keep by other code (tests/recompute), the same bytes for the same
 * cells, the rules for the claims, scatter and heat maps, comparison; and what it refuses.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { MemoryFolder, readJson } from "../core/formats/folder.ts";
import { loadProbe } from "../core/probe/stored.ts";
import { principalComponents, scatterOf } from "../core/report/embed.ts";
import { type ArmTest, firstClaim, secondClaim, thirdClaim } from "../core/report/study_claims.ts";
import { compareHtml, compareStudies } from "../core/report/study_compare.ts";
import type { StudyReport } from "../core/report/study_json.ts";
import { type GradientNumbers, type SaysNumbers } from "../core/report/study_outputs.ts";
import { csv } from "../core/report/study_tables.ts";
import { planArm } from "../core/study/arms.ts";
import type { ProbeResult } from "../core/study/results.ts";
import { readShown } from "../core/study/shown.ts";
import { cellFolder } from "../scripts/study_cell.ts";
import { readStudy } from "../scripts/study_run.ts";
import { writeReport } from "../scripts/study_report.ts";
import { makeStudy, PRIMARY } from "./study_report_data.ts";
import { compareReports } from "./recompute/compare.ts";
import { chanceBits, comparePage } from "./recompute/page.ts";
import { activationsOf } from "./recompute/features.ts";
import { soundRates } from "./recompute/probe.ts";
import { readJsonOf, readStudyFiles } from "./recompute/read.ts";
import { remakeReport } from "./recompute/report.ts";
import { compareTables } from "./recompute/tables.ts";

const SIZE = {
  arms: ["base", "r0", "r100", "known", "who"],
  seeds: [0, 3, 4, 7, 8],
  people: 4,
  scenes: 4,
  draws: 29,
};
const folder = new MemoryFolder("study");
await makeStudy(folder, SIZE);
const { json, html, tables } = await writeReport(folder);
const [group] = json.groups, { cells } = await readStudy(folder), remade = await remakeReport(folder);
const ANSWERS = ["no", "yes", "undecided"];

const near = (actual: number, expected: number, what: string, within = 1e-9) =>
  assert.ok(Math.abs(actual - expected) <= within, `${what}: ${actual}, expected ${expected}`);
const nearAll = (actual: readonly number[], expected: readonly number[], what: string, within = 1e-9) =>
  expected.forEach((value, i) => near(actual[i], value, `${what}[${i}]`, within));
Deno.test("every number of the report is what other code finds in what the cells keep", async () => {
  const { numbers } = compareReports(await readJson(folder, "report.json"), remade.report);
  assert.ok(numbers > 5000, `${numbers} numbers`);
  // Answers are checked word for word, so the study must have more than one.
  assert.deepEqual(group.claims.map(({ answer }) => answer), ANSWERS);
});

Deno.test("every null draw that a cell keeps is what other code draws", async () => {
  const study = await readStudyFiles(folder);
  for (const cell of study.cells.filter(({ kind, key }) => kind === "probe" && key.seed === SIZE.seeds[1])) {
    const activations = await activationsOf(study, cell);
    const { features } = await readJsonOf<ProbeResult>(study, cell, "probe.json");
    for (const { feature, sound, plain } of features) {
      for (const [{ auroc, null: draws }, center] of [[sound, true], [plain, false]] as const) {
        const { all } = soundRates(activations.get(feature)!, study.config.probe, cell.key.seed, center);
        nearAll([auroc, ...draws], all, `${cell.key.arm} ${feature}`);
      }
    }
  }
});

Deno.test("every column of the tables is what other code finds", () => {
  const numbers = compareTables(tables, remade);
  assert.ok(numbers > 5000, `${numbers} numbers`);
});

Deno.test("every number in the page's tables is what other code finds", () => {
  const numbers = comparePage(html, remade);
  assert.ok(numbers > 1000, `${numbers} numbers`);
  const [, chance] = /around ([\d.]+) bits is chance/.exec(html)!;
  near(Number(chance), chanceBits(group.says[0].candidates), "bits of chance", 0.05);
  const other = html.replace(
    /(>0\.\d)(\d)(<br><span class="role ci">)/,
    (_, a, b, c) => `${a}${(Number(b) + 5) % 10}${c}`,
  );
  assert.throws(() => comparePage(other, remade), /made again/);
});

Deno.test("other settings: a choice of C, two prompts, no primary, the published split; so many people that calibration is isotonic", async () => {
  const bare = { says: null, gradients: null },
    size = { arms: ["r0", "r100"], seeds: [1], people: 4, scenes: 4, draws: 9 };
  const prompts = ["first", "second"].map((id) => ({ id, text: `what is ${id}` }));
  const ways = { centerScenes: false, cGrid: [0.05, 1, 20], prompts, primary: undefined };
  const small = new MemoryFolder("other"), large = new MemoryFolder("large");
  await makeStudy(small, size, { ...ways, faithful: { standardize: true, tol: 1e-10 } }, bare);
  await makeStudy(large, { ...size, arms: ["r0"], people: 50, scenes: 3, draws: 3 }, { partitions: 2 }, bare);
  for (const other of [small, large]) {
    const { json, tables } = await writeReport(other), again = await remakeReport(other);
    compareReports(JSON.parse(JSON.stringify(json)), again.report);
    compareTables(tables, again);
    assert.deepEqual(json.groups[0].calibration[0].methods, [other === large ? "isotonic" : "platt"]);
  }
});

Deno.test("a number that differs, that nobody makes again, or that a sentence made up is found", async () => {
  const report = await readJson(folder, "report.json") as StudyReport;
  const changed = (change: (group: StudyReport["groups"][number]) => void, error: RegExp) => {
    const other = structuredClone(report);
    change(other.groups[0]);
    assert.throws(() => compareReports(other, remade.report), error);
  };
  changed((group) => group.features[2].seeds[1].p_all += 0.01, /features\[2\]\.seeds\[1\]\.p_all is/);
  changed((group) => group.calibration[1].ece.ci95 = null, /calibration\[1\]\.ece\.ci95/);
  changed((group) => group.power.pop(), /power has another length/);
  changed((group) => Object.assign(group.says[0].attacks[0], { gain: 1 }), /attacks\[0\]\.gain is 1: nobody/);
  changed((group) => group.claims[1].answer = "undecided", /claims\[1\]\.answer/);
  changed((group) => group.claims[2].because += " (0.613 to 0.617)", /says 0\.613, which nothing/);
  changed((group) => group.scatters[0].tsne.reverse(), /tsne/);
  const [head, ...rows] = tables.get("power.csv")!.split("\n");
  const wider = [`${head},cost`, ...rows.map((row) => row && `${row},1`)].join("\n");
  assert.throws(
    () => compareTables(new Map([...tables, ["power.csv", wider]]), remade),
    /cost is 1: nobody makes/,
  );
  assert.throws(
    () => compareTables(new Map([...tables, ["costs.csv", "cost\n1\n"]]), remade),
    /a table that nobody/,
  );
});

Deno.test("the same cells give the same bytes but for times, and the page holds no address", async () => {
  for (const cell of cells) {
    await cellFolder(folder, cell).write("times.json", JSON.stringify({ seconds: 99, adapter: "another" }));
  }
  const second = await writeReport(folder);
  const withoutTimes = ({ times: _, ...rest }: StudyReport) => rest;
  assert.deepEqual(withoutTimes(second.json), withoutTimes(json));
  assert.notDeepEqual(second.json.times, json.times);
  const still = (text: string) => text.replaceAll(/<(span|div) data-time>[\s\S]*?<\/\1>/g, "");
  assert.notEqual(second.html, html);
  assert.equal(still(second.html), still(html));
  assert.deepEqual([...second.tables], [...tables]);
  assert.ok(!/(?:src|href)="(?!data:|#)/.test(html), "the page loads something");
  assert.ok(!/undefined|NaN|\[object/.test(html), "the page shows a value that is none");
  assert.deepEqual(await readJson(folder, "report.json"), JSON.parse(JSON.stringify(second.json)));
  assert.ok(await folder.exists("tables/means.csv"));
});

Deno.test("a cell that is not done is named; without any probe there is no report", async () => {
  const part = new MemoryFolder("part", new Map(folder.files));
  const says = cells.find(({ kind, key }) => kind === "says" && key.arm === "r100")!;
  await cellFolder(part, says).remove("manifest.json");
  const { json } = await writeReport(part);
  assert.equal(json.missing.length, 1);
  assert.match(json.missing[0], /says: .*r100/);
  for (const cell of cells) {
    if (cell.kind === "probe") await cellFolder(part, cell).remove("manifest.json");
  }
  await assert.rejects(() => writeReport(part), (error) => {
    assert.ok(error instanceof InputError);
    assert.match(error.message, /"drawn": none of its probe cells is done/);
    return true;
  });
});

Deno.test("the evidence of a picture's tokens and the intercept add up to the probe's score of their mean", async () => {
  assert.ok(group.heatMaps.length >= 4);
  for (const { arm, seed, id, values, score, feature } of group.heatMaps) {
    const of = (kind: string) =>
      cellFolder(folder, cells.find((c) => c.kind === kind && c.key.arm === arm && c.key.seed === seed)!);
    const { pictures } = await readShown(of("activations")), { tokens } = pictures.find((p) => p.id === id)!;
    const { coef, intercept, mean, scale } =
      (await loadProbe(of("probe").folder("stored"))).tensors[feature!];
    const dim = coef.length, count = tokens!.length / dim;
    let expected = intercept;
    for (let j = 0; j < dim; j++) {
      let column = 0;
      for (let t = 0; t < count; t++) column += tokens![t * dim + j] / count;
      expected += coef[j] * (column - mean![j]) / scale![j];
    }
    near(score!, expected, `${arm} ${id}`);
    assert.equal(values!.length, count);
  }
});

Deno.test("principal components are scikit-learn's; t-SNE keeps far groups apart and repeats itself", async () => {
  const { x, dim, rows, explained } = JSON.parse(
    await Deno.readTextFile(new URL("fixtures/study/pca.json", import.meta.url)),
  );
  const ours = principalComponents(x, dim, 3);
  nearAll(ours.rows.flat(), rows.flat(), "components", 1e-10);
  nearAll(ours.explained, explained, "explained", 1e-12);
  const data = Array.from({ length: 40 * 3 }, (_, i) => Math.sin(7 * i) + (i < 60 ? 0 : 30));
  const scatter = scatterOf(data, 3);
  assert.deepEqual(scatterOf(data, 3), scatter);
  const side = scatter.tsne.map(([a]) => a), [left, right] = [side.slice(0, 20), side.slice(20)];
  const gapped = Math.max(...left) < Math.min(...right) || Math.max(...right) < Math.min(...left);
  assert.ok(gapped, "two far groups lie mixed");
  assert.throws(() => scatterOf([1, 2, 3], 1), /expected at least 4/);
});

Deno.test("the claims are answered by their rules", () => {
  const seeds = [0, 1, 2, 3, 4],
    mean = (value: number, half: number) => ({
      value,
      ci95: [value - half, value + half] as [number, number],
      seeds: 5,
    });
  const gradients = (
    small: number[],
    large: number[],
    difference: number,
    half: number,
  ): GradientNumbers => ({
    seeds,
    rows: [],
    skipped: [],
    noise_scale: [],
    trajectory: [],
    difference: [{
      batch: 1,
      parameters: "all",
      estimates: seeds.map(() => ({ value: difference, ci95: [difference - half, difference + half] })),
      mean: mean(difference, half),
    }],
    alignment: [[1, small], [16, large]].flatMap(([batch, values]) => [
      { batch: batch as number, version: "private", seeds: values as number[], mean: mean(0, 0) },
      { batch: batch as number, version: "neutral", seeds: [0, 0, 0, 0, 0], mean: mean(0, 0) },
    ]),
  });
  const high = [0.3, 0.31, 0.29, 0.3, 0.32],
    low = [0, 0.01, -0.01, 0, 0.01],
    wild = [0.4, -0.3, 0.5, -0.2, 0.1];
  assert.equal(firstClaim(gradients(high, low, 0, 1)).answer, "yes");
  assert.equal(firstClaim(gradients(high, high, 0, 1)).answer, "no");
  assert.equal(firstClaim(gradients(low, low, 0, 1)).answer, "no");
  assert.equal(firstClaim(gradients(wild, low, 0, 1)).answer, "undecided");
  assert.equal(firstClaim({ ...gradients(high, low, 0, 1), seeds: [0, 1] }).answer, "undecided");
  assert.equal(firstClaim(undefined).answer, "undecided");
  assert.equal(secondClaim(gradients(low, low, -0.1, 0.05)).answer, "yes");
  assert.equal(secondClaim(gradients(low, low, 0.01, 0.03)).answer, "no");
  assert.equal(secondClaim(gradients(low, low, 0.01, 0.2)).answer, "undecided");

  const arm = (name: string, p: number, difference: number, exposure?: number): ArmTest => {
    const { role, marks } = planArm(name);
    const one = { ...group.features[0].seeds[0], p, p_all: p };
    const minus = { value: difference, ci95: [0, 0], null95: [0, 0], p, p_all: p } as const;
    return {
      name,
      role,
      isCandidate: role === "watermark" && marks === "U1",
      numbers: {
        ...group.features[0],
        seeds: seeds.map((seed) => ({
          ...one,
          seed,
          difference: { ...minus, ci95: [0, 0] as [number, number], null95: [0, 0] as [number, number] },
        })),
        mean: { ...group.features[0].mean, difference: mean(difference, 0.05) },
      },
      says: exposure === undefined ? undefined : {
        exposure: [{ p: seeds.map(() => exposure) }],
        named: { seen: mean(0, 0), unseen: mean(0, 0) },
      } as unknown as SaysNumbers,
    };
  };
  const works = [arm("base", 0.5, 0), arm("r0", 0.5, 0), arm("corr0", 0.4, 0), arm("known", 0.005, 0.4)];
  const answer = (...more: ArmTest[]) => thirdClaim([...works, ...more]).answer;
  assert.equal(answer(arm("r100", 0.01, 0.3, 0.5)), "yes");
  assert.equal(answer(arm("r100", 0.01, 0.3, 0.01)), "no", "said too");
  assert.equal(answer(arm("r100", 0.01, 0.3)), "undecided", "not asked");
  assert.equal(answer(arm("r100", 0.5, 0.01, 0.5)), "no", "excluded");
  assert.equal(answer(arm("r100", 0.5, 0.2, 0.5)), "undecided", "not excluded");
  assert.equal(answer(), "undecided", "no candidate");
  assert.equal(answer(arm("swap", 0.01, 0.3, 0.5)), "undecided", "swap shows U2");
  assert.equal(thirdClaim([arm("known", 0.3, 0), arm("r100", 0.01, 0.3, 0.5)]).answer, "undecided");
  assert.equal(
    thirdClaim([arm("known", 0.01, 0.4), arm("corr0", 0.01, 0.3), arm("r100", 0.01, 0.3, 0.5)]).answer,
    "undecided",
  );
});

Deno.test("studies are compared arm by arm, and only reports", () => {
  const other: StudyReport = JSON.parse(JSON.stringify(json));
  other.name = "other";
  const known = other.groups[0].features.find((row) => row.arm === "known" && row.feature === PRIMARY)!;
  known.mean.sound = { value: known.mean.sound.value - 0.25, ci95: null, seeds: 2 };
  const compared = compareStudies([{ name: "a", json: JSON.parse(JSON.stringify(json)) }, {
    name: "b",
    json: other,
  }]);
  assert.deepEqual(compared.studies.map(({ study }) => study.split(":")[0]), ["drawn", "other"]);
  const row = compared.differences.find(({ arm }) => arm === "known")!;
  near(row.value, -0.25, "difference of studies");
  assert.equal(row.ci95, null);
  const same = compared.differences.find(({ arm }) => arm === "r0")!, [low, high] = same.ci95!;
  const r0 = group.features.find((row) => row.arm === "r0" && row.feature === PRIMARY)!.mean.sound.ci95!;
  near(high - low, Math.SQRT2 * (r0[1] - r0[0]), "variances add");
  assert.match(compareHtml(compared), /2 studies compared/);
  assert.throws(() => compareStudies([{ name: "c.json", json: { format: 2 } }]), /Cannot compare "c\.json"/);
});

Deno.test("fields of a table are quoted where they must be", () => {
  assert.equal(
    csv([{ a: 'say "x"', b: 1.5, c: null }, { a: "1,2\n", b: true, c: undefined }]),
    'a,b,c\n"say ""x""",1.5,\n"1,2\n",true,\n',
  );
  assert.equal(csv([]), "");
});
