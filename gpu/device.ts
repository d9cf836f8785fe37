/**
 * The device: an adapter with its limits raised, a buffer pool, and a recorder that puts many dispatches into one
 * compute pass. Refuses to go on after a lost device, an exhausted memory or a shader that does not compile.
 */
import { InputError } from "../core/errors.ts";
import { sizeOf } from "../core/shape.ts";
import { type Kernel, PANEL_BYTES, Pipelines } from "./kernel.ts";
import { Pool } from "./pool.ts";
import { byteLength, type Dtype, type Tensor, tensorOver } from "./tensor.ts";
import type { Trace } from "./trace.ts";

/** The device is gone (unplugged, reset, driver crash): what was not saved must be computed again. */
export class DeviceLost extends Error {
  override name = "DeviceLost";
}

export type Grid = readonly [number, number?, number?];
export type HostArray = Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** Dispatches recorded before they are submitted, so that the device starts while the host still records. */
const SUBMIT_EVERY = 192;
const UNIFORM_SLOTS = 1024;
const MAX_GROUPS = 65535;

/** Workgroups for `n` invocations of `size`; kernels number them `id.x + id.y * groups.x * size`. */
export function gridFor(n: number, size = 64): Grid {
  const groups = Math.ceil(n / size);
  return groups <= MAX_GROUPS ? [groups] : [MAX_GROUPS, Math.ceil(groups / MAX_GROUPS)];
}

export class Gpu {
  readonly pool: Pool;
  readonly pipelines: Pipelines;
  /** True for an adapter that computes on the CPU (llvmpipe, SwiftShader): kernels then prefer registers over tiles. */
  readonly isCpu: boolean;
  /** Bytes that one storage binding may show; products, lookups and elementwise kernels cut what is larger. */
  readonly bindingLimit: number;
  /** Dispatches recorded since the device was opened. */
  dispatches = 0;
  /** Told of every op, while somebody exports a model. */
  trace?: Trace;

  #encoder?: GPUCommandEncoder;
  #pass?: GPUComputePassEncoder;
  #recorded = 0;
  readonly #slot: number;
  readonly #uniforms: GPUBuffer;
  readonly #uniformData: ArrayBuffer;
  readonly #uniformView: DataView;
  readonly #empty: Tensor;
  #error?: Error;
  #staging = new Map<number, GPUBuffer[]>();

