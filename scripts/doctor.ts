/**
 * `deno task doctor`: which adapters WebGPU finds, what they can do, and whether every kernel computes here what its
 * reference says. Exits with 0 when all agree, with 1 when one does not or when there is no adapter.
 */
import { z } from "zod";
import { openGpu } from "../gpu/device.ts";
import { type AdapterReport, type Costs, describeAdapters, measure } from "../gpu/doctor.ts";
import { checkKernels, type KernelCheck } from "../gpu/doctor_checks.ts";
import { runTask } from "./cli.ts";
import { formatTable } from "./table.ts";

/** Limits that decide what fits; the rest is in `--json`. */
const SHOWN = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
];

const INSTALL: Record<string, string> = {
  linux:
    "a Vulkan driver: that of your GPU's maker, or software Vulkan for the CPU, on Debian and Ubuntu with\n" +
    "  apt-get install -y libvulkan1 mesa-vulkan-drivers\n" +
    "on Fedora with\n  dnf install vulkan-loader mesa-vulkan-drivers",
  darwin: "nothing: Metal comes with macOS. Is DENO_WEBGPU_BACKEND set to something else?",
  windows: "the GPU maker's current driver: it brings Direct3D 12 and Vulkan",
};

/** Environment variables that change which adapters are found. */
const VARIABLES = ["DENO_WEBGPU_BACKEND", "VK_ICD_FILENAMES", "VK_DRIVER_FILES"];

function runtime() {
  const set = VARIABLES.flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  return {
    deno: Deno.version.deno,
    system: `${Deno.build.os} ${Deno.build.arch}`,
    cores: navigator.hardwareConcurrency,
    environment: Object.fromEntries(set) as Record<string, string>,
  };
}

function printAdapter(adapter: AdapterReport, index: number): void {
  console.log(`\nAdapter ${index}: ${adapter.name}${adapter.isFallback ? " (computes on the CPU)" : ""}`);
  console.log(`  vendor ${adapter.vendor || "unknown"}, device ${adapter.device || "unknown"}`);
  for (const name of SHOWN) {
    console.log(`  ${name} ${adapter.limits[name]?.toLocaleString("en") ?? "unknown"}`);
  }
  for (const [feature, can] of Object.entries(adapter.obtainable)) {
    const listed = adapter.features.includes(feature);
    console.log(
      `  ${feature}: ${can ? "can be had" : "no"}${can && !listed ? ", though it is not listed" : ""}`,
    );
  }
}

function row({ name, ok, forward, gradient }: KernelCheck): string[] {
  const shown = (error: number | null) => error === null ? "-" : error.toExponential(1);
  return [name, shown(forward), shown(gradient), ok ? "ok" : "FAILED"];
}

function printCosts({ dispatchUs, readBackMs, copyGBs, matmulGflops }: Costs): void {
  console.log(
    `\nA dispatch costs ${dispatchUs.toFixed(0)} µs, a read-back ${readBackMs.toFixed(1)} ms; ` +
      `copies move ${copyGBs.toFixed(1)} GB/s, a 512³ product runs at ${matmulGflops.toFixed(1)} GFLOP/s`,
  );
}

if (import.meta.main) {
  await runTask({
    name: "doctor",
    summary: "Say which WebGPU adapters there are and whether every kernel agrees with its reference on one",
    schema: z.object({
      adapter: z.string().optional().describe("WebGPU adapter by name or index (default: the first)"),
      json: z.boolean().default(false).describe("print one JSON object"),
    }),
    examples: ["deno task doctor", "deno task doctor --adapter 1 --json"],
    async run({ adapter: choice, json }) {
      const facts = runtime(), adapters = await describeAdapters();
      if (!json) {
        console.log(`Deno ${facts.deno} on ${facts.system}, ${facts.cores} cores`);
        for (const [name, value] of Object.entries(facts.environment)) console.log(`  ${name}=${value}`);
        adapters.forEach(printAdapter);
      }
      if (adapters.length === 0) {
        const install = INSTALL[Deno.build.os] ?? "a Vulkan driver";
        if (json) console.log(JSON.stringify({ ok: false, ...facts, adapters, install }));
        else console.log(`\nNo WebGPU adapter. Install ${install}`);
        Deno.exitCode = 1;
        return;
      }
      const gpu = await openGpu(choice);
      if (!json) console.log(`\nKernels on ${gpu.name}, relative errors against f64:`);
      const checks = await checkKernels(gpu);
      const failed = checks.filter(({ ok }) => !ok);
      const costs = failed.some(({ failure }) => failure) ? null : await measure(gpu);
      const ok = failed.length === 0;
      if (json) console.log(JSON.stringify({ ok, ...facts, adapters, used: gpu.name, checks, costs }));
      else {
        console.log(formatTable(["kernel", "result", "gradients", ""], checks.map(row)));
        for (const { name, failure } of failed) if (failure) console.log(`\n${name}: ${failure}`);
        if (costs) printCosts(costs);
        console.log(ok ? `\nAll ${checks.length} agree.` : `\n${failed.length} of ${checks.length} FAILED.`);
      }
      if (!ok) Deno.exitCode = 1;
      gpu.close();
    },
  });
}
