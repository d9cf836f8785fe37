/**
 * `deno task doctor`: a whole run on this machine's adapter, a run that finds none, and kernels broken on purpose.
 * A kernel that no check runs fails here: every entry point of gpu/ops/ must be among those recorded.
 */
import assert from "node:assert/strict";
import { Gpu, openGpu } from "../gpu/device.ts";
import { checkKernels } from "../gpu/doctor_checks.ts";
import { kernelCases } from "../gpu/doctor_cases.ts";
import type { Kernel } from "../gpu/kernel.ts";

async function doctor(args: string[], env: Record<string, string> = {}) {
  const script = new URL("../scripts/doctor.ts", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    env,
    stderr: "null",
  }).output();
  return { code, out: new TextDecoder().decode(stdout) };
}

Deno.test("every kernel agrees with its reference, in one JSON object", async () => {
  const { code, out } = await doctor(["--json"]);
  const report = JSON.parse(out);
  const failed = report.checks.filter(({ ok }: { ok: boolean }) => !ok);
  assert.deepEqual(failed, []);
  assert.equal(code, 0);
  assert.equal(report.ok, true);
  assert.equal(report.deno, Deno.version.deno);
  assert.equal(report.used, report.adapters[0].name);
  assert.equal(report.checks.length, kernelCases().length);
  const limit = (await navigator.gpu.requestAdapter())!.limits.maxBufferSize;
  assert.equal(report.adapters[0].limits.maxBufferSize, limit);
  const features = ["shader-f16", "timestamp-query", "subgroups"];
  assert.deepEqual(Object.keys(report.adapters[0].obtainable), features);
  for (const cost of ["dispatchUs", "readBackMs", "copyGBs", "matmulGflops"]) {
    assert(report.costs[cost] > 0, cost);
  }
});

Deno.test("without an adapter it says what to install and exits with 1", async () => {
  const none = Deno.build.os === "darwin" ? "dx12" : "metal"; // a backend that this system does not have
  const { code, out } = await doctor([], { DENO_WEBGPU_BACKEND: none });
  assert.equal(code, 1);
  assert.match(out, /No WebGPU adapter\. Install /);
  assert(out.includes(`DENO_WEBGPU_BACKEND=${none}`));
  if (Deno.build.os === "linux") assert.match(out, /libvulkan1 mesa-vulkan-drivers/);
});

/** A device on which `change` may replace a kernel, or drop its dispatch. */
class ChangedGpu extends Gpu {
  change: (kernel: Kernel) => Kernel | undefined = (kernel) => kernel;

  override run(
    kernel: Kernel,
    ...rest: Parameters<Gpu["run"]> extends [Kernel, ...infer R] ? R : never
  ): void {
    const changed = this.change(kernel);
    if (changed) super.run(changed, ...rest);
  }
}

Deno.test("a wrong kernel and one that does not compile fail alone", async () => {
  const { device, adapter } = await openGpu(), gpu = new ChangedGpu(device, adapter);
  gpu.change = (kernel) => {
    if (kernel.entry === "dropout") return undefined;
    if (kernel.entry === "turn1") {
      return { ...kernel, source: kernel.source.replace("fn turn1", "fn") };
    }
    return kernel;
  };
  const names = ["dropout", "rotary, halves of no four", "swiglu"];
  const cases = names.map((name) => kernelCases().find((one) => one.name === name)!);
  const [dropout, rotary, swiglu] = await checkKernels(gpu, cases);
  assert.equal(dropout.ok, false);
  assert(dropout.forward! > 1e-5 && dropout.failure === undefined);
  assert.equal(rotary.ok, false);
  assert.match(rotary.failure!, /Cannot compile kernel "[^"]*\.turn1"/);
  assert.equal(swiglu.ok, true, JSON.stringify(swiglu));
  gpu.close();
});

Deno.test("every kernel is among the checks", async () => {
  const { device, adapter } = await openGpu(), gpu = new ChangedGpu(device, adapter);
  const run = new Set<string>();
  gpu.change = ({ source, entry }) => void run.add(`${entry} of ${source.slice(-200)}`);
  await checkKernels(gpu);
  const folder = new URL("../gpu/ops/", import.meta.url), missing: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (!name.endsWith(".wgsl") || name.endsWith("_panel.wgsl") && !gpu.isCpu) continue;
    const source = await Deno.readTextFile(new URL(name, folder));
    for (const [, entry] of source.matchAll(/@compute[^{]*?fn (\w+)/g)) {
      if (!run.has(`${entry} of ${source.slice(-200)}`)) missing.push(`${name}: ${entry}`);
    }
  }
  assert.deepEqual(missing, []);
  gpu.close();
});
