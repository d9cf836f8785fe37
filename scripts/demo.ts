/**
 * `deno task demo`: the whole instrument once, small: people, watermarks, five tuned copies of the built-in model,
 * probes with their null bands, gradients, a store and its HTTP service, and one report that says what it found.
 */
import { join } from "node:path";
import { z } from "zod";
import { ARMS } from "../core/demo/arms.ts";
import { summarizeDemo } from "../core/report/summary.ts";
import { renderDemoReport } from "../core/report/demo_report.ts";
import { openGpu } from "../gpu/device.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { printDemo } from "./demo_print.ts";
import { runDemo } from "./demo_run.ts";
import { DiskFolder } from "./folder.ts";
import { modelFolder } from "./model.ts";

await runTask({
  name: "demo",
  summary: "Run the main job once, small: watermark, fine-tune, probe, store, score over HTTP, report",
  schema: z.object({
    out: z.string().default("runs/demo").describe("folder of everything that the demo makes"),
    seed: z.number().int().default(0).describe(
      "people, scenes, places, order; 0 was fixed before any result was seen",
    ),
    quick: z.boolean().default(false).describe("under 90 seconds: fewer arms, steps and draws"),
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: ["deno task demo", "deno task demo --quick", "deno task demo --seed 1 --out runs/seed-1"],
  async run({ out, seed, quick, adapter }) {
    const started = performance.now();
    const gpu = await openGpu(adapter), folder = new DiskFolder(out);
    const data = await runDemo({
      gpu,
      base: await modelFolder("builtin:tiny"),
      folder,
      seed,
      quick,
      arms: (quick ? ["base", "r0", "known"] : Object.keys(ARMS)).map((name) => ARMS[name]),
      command: ["deno task demo", ...Deno.args].join(" "),
      started,
      signal: interruptSignal(),
    });
    await folder.write("report.html", await renderDemoReport(data));
    await folder.write("summary.json", JSON.stringify(summarizeDemo(data), null, 1) + "\n");
    printDemo(data);
    console.log(`\nReport: ${join(out, "report.html")}   Numbers: ${join(out, "summary.json")}`);
    gpu.close();
  },
});
