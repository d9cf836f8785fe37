/**
 * `deno task study`: runs a grid of models, data, arms, batch sizes and seeds as cells that are done once and for all.
 * It prints its plan first; it can be stopped, extended, split over machines and merged.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { chainsOf, shardOf } from "../core/study/cells.ts";
import { PRESETS } from "../core/study/presets.ts";
import { totalWork, unitsOf } from "../core/study/work.ts";
import { listAdapters, openGpu } from "../gpu/device.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { isDone } from "./study_cell.ts";
import { mergeStudies } from "./study_merge.ts";
import { modelCosts, studyTable } from "./study_plan.ts";
import { writeReport } from "./study_report.ts";
import { runStudy, writeStudy } from "./study_run.ts";
import { identifyStudy, loadStudy } from "./study_setup.ts";

const schema = z.object({
  config: z.string().optional().describe('study as JSON; "preset" in it names one to depart from'),
  preset: z.string().optional().describe(`one of ${Object.keys(PRESETS).join(", ")}`),
  out: z.string().optional().describe("folder of the study; cells that are done there are not run again"),
  data: z.array(z.string()).default([]).describe(
    "name=FILE for the preset's data sets that are at hand; the others are left out",
  ),
  images: z.string().optional().describe("folder that image paths of --data start from"),
  seeds: z.array(z.number().int().min(0)).default([]).describe("run these seeds only (default: all)"),
  shard: z.string().regex(/^\d+\/\d+$/, 'expected "2/4"').optional().describe(
    "run the i-th of n parts of the grid",
  ),
  merge: z.array(z.string()).default([]).describe("folders whose cells are brought into --out first"),
  plan: z.boolean().default(false).describe("print the table of the plan and stop"),
  modelConfig: z.string().optional().describe("config.json to plan with where the model is not there"),
  gflops: z.number().positive().optional().describe("GFLOP/s to tell times by (default: measured)"),
  cellsOnly: z.boolean().default(false).describe("write no report"),
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
});

await runTask({
  name: "study",
  summary: "Run a study: every arm tuned, probed and asked, with a plan first and a report at the end",
  schema,
  settingsFlag: "settings",
  examples: [
    "deno task study --preset tiny --out runs/tiny",
    "deno task study --preset tiny --seeds 0 --shard 1/2 --out runs/part-1",
    "deno task study --preset tiny --merge runs/part-1,runs/part-2 --out runs/tiny",
    "deno task study --preset llava --plan --model-config llava-1.5-7b-hf.json --gflops 30000",
  ],
  async run({ out, merge, plan, modelConfig, gflops, adapter, cellsOnly, ...choice }) {
    if (modelConfig !== undefined && !plan) throw new InputError("Cannot use --model-config without --plan");
    if (out === undefined && !plan) throw new InputError("Cannot run a study: --out is missing");
    const config = await loadStudy(choice);
    const study = await identifyStudy(config, plan ? { modelConfig } : undefined);
    const units = ({ cells }: { cells: typeof study.cells }) =>
      unitsOf(totalWork(config, study.identities, cells));
    let chains = chainsOf(study.cells).filter(({ cells: [{ key }] }) =>
      choice.seeds.length === 0 || choice.seeds.includes(key.seed)
    );
    if (choice.shard !== undefined) {
      const [i, n] = choice.shard.split("/").map(Number);
      chains = shardOf(chains, i, n, units);
    }
    const folder = out === undefined ? undefined : new DiskFolder(out);
    if (folder && merge.length) {
      const { copied, kept } = await mergeStudies(folder, merge.map((path) => new DiskFolder(path)), study);
      console.error(`${copied} cells brought into ${folder.path}, ${kept} were there`);
    }
    const done = new Set<string>();
    if (folder) { for (const cell of study.cells) if (await isDone(folder, cell)) done.add(cell.id); }
    const isDoneAll = chains.every(({ cells }) => cells.every(({ id }) => done.has(id)));

    const needsGpu = plan ? gflops === undefined && (await listAdapters()).length > 0 : !isDoneAll;
    const gpu = needsGpu ? await openGpu(adapter) : undefined;
    if (plan || gpu) {
      const table = studyTable(study, chains, done, await modelCosts(study, { gpu, gflops, modelConfig }));
      if (plan) console.log(table);
      else console.error(table);
    }
    if (!plan && folder) {
      await writeStudy(folder, study);
      if (gpu) await runStudy({ study, chains, folder, gpu, signal: interruptSignal() });
      console.log(`${folder.path}: ${chains.length} chains done`);
      // A part of several has its report when they are merged.
      if (!cellsOnly && choice.shard === undefined) {
        await writeReport(folder);
        console.log(`${folder.path}/report.html`);
      }
    }
    gpu?.close();
  },
});
