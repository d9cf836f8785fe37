/**
 * `deno task bench`: how fast the kernels are on this adapter, beside a peer on the same adapter in the same run.
 * It says nothing about a machine that does other work meanwhile.
 */
import { z } from "zod";
import { benchCases, type BenchResult, measureCases, OURS } from "../gpu/bench.ts";
import { openGpu } from "../gpu/device.ts";
import { runTask } from "./cli.ts";
import { formatTable } from "./table.ts";

/** Our rate over that of a peer that does the same work. */
interface Ratio {
  name: string;
  peer: string;
  ratio: number;
}

function ratiosOf(results: readonly BenchResult[]): Ratio[] {
  return results.filter(({ who }) => who !== OURS).flatMap((peer) =>
    results.filter(({ who, group }) => who === OURS && group === peer.group)
      .map((own) => ({ name: own.name, peer: peer.who, ratio: own.rate / peer.rate }))
  );
}

function row({ name, who, seconds, rate, unit }: BenchResult): string[] {
  return [name, who, (seconds * 1000).toPrecision(3), rate.toPrecision(3), unit];
}

if (import.meta.main) {
  await runTask({
    name: "bench",
    summary: "Measure the kernels on this adapter, and a peer beside them in the same run",
    schema: z.object({
      adapter: z.string().optional().describe("WebGPU adapter by name or index (default: the first)"),
      only: z.string().optional().describe(
        'measure only cases whose name contains this; "service" measures the HTTP service instead',
      ),
      turns: z.number().int().positive().default(5).describe("turns a case, of which the best counts"),
      peer: z.boolean().default(true).describe("leave the peer out"),
      json: z.boolean().default(false).describe("print one JSON object"),
    }),
    examples: [
      "deno task bench",
      "deno task bench --only matmul --turns 9",
      "deno task bench --no-peer --json",
      "deno task bench --only service",
    ],
    async run({ adapter, only, turns, peer, json }) {
      if (only === "service") {
        const { benchService, serviceText } = await import("./bench_service.ts");
        const result = await benchService();
        return console.log(json ? JSON.stringify(result) : serviceText(result));
      }
      const gpu = await openGpu(adapter);
      using _scope = gpu.pool.scope();
      const cases = benchCases(gpu);
      if (peer) {
        const { jaxProduct } = await import("./bench_jax.ts");
        cases.push(await jaxProduct());
      }
      const results = await measureCases(cases.filter(({ name }) => name.includes(only ?? "")), turns);
      const ratios = ratiosOf(results);
      const facts = {
        adapter: gpu.name,
        deno: Deno.version.deno,
        cores: navigator.hardwareConcurrency,
        turns,
      };
      if (json) console.log(JSON.stringify({ ...facts, results, ratios }));
      else {
        console.log(`${facts.adapter}, Deno ${facts.deno}, ${facts.cores} cores, best of ${turns}\n`);
        console.log(formatTable(["case", "by", "ms", "rate", ""], results.map(row)));
        if (ratios.length) console.log();
        for (const { name, peer, ratio } of ratios) console.log(`${name}: ${ratio.toFixed(1)} x ${peer}`);
      }
      gpu.close();
    },
  });
}
