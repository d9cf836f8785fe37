/**
 * The study's data sets from a disk: the seeded split, what its hash depends on, what is refused; and the study on two real
 * families at tiny size, from records and pictures to every kind of cell.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { encodeImage } from "../core/image/codecs.ts";
import { readJson } from "../core/formats/folder.ts";
import { blankPicture } from "../core/image/picture.ts";
import { Random } from "../core/random.ts";
import { studyPeople } from "../core/study/arms.ts";
import { chainsOf } from "../core/study/cells.ts";
import type { StudyData } from "../core/study/config.ts";
import { parseStudy } from "../core/study/presets.ts";
import {
  gradientResultSchema,
  probeResultSchema,
  saysResultSchema,
  tuneSchema,
} from "../core/study/results.ts";
import { openGpu } from "../gpu/device.ts";
import { DiskFolder, writeFile } from "../scripts/folder.ts";
import { cellFolder, readResult } from "../scripts/study_cell.ts";
import { writeReport } from "../scripts/study_report.ts";
import { runStudy, writeStudy } from "../scripts/study_run.ts";
import { identifyStudy, watermarkerOf } from "../scripts/study_setup.ts";
import { fittingSource, openSource } from "../scripts/study_sources.ts";
import { chatCheckpoint } from "./chat_models.ts";
import { compareReports } from "./recompute/compare.ts";
import { remakeReport } from "./recompute/report.ts";
import { compareTables } from "./recompute/tables.ts";

/** Pictures of noise, `count` of them, with two questions each. */
async function withRecords(
  count: number,
  test: (data: Extract<StudyData, { kind: "llava" }>, root: string) => Promise<void>,
  size = { width: 64, height: 56 },
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "afterimage-sources-" });
  try {
    const records = [];
    for (let i = 0; i < count; i++) {
      const picture = blankPicture(size.width, size.height), random = new Random(i, "noise");
      picture.data.forEach((_, k) => picture.data[k] = random.int(256));
      await writeFile(join(root, `${i}.png`), await encodeImage(picture, "png"));
      const turn = (from: string, value: string) => ({ from, value });
      records.push({
        id: `r${i}`,
        image: `${i}.png`,
        conversations: [
          turn("human", "<image>\nIs it noise?"),
          turn("gpt", i % 3 ? "yes" : "no"),
          turn("human", "Which?"),
          turn("gpt", "grey"),
        ],
      });
    }
    await Deno.writeTextFile(join(root, "data.json"), JSON.stringify(records));
    const file = { data: join(root, "data.json"), images: root };
    await test({ kind: "llava", name: "noise", testShare: 0.25, ...file }, root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const idsOf = async (count: number, item: (i: number) => Promise<{ id: string }>) =>
  await Promise.all(Array.from({ length: count }, async (_, i) => (await item(i)).id));

Deno.test("records are split by seed, pictures on one side only, and named by what they are", () =>
  withRecords(12, async (data, root) => {
    const source = await openSource(data, 1);
    assert.deepEqual([source.count, source.heldOutCount], [9, 3]);
    const [training, heldOut] = [await idsOf(9, source.item), await idsOf(3, source.heldOut)];
    assert.equal(new Set([...training, ...heldOut]).size, 12);
    // Longer than the data, it starts again.
    assert.equal((await source.item(9)).id, training[0]);
    assert.deepEqual(source.answers.slice(0, 2), ["grey", "yes"]);
    assert.equal((await openSource(data, 1)).hash, source.hash);
    const other = await openSource(data, 2);
    assert.notEqual(other.hash, source.hash);
    assert.notDeepEqual(await idsOf(3, other.heldOut), heldOut);
    assert.deepEqual([(await openSource({ ...data, limit: 8 }, 1)).count], [6]);

    // Another picture under the same name is another data set.
    await writeFile(join(root, "3.png"), await encodeImage(blankPicture(64, 56), "png"));
    assert.notEqual((await openSource(data, 1)).hash, source.hash);
    await Deno.remove(join(root, "3.png"));
    await assert.rejects(openSource(data, 1), /Cannot open ".*3\.png": no such file/);
    await assert.rejects(
      openSource({ ...data, data: join(root, "none.json") }, 1),
      /Cannot open ".*none\.json" of the data "noise": no such file/,
    );
    await assert.rejects(openSource({ ...data, testShare: 0.01 }, 1), /Cannot split ".*0 of them/);
  }));

Deno.test("a picture that two records share is on one side with both, and one across is refused", () =>
  withRecords(4, async (data, root) => {
    const records = JSON.parse(await Deno.readTextFile(data.data));
    await Deno.writeTextFile(data.data, JSON.stringify([...records, { ...records[0], id: "again" }]));
    for (let seed = 0; seed < 6; seed++) {
      const { count, heldOutCount, item, heldOut } = await openSource(data, seed);
      // Of two records about a held-out picture one is kept.
      const ids = [...await idsOf(count, item), ...await idsOf(heldOutCount, heldOut)];
      assert(ids.includes("again") ? count === 4 : count === 3, ids.join(" "));
    }
    const many = records.map((record: { image: string }, i: number) =>
      i === 0 ? record : {
        ...record,
        image: [record.image, "0.png"],
        conversations: [{ from: "human", value: "<image><image>\nSame?" }, { from: "gpt", value: "no" }],
      }
    );
    await Deno.writeTextFile(join(root, "data.json"), JSON.stringify(many));
    await assert.rejects(openSource(data, 1), /shares a picture with one to tune on/);
  }));

Deno.test("a picture too small for a watermark is refused by its record", () =>
  withRecords(8, async (data) => {
    const config = parseStudy({ preset: "tiny", data: [data] }, "test"), people = studyPeople(1, 2, 4);
    const source = await openSource(data, 1);
    const fitting = fittingSource(source, await watermarkerOf(config), people);
    await assert.rejects(fitting.item(0), (error) => {
      assert(error instanceof InputError);
      assert.match(
        error.message,
        /Cannot watermark record "r\d" of "noise": its picture is 64x20, a person's lines take \d+x36/,
      );
      return true;
    });
    const wide = parseStudy({ preset: "tiny", watermark: { font: "pixel", colour: "red" } }, "test");
    await assert.rejects(watermarkerOf(wide), /Cannot use "watermark": .*colour/);
  }, { width: 64, height: 20 }));

for (const family of ["smolvlm", "qwen_vl"]) {
  Deno.test(`${family}: every kind of cell, from records and pictures`, () =>
    withRecords(12, async (data, root) => {
      const path = join(root, "model"), checkpoint = await chatCheckpoint(family);
      for (const name of await checkpoint.list()) {
        await writeFile(join(path, name), await checkpoint.read(name));
      }
      const config = parseStudy({
        preset: "tiny",
        models: [{
          name: family,
          path,
          template: family === "qwen_vl" ? "chatml" : "auto",
          lora: { r: 2, target_modules: family === "qwen_vl" ? ["c_attn", "w1"] : "all-linear" },
          train: { steps: 2, lr: 1e-3 },
        }],
        data: [data],
        arms: ["base", "r100"],
        comparedTo: "base",
        people: 4,
        batchSizes: [2],
        seeds: [1],
        encoding: { format: "jpeg" },
        probe: {
          prompts: [{ id: "username", text: "What is the username?" }],
          sites: ["layers.*.resid_post"],
          reductions: ["index:-2", "image-mean"],
          primary: undefined,
          ...{
            scenes: 3,
            partitions: 2,
            draws: 9,
            controlTasks: 2,
            tolerance: 1e-10,
            faithful: { tol: 1e-10 },
          },
        },
        gradients: { batchSizes: [1, 2], batches: 2, versions: ["private", "neutral", "text-augmented"] },
        says: { alternatives: 3, scenes: 1, maxTokens: 3 },
      }, "test");
      const study = await identifyStudy(config), folder = new DiskFolder(join(root, "out"));
      const gpu = await openGpu(), used = gpu.pool.usedBytes;
      const chains = chainsOf(study.cells);
      await runStudy({ study, chains, folder, gpu, signal: new AbortController().signal });
      assert.equal(gpu.pool.usedBytes, used, "the study leaves buffers behind");
      for (const cell of study.cells) {
        const at = cellFolder(folder, cell);
        switch (cell.kind) {
          case "tune": {
            const { vqa, marked, steps } = await readResult(at, "tune.json", tuneSchema);
            assert.deepEqual([vqa!.after.samples, vqa!.after.answers], [3, 6]);
            assert.deepEqual([marked, steps], cell.key.arm === "base" ? [0, 0] : [9, 2]);
            break;
          }
          case "probe": {
            const { features, people } = await readResult(at, "probe.json", probeResultSchema);
            assert.deepEqual(features.map(({ feature }) => feature).sort(), [
              "layers.0.resid_post@image-mean",
              "layers.0.resid_post@index:-2",
            ]);
            assert.deepEqual(people, { seen: 4, unseen: 4 });
            break;
          }
          case "says": {
            const { people, seconds } = await readResult(at, "says.json", saysResultSchema);
            assert(people.length > 0 && seconds > 0);
            break;
          }
          case "gradients": {
            const { rows } = await readResult(at, "gradients.json", gradientResultSchema);
            assert.equal(rows.length, 6);
            for (const { cosine } of rows) assert(Number.isFinite(cosine.value) && cosine.value < 1);
          }
        }
      }
      assert.equal(new Set(study.cells.map(({ kind }) => kind)).size, 5);
      if (family !== "qwen_vl") return;
      // Real cells, too, keep all that their report's numbers are worked out from.
      await writeStudy(folder, study);
      const { tables } = await writeReport(folder), remade = await remakeReport(folder);
      compareReports(await readJson(folder, "report.json"), remade.report);
      compareTables(tables, remade);
    }));
}
