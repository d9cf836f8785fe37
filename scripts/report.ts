/**
 * `deno task report DIR...`: writes the report of a study's folder anew from its cells, or compares several studies.
 * It runs no cell and needs no device; a folder without a study or a report is refused.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { compareHtml, compareStudies } from "../core/report/study_compare.ts";
import { runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { writeReport } from "./study_report.ts";

const schema = z.object({
  out: z.string().optional().describe("folder of the comparison's comparison.html and comparison.json"),
});

await runTask({
  name: "report",
  summary: "Write a study's report from its finished cells; with several studies, compare them",
  schema,
  args: "<studies...>",
  examples: [
    "deno task report runs/tiny",
    "deno task report runs/tiny runs/smolvlm --out runs/compared",
  ],
  async run({ out }, paths) {
    if (paths.length > 1 && out === undefined) {
      throw new InputError("Cannot compare studies: --out is missing");
    }
    if (paths.length === 1 && out !== undefined) {
      throw new InputError(`Cannot compare "${paths[0]}" with itself: give several studies, or no --out`);
    }
    const folders = paths.map((path) => new DiskFolder(path));
    for (const folder of folders) {
      if (await folder.exists("study.json")) {
        const { json } = await writeReport(folder);
        console.log(`${folder.path}/report.html`);
        for (const { model, data, claims } of json.groups) {
          for (const { claim, answer, because } of claims) {
            console.log(`${model}, ${data}: claim ${claim}: ${answer}: ${because}`);
          }
        }
      } else if (!await folder.exists("report.json")) {
        throw new InputError(`Cannot report "${folder.path}": it holds neither study.json nor report.json`);
      }
    }
    if (out === undefined) return;
    const reports = await Promise.all(
      folders.map(async (folder) => ({ name: folder.path, json: await readJson(folder, "report.json") })),
    );
    const comparison = compareStudies(reports), target = new DiskFolder(out);
    await target.write("comparison.json", JSON.stringify(comparison, null, 1) + "\n");
    await target.write("comparison.html", compareHtml(comparison));
    console.log(`${target.path}/comparison.html`);
  },
});
