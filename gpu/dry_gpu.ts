/**
 * A device that computes nothing: the real ops run over it, and it keeps the books of memory, dispatches and arithmetic.
 * What a plan says is counted here instead of being a second set of formulas; nothing can be read back from it.
 */
import { Gpu, type Grid, type HostArray } from "./device.ts";
import type { Kernel } from "./kernel.ts";
import type { PoolBuffer } from "./pool.ts";
import type { Tensor } from "./tensor.ts";

/** What of an adapter a plan depends on. */
export interface DeviceFacts {
  name: string;
  limits: Pick<GPUSupportedLimits, "maxBufferSize" | "maxStorageBufferBindingSize">;
}

/** What the WebGPU specification promises of every adapter, under the name of none. */
export const ANY_DEVICE: DeviceFacts = {
  name: "any GPU",
  limits: { maxBufferSize: 268435456, maxStorageBufferBindingSize: 134217728 },
};

/** A stretch of memory while somebody holds it. */
export interface Holding {
  bytes: number;
  /** The part of the step that asked for it. */
  phase: string;
  /** Name of the kernel that first wrote it, "upload" for the host's values, "" for none. */
  writer: string;
}

/** Work of one phase. */
export interface Work {
  dispatches: number;
  /** Of matrix products and attention, an addition and a multiplication counted as two. */
  flops: number;
  /** Bound by all other kernels: norms, elementwise, gathers, optimiser. */
  bytes: number;
}

/** A tensor or buffer and its size. */
export interface Largest {
  bytes: number;
  what: string;
}

export class DryGpu extends Gpu {
  /** What the work from here on belongs to. */
  phase = "";
  readonly work = new Map<string, Work>();
  /** Most bytes held at once since `forget`, and what was held then. */
  peak = 0;
  largestBuffer: Largest = { bytes: 0, what: "" };
  largestBinding: Largest = { bytes: 0, what: "" };
  #holders = new Map<number, Holding>();
  #log: { holding: Holding; change: number }[] = [];
  #start = 0;
  #words = new Map<number, Uint32Array>();
  #pairs = new Map<Uint32Array, Map<string, number>>();

  constructor({ name, limits }: DeviceFacts) {
    // Buffers of any size are handed out: whether they fit is said afterwards, for all at once.
    super(silentDevice({ ...pickLimits(limits), maxBufferSize: Infinity }), {
      description: name,
    } as GPUAdapterInfo);
    this.pool.onChange = (buffer, change) => this.#note(buffer, change);
  }

  #note(buffer: PoolBuffer, change: number): void {
    if (change > 0) {
      const holding = { bytes: change, phase: this.phase, writer: "" };
      this.#holders.set(buffer.id, holding);
      this.#log.push({ holding, change });
      if (change > this.largestBuffer.bytes) this.largestBuffer = { bytes: change, what: this.phase };
    } else {
      this.#log.push({ holding: this.#holders.get(buffer.id)!, change });
      this.#holders.delete(buffer.id);
      this.#words.delete(buffer.id);
    }
    this.peak = Math.max(this.peak, this.pool.usedBytes);
  }

  /** Starts the search for the peak anew; what is held now stays held. */
  forget(): void {
    this.#log = [];
    this.#start = this.pool.usedBytes;
    this.peak = this.#start;
    this.work.clear();
  }

  /** What was acquired since `forget` and held at the peak. */
  atPeak(): Holding[] {
    let used = this.#start, most = used, end = 0;
    this.#log.forEach(({ change }, i) => {
      used += change;
      if (used > most) [most, end] = [used, i + 1];
    });
    const held = new Set<Holding>();
    for (const { holding, change } of this.#log.slice(0, end)) {
      if (change > 0) held.add(holding);
      else held.delete(holding);
    }
    return [...held];
  }

  override write(tensor: Tensor, values: HostArray | Uint16Array<ArrayBuffer>): void {
    this.#wrote(tensor, "upload");
    if (values instanceof Uint32Array) this.#words.set(tensor.buffer.id, values);
  }

  override run(
    kernel: Kernel,
    sizes: Record<string, number>,
    inputs: readonly (Tensor | undefined)[],
    outputs: readonly (Tensor | undefined)[],
    grid: Grid,
  ): void {
    if (grid.includes(0)) return;
    for (const output of outputs) if (output) this.#wrote(output, kernel.name);
    const bound = [...inputs, ...outputs].filter((tensor) => tensor !== undefined);
    for (const { bytes, shape } of bound) {
      if (bytes > this.largestBinding.bytes) {
        this.largestBinding = { bytes, what: `(${shape.join(", ")}) in "${kernel.name}"` };
      }
    }
    const work = this.work.get(this.phase) ?? { dispatches: 0, flops: 0, bytes: 0 };
    const flops = this.#flops(kernel.name, sizes, inputs);
    work.dispatches++;
    work.flops += flops;
    if (!flops) work.bytes += bound.reduce((sum, { bytes }) => sum + bytes, 0);
    this.work.set(this.phase, work);
    this.dispatches++;
  }

  #wrote(tensor: Tensor, writer: string): void {
    const holding = this.#holders.get(tensor.buffer.id);
    if (holding && !holding.writer) holding.writer = writer;
  }

  /** Products 2 M N K; attention 2 D a pair of query and key, a head and a product: 2 forward, 3 for dq, 4 for dk and dv. */
  #flops(name: string, sizes: Record<string, number>, inputs: readonly (Tensor | undefined)[]): number {
    if (name.startsWith("matmul")) return 2 * (sizes.M ?? sizes.T) * sizes.N * sizes.K;
    if (!name.startsWith("attention") || name.endsWith(".delta")) return 0;
    const entry = name.split(".")[1];
    const products = entry === "forward" ? 2 : entry === "queries" ? 3 : 2 + (sizes.wants === 6 ? 2 : 1);
    const pairs = this.#countPairs(inputs.at(-1)!, sizes.row0, sizes.rows);
    return 2 * products * pairs * sizes.H * sizes.D4 * 4;
  }

  #countPairs({ buffer }: Tensor, row0: number, rows: number): number {
    const words = this.#words.get(buffer.id)!, key = `${row0}:${rows}`;
    let counts = this.#pairs.get(words);
    if (!counts) this.#pairs.set(words, counts = new Map());
    let pairs = counts.get(key);
    if (pairs === undefined) {
      pairs = 0;
      for (let row = row0; row < row0 + rows; row++) {
        pairs += Math.max(0, words[2 * row + 1] - words[2 * row]);
      }
      counts.set(key, pairs);
    }
    return pairs;
  }

  override submit(): void {}
  override zero(): void {}
  override copy(_from: Tensor, to: Tensor): void {
    this.#wrote(to, "copy");
  }
  override read(): Promise<HostArray[]> {
    throw new Error("Cannot read from a device that computes nothing");
  }
}

/** As much of a device as opening a `Gpu` and its pool touch. */
function silentDevice(limits: DeviceFacts["limits"]): GPUDevice {
  return {
    limits: { minUniformBufferOffsetAlignment: 256, ...limits },
    lost: new Promise(() => {}),
    addEventListener: () => {},
    createBuffer: ({ size }: GPUBufferDescriptor) => ({ size, destroy: () => {} }),
    destroy: () => {},
  } as unknown as GPUDevice;
}

/** Copied one by one: a device's limits are getters of a prototype, which a spread would not see. */
function pickLimits({ maxBufferSize, maxStorageBufferBindingSize }: DeviceFacts["limits"]) {
  return { maxBufferSize, maxStorageBufferBindingSize };
}
