/**
 * Makes the numbers of a finished study again from its cells: `deno run -A tests/by_hand/audit_study.ts DIR`. It lists what differs by
 * kind of number; a study whose fits stop early differs in little, one whose cells keep no files for an auditor is refused. Its plain
 * loops took an hour for one seed of the tiny preset.
 */
import { readJson } from "../../core/formats/folder.ts";
import { DiskFolder } from "../../scripts/folder.ts";
import { compareReports } from "../recompute/compare.ts";
import { remakeReport } from "../recompute/report.ts";

const [path] = Deno.args;
if (!path) throw new Error("Cannot audit: no folder of a study was given");
const folder = new DiskFolder(path), { report } = await remakeReport(folder);
const differing = new Map<string, string[]>();
const { numbers, worst, at } = compareReports(
  await readJson(folder, "report.json"),
  report,
  (place, message) => {
    const kind = place.replaceAll(/\[\d+\]/g, "");
    differing.set(kind, [...differing.get(kind) ?? [], message]);
  },
);
console.log(`${numbers} numbers, the largest difference is ${worst} at ${at || "none"}`);
for (const [kind, messages] of differing) console.log(`${messages.length} of ${kind}, as ${messages[0]}`);
if (differing.size) Deno.exit(1);
