/**
 * What can be said about the adapters of this machine: names, limits, features (listed, and those that can be had),
 * and what a few basic operations cost. It opens devices of its own and refuses nothing: no adapter is an empty list.
 */
import { type Gpu, listAdapters } from "./device.ts";
import { add } from "./ops/add.ts";
import { matmulNT } from "./ops/matmul.ts";
import { Tape } from "./tape.ts";

/** Features that would speed kernels up, whether an adapter lists them or not. */
const PROBES: Record<string, string> = {
  "shader-f16": `enable f16;
@group(0) @binding(0) var<storage, read_write> y: array<f16>;
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { y[i] = 2.0h * y[i]; }`,
  "timestamp-query": "",
  "subgroups": `@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { y[i] = subgroupAdd(y[i]); }`,
};

export interface AdapterReport {
  name: string;
  vendor: string;
  architecture: string;
  device: string;
  /** Marked by the driver as the slow one of last resort: usually one that computes on the CPU. */
  isFallback: boolean;
  /** As the adapter lists them. */
  features: string[];
  /** Whether a device with the feature can be had and a shader that uses it compiles. */
  obtainable: Record<string, boolean>;
  limits: Record<string, number>;
}

/** Every adapter in the order of `openGpu`'s index, tried for the optional features. */
export async function describeAdapters(): Promise<AdapterReport[]> {
  const adapters = await listAdapters();
  return await Promise.all(adapters.map(async ({ info, features, limits }, index) => ({
    name: info.description || info.device || "unknown adapter",
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    isFallback: info.isFallbackAdapter,
    features: [...features].sort(),
    obtainable: Object.fromEntries(
      await Promise.all(
        Object.entries(PROBES).map(async ([feature, code]) => [feature, await canHave(index, feature, code)]),
      ),
    ),
    limits: limitsOf(limits),
  })));
}

function limitsOf(limits: GPUSupportedLimits): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name in Object.getPrototypeOf(limits)) {
    const value = limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") found[name] = value;
  }
  return found;
}

/** Opens a device of its own for the question: an adapter gives out one device. */
async function canHave(index: number, feature: string, code: string): Promise<boolean> {
  try {
    const adapter = (await listAdapters())[index];
    const device = await adapter.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    device.pushErrorScope("validation");
    if (code) device.createShaderModule({ code });
    const error = await device.popErrorScope();
    device.destroy();
    return error === null;
  } catch {
    return false;
  }
}

export interface Costs {
  /** Microseconds that one more dispatch costs, host and device together. */
  dispatchUs: number;
  /** Milliseconds that a read-back of one value takes. */
  readBackMs: number;
  /** Bytes read and written a second by device-side copies, in GB/s. */
  copyGBs: number;
  /** Of the f32 product (512, 512) by (512, 512)^T. */
  matmulGflops: number;
}

const DISPATCHES = 400, COPY_BYTES = 32 * 2 ** 20, SIDE = 512, REPEATS = 3;

/** A first impression of the device's speed, in about a second: the best of three runs each, no benchmark. */
export async function measure(gpu: Gpu): Promise<Costs> {
  using _scope = gpu.pool.scope();
  const tape = new Tape(gpu, false);
  const one = gpu.upload(new Float32Array(1)), small = gpu.upload(new Float32Array(64));
  const readBack = await best(async () => void await gpu.read(one));
  const above = async (work: () => void) => {
    work(); // compiles
    await gpu.read(one);
    const total = await best(async () => {
      work();
      await gpu.read(one);
    });
    return Math.max(total - readBack, 1e-3);
  };
  const dispatches = await above(() => {
    using _scope = gpu.pool.scope();
    for (let i = 0; i < DISPATCHES; i++) add(tape, small, small);
  });
  const from = gpu.empty([COPY_BYTES / 4]), to = gpu.empty([COPY_BYTES / 4]);
  const copy = await above(() => gpu.copy(from, to));
  const square = [SIDE, SIDE], values = new Float32Array(SIDE * SIDE).fill(1);
  const a = gpu.upload(values, square), b = gpu.upload(values, square), out = gpu.empty(square);
  const product = await above(() => matmulNT(gpu, a, b, out));
  return {
    dispatchUs: dispatches / DISPATCHES * 1e3,
    readBackMs: readBack,
    copyGBs: 2 * COPY_BYTES / copy / 1e6,
    matmulGflops: 2 * SIDE ** 3 / product / 1e6,
  };
}

/** The least time of a few runs, in milliseconds. */
async function best(run: () => Promise<void>): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now();
    await run();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}
