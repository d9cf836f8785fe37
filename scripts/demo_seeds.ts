/**
 * `deno task demo:seeds`: the demo over several seeds, one after another, and what they show together. A seed whose
 * summary is there is not run again; nothing is left out of the table.
 */
import { z } from "zod";
import { meanWithInterval } from "../core/probe/student.ts";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import type { Summary } from "../core/report/summary.ts";
import { runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";

const f3 = (x: number) => x.toFixed(3);

/** Arm by arm over all seeds, as Markdown. */
export function seedsTable(summaries: readonly Summary[]): string {
  const arms = Object.keys(summaries[0].arms), lines: string[] = [];
  const show = (values: number[]) => {
    const { mean, ci95: [low, high] } = meanWithInterval(values);
    return `${f3(mean)} [${f3(low)}, ${f3(high)}]`;
  };
  lines.push(
    "| arm | split by image, mean [95 % t] | split by person, mean [95 % t] | p <= .05 | outside its band |",
    "|---|---|---|---|---|",
  );
  for (const arm of arms) {
    const results = summaries.map(({ arms }) => arms[arm]);
    const outside = results.filter(({ sound: { auroc, null95: [low, high] } }) =>
      auroc < low || auroc > high
    ).length;
    const found = results.filter(({ sound }) => sound.p <= 0.05).length;
    lines.push(`| ${arm} | ${show(results.map((r) => r.faithful.auroc))} | ${
      show(results.map((r) => r.sound.auroc))
    } | ${found} of ${results.length} | ${outside} of ${results.length} |`);
  }
  lines.push(
    "",
    "Every run, seed by seed:",
    "",
    `| seed | ${arms.map((arm) => `${arm} image / person (p)`).join(" | ")} | seconds |`,
    `|---|${arms.map(() => "---|").join("")}---|`,
  );
  for (const { seed, arms: results, seconds } of summaries) {
    const cells = arms.map((arm) =>
      `${f3(results[arm].faithful.auroc)} / ${f3(results[arm].sound.auroc)} (${f3(results[arm].sound.p)})`
    );
    lines.push(`| ${seed} | ${cells.join(" | ")} | ${seconds.toFixed(0)} |`);
  }
  return lines.join("\n") + "\n";
}

if (import.meta.main) {
  await runTask({
    name: "demo:seeds",
    summary: "Run the demo for several seeds and show every result in one table",
    schema: z.object({
      seeds: z.number().int().min(2).default(8).describe("seeds 0 to this, exclusive"),
      out: z.string().default("runs/seeds").describe("folder with one demo folder a seed"),
      adapter: z.string().optional().describe("WebGPU adapter by name or index"),
    }),
    async run({ seeds, out, adapter }) {
      const folder = new DiskFolder(out), summaries: Summary[] = [];
      for (let seed = 0; seed < seeds; seed++) {
        const name = `seed-${seed}`;
        if (!await folder.exists(`${name}/summary.json`)) {
          const args = [
            "run",
            "-A",
            new URL("./demo.ts", import.meta.url).pathname,
            "--seed",
            String(seed),
            "--out",
            `${out}/${name}`,
          ];
          if (adapter !== undefined) args.push("--adapter", adapter);
          const { success } = await new Deno.Command(Deno.execPath(), {
            args,
            stdout: "null",
            stderr: "inherit",
          }).output();
          if (!success) {
            throw new InputError(
              `Cannot finish seed ${seed}: the demo failed, see above; the same command goes on from there`,
            );
          }
        }
        summaries.push(await readJson(folder, `${name}/summary.json`) as Summary);
      }
      const table = seedsTable(summaries);
      await folder.write("seeds.md", table);
      console.log(table);
    },
  });
}