  /** @param bindingLimit less than the device's own limit, so that small tensors are cut as large ones are */
  constructor(readonly device: GPUDevice, readonly adapter: GPUAdapterInfo, bindingLimit?: number) {
    this.bindingLimit = bindingLimit ?? device.limits.maxStorageBufferBindingSize;
    this.isCpu = /llvmpipe|swiftshader|software/i.test(
      `${adapter.description} ${adapter.device} ${adapter.vendor}`,
    );
    this.pipelines = new Pipelines(device);
    this.pool = new Pool(device, () => {
      this.submit();
      this.pipelines.forgetGroups();
    }, this.isCpu ? PANEL_BYTES : 0);
    this.#slot = Math.max(64, device.limits.minUniformBufferOffsetAlignment);
    this.#uniforms = device.createBuffer({
      label: "sizes",
      size: this.#slot * UNIFORM_SLOTS,
      usage: 0x40 | 0x08,
    });
    this.#uniformData = new ArrayBuffer(this.#slot * UNIFORM_SLOTS);
    this.#uniformView = new DataView(this.#uniformData);
    this.#empty = tensorOver(this.pool.acquire(256), [64]);
    device.lost.then((info) => {
      if (info.reason !== "destroyed") {
        this.#error ??= new DeviceLost(`The GPU device was lost: ${info.message || info.reason}`);
      }
    });
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      const memory = typeof GPUOutOfMemoryError !== "undefined" && error instanceof GPUOutOfMemoryError;
      this.#error ??= new Error(
        memory
          ? `The GPU is out of memory: ${error.message}`
          : `WebGPU refused an operation: ${error.message}`,
      );
    });
  }

  /** A short name for logs and figures: "llvmpipe (LLVM 15.0.6, 256 bits)". */
  get name(): string {
    return this.adapter.description || this.adapter.device || "unknown adapter";
  }

  /** Stands in where a kernel has an optional input that is not given. */
  get nothing(): Tensor {
    return this.#empty;
  }

  /** A temporary tensor with undefined content, given back by the innermost scope. */
  empty(shape: readonly number[], dtype: Dtype = "f32"): Tensor {
    return tensorOver(this.pool.scoped(byteLength(shape, dtype)), shape, dtype);
  }

  /** A tensor that lives until its buffer is released to the pool. */
  persistent(shape: readonly number[], dtype: Dtype = "f32"): Tensor {
    return tensorOver(this.pool.acquire(byteLength(shape, dtype)), shape, dtype);
  }

  /** Host values as a temporary tensor. */
  upload(values: HostArray, shape: readonly number[] = [values.length]): Tensor {
    const tensor = this.empty(shape, values instanceof Uint32Array ? "u32" : "f32");
    this.write(tensor, values);
    return tensor;
  }

  /** Overwrites a tensor from the host; recorded work that uses its buffer is submitted first. */
  write(tensor: Tensor, values: HostArray | Uint16Array<ArrayBuffer>): void {
    if (values.length !== sizeOf(tensor.shape)) {
      throw new RangeError(
        `Cannot write ${values.length} values into the shape (${tensor.shape.join(", ")})`,
      );
    }
    if (values.length === 0) return; // Deno 2.9.6 panics on an empty write
    this.submit(); // queue.writeBuffer overtakes what is recorded but not yet submitted
    const whole = values.byteLength % 4 === 0;
    const bytes = new Uint8Array(whole ? values.byteLength : values.byteLength + 2);
    if (!whole) bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    if (whole) this.device.queue.writeBuffer(tensor.buffer.gpu, tensor.offset, values);
    else this.device.queue.writeBuffer(tensor.buffer.gpu, tensor.offset, bytes);
  }

  /**
   * Records one dispatch. `sizes` fills the uniform in the kernel's order; a tensor may not be both input and output.
   * @throws RangeError when the bindings do not fit the kernel, InputError when one is beyond the device's limit
   */
  run(
    kernel: Kernel,
    sizes: Record<string, number>,
    inputs: readonly (Tensor | undefined)[],
    outputs: readonly (Tensor | undefined)[],
    grid: Grid,
    overrides: Record<string, number> = {},
  ): void {
    if (inputs.length !== kernel.inputs || outputs.length !== kernel.outputs) {
      throw new RangeError(
        `Cannot run "${kernel.name}": ${inputs.length} inputs and ${outputs.length} outputs, expected ${kernel.inputs} and ${kernel.outputs}`,
      );
    }
    const [x, y = 1, z = 1] = grid;
    if (x === 0 || y === 0 || z === 0) return;
    const pipeline = this.pipelines.get(kernel, overrides);
    const offset = this.#recorded * this.#slot;
    let position = offset;
    for (const name in kernel.sizes) {
      const value = sizes[name], type = kernel.sizes[name];
      if (value === undefined) throw new RangeError(`Cannot run "${kernel.name}": size "${name}" is missing`);
      if (type === "f32") this.#uniformView.setFloat32(position, value, true);
      else if (type === "i32") this.#uniformView.setInt32(position, value, true);
      else this.#uniformView.setUint32(position, value, true);
      position += 4;
    }
    const tensors = [...inputs, ...outputs];
    let key = "";
    for (const tensor of tensors) {
      const bound = tensor ?? this.#empty;
      key += `${bound.buffer.id}:${bound.offset}:${bound.bytes},`;
    }
    let group = pipeline.groups.get(key);
    if (!group) {
      if (pipeline.groups.size > 4096) pipeline.groups.clear();
      const entries: GPUBindGroupEntry[] = [{
        binding: 0,
        resource: { buffer: this.#uniforms, offset: 0, size: this.#slot },
      }];
      tensors.forEach((tensor, i) => {
        const { buffer, offset, bytes } = tensor ?? this.#empty;
        const size = i < kernel.panels ? PANEL_BYTES : Math.max(16, Math.ceil(bytes / 16) * 16);
        if (i >= kernel.panels && size > this.bindingLimit) {
          throw new InputError(
            `Cannot run "${kernel.name}" on a tensor of ${size} bytes: the device binds ${this.bindingLimit}; shorter samples or fewer tokens a pass help`,
          );
        }
        entries.push({
          binding: i + 1,
          resource: { buffer: buffer.gpu, offset, size },
        });
      });
      group = this.device.createBindGroup({ label: kernel.name, layout: pipeline.layout, entries });
      pipeline.groups.set(key, group);
    }
    const pass = this.#beginPass();
    pass.setPipeline(pipeline.gpu);
    pass.setBindGroup(0, group, [offset]);
    pass.dispatchWorkgroups(x, y, z);
    this.dispatches++;
    if (++this.#recorded >= SUBMIT_EVERY) this.submit();
  }

  #beginPass(): GPUComputePassEncoder {
    this.#encoder ??= this.device.createCommandEncoder();
    return this.#pass ??= this.#encoder.beginComputePass();
  }

  #endPass(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    return this.#encoder ??= this.device.createCommandEncoder();
  }

  /** Sends the recorded work to the device without waiting for it. */
  submit(): void {
    if (!this.#encoder) return;
    const encoder = this.#endPass();
    if (this.#recorded) {
      this.device.queue.writeBuffer(this.#uniforms, 0, this.#uniformData, 0, this.#recorded * this.#slot);
    }
    this.device.queue.submit([encoder.finish()]);
    this.#encoder = undefined;
    this.#recorded = 0;
  }

  /** Records zeros over a tensor. */
  zero(tensor: Tensor): void {
    this.#endPass().clearBuffer(tensor.buffer.gpu, tensor.offset, Math.ceil(tensor.bytes / 4) * 4);
  }

  /** Records a copy of all bytes of `from` over `to`. */
  copy(from: Tensor, to: Tensor): void {
    this.#endPass().copyBufferToBuffer(from.buffer.gpu, from.offset, to.buffer.gpu, to.offset, from.bytes);
  }

  /**
   * Reads tensors back in one wait (about 10 ms even when nothing is left to do: read at most once a step).
   * The copies are recorded at once: later work may overwrite the tensors. bf16 and nf4 come as raw words. What is more
   * than a buffer holds takes several waits.
   * @throws DeviceLost, or Error when anything since the last check failed
   */
  async read(...tensors: Tensor[]): Promise<HostArray[]> {
    const starts: number[] = [];
    let bytes = 0;
    for (const tensor of tensors) {
      starts.push(bytes);
      bytes += Math.ceil(tensor.bytes / 256) * 256;
    }
    if (bytes > this.pool.largest && tensors.length > 1) {
      const half = tensors.length >> 1;
      return [...await this.read(...tensors.slice(0, half)), ...await this.read(...tensors.slice(half))];
    }
    const staging = this.#takeStaging(bytes);
    const encoder = this.#endPass();
    tensors.forEach((t, i) =>
      encoder.copyBufferToBuffer(t.buffer.gpu, t.offset, staging, starts[i], Math.ceil(t.bytes / 4) * 4)
    );
    this.submit();
    await staging.mapAsync(1).catch((error) => {
      this.#error ??= new DeviceLost(`The GPU did not finish its work: ${error.message}`);
    });
    await this.check();
    const mapped = staging.getMappedRange();
    const out = tensors.map((tensor, i) => {
      const part = mapped.slice(starts[i], starts[i] + Math.ceil(tensor.bytes / 4) * 4);
      return tensor.dtype === "f32" ? new Float32Array(part) : new Uint32Array(part);
    });
    staging.unmap();
    this.#staging.get(staging.size)!.push(staging);
    return out;
  }

  #takeStaging(bytes: number): GPUBuffer {
    const size = Math.min(2 ** Math.ceil(Math.log2(Math.max(4096, bytes))), this.pool.largest);
    let list = this.#staging.get(size);
    if (!list) this.#staging.set(size, list = []);
    return list.pop() ?? this.device.createBuffer({ label: "read-back", size, usage: 0x01 | 0x08 });
  }

  /** Waits until the device has done what it was given; it keeps a copy of written values until then. */
  async settle(): Promise<void> {
    await this.read(this.#empty);
  }

  /** Waits for compilations and throws what went wrong so far. */
  async check(): Promise<void> {
    await Promise.all(this.pipelines.pending.splice(0));
    if (this.#error) throw this.#error;
  }

  /** Marks the device as failed: the next check throws. Used where a loss is only simulated. */
  fail(error: Error): void {
    this.#error ??= error;
  }

  /** Destroys the device and everything on it. */
  close(): void {
    this.device.destroy();
  }
}

/** The adapters that the browser interface can reach, without duplicates: usually one. */
export async function listAdapters(): Promise<GPUAdapter[]> {
  const requests: GPURequestAdapterOptions[] = [
    { powerPreference: "high-performance" },
    { powerPreference: "low-power" },
    { forceFallbackAdapter: true },
  ];
  const adapters: GPUAdapter[] = [];
  for (const request of requests) {
    const adapter = await navigator.gpu?.requestAdapter(request);
    if (
      adapter &&
      !adapters.some(({ info }) =>
        info.description === adapter.info.description && info.device === adapter.info.device
      )
    ) {
      adapters.push(adapter);
    }
  }
  return adapters;
}

/**
 * Opens a device with the adapter's own limits.
 * @param choice part of an adapter's name, or its index in `listAdapters`
 * @throws InputError when there is no adapter, or none of that name
 */
export async function openGpu(choice?: string | number): Promise<Gpu> {
  const adapters = await listAdapters();
  if (adapters.length === 0) {
    throw new InputError(
      'No WebGPU adapter: install a Vulkan driver, on Debian "apt-get install -y libvulkan1 mesa-vulkan-drivers"',
    );
  }
  const index = choice === undefined || choice === "" ? 0 : Number(choice);
  const adapter = Number.isInteger(index)
    ? adapters[index]
    : adapters.find(({ info }) =>
      `${info.description} ${info.vendor} ${info.device}`.toLowerCase().includes(String(choice).toLowerCase())
    );
  if (!adapter) {
    const names = adapters.map(({ info }, i) => `${i} "${info.description}"`).join(", ");
    throw new InputError(`No WebGPU adapter "${choice}": there are ${names}`);
  }
  const { limits } = adapter;
  const device = await adapter.requestDevice({
    requiredLimits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
    },
  });
  return new Gpu(device, adapter.info);
}
