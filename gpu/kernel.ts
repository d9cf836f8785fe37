/**
 * A kernel: one entry point of a `.wgsl` file with its sizes and bindings. Pipelines are compiled once per set of
 * overrides, inside an error scope; a shader that does not compile is reported with its name, line and source.
 */
export type Scalar = "u32" | "f32" | "i32";

/**
 * Bindings are positional in group 0: 0 is the uniform of sizes (in the order written here, 4 bytes each),
 * then the inputs (read only), then the outputs (read and write). The first `panels` inputs are bound as uniform
 * buffers of PANEL_BYTES: software Vulkan reads those ten times faster than storage buffers.
 */
export interface Kernel {
  readonly name: string;
  readonly source: string;
  readonly entry: string;
  readonly sizes: Readonly<Record<string, Scalar>>;
  readonly inputs: number;
  readonly outputs: number;
  readonly panels: number;
}

/** The window of a tensor that a panel binding shows: the uniform binding limit of every adapter. */
export const PANEL_BYTES = 65536;

/** Names a kernel: `kernel("norm.rmsnorm", source, "forward", { T: "u32", C: "u32", eps: "f32" }, 2, 2)`. */
export function kernel(
  name: string,
  source: string,
  entry: string,
  sizes: Record<string, Scalar>,
  inputs: number,
  outputs: number,
  panels = 0,
): Kernel {
  return { name: `${name}.${entry}`, source, entry, sizes, inputs, outputs, panels };
}

export interface Pipeline {
  readonly gpu: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly groups: Map<string, GPUBindGroup>;
}

/** Compiled pipelines of one device. */
export class Pipelines {
  #modules = new Map<string, GPUShaderModule>();
  #layouts = new Map<string, { layout: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  #pipelines = new Map<Kernel, Map<string, Pipeline>>();
  /** Compilations whose error scope has not been read yet; `check` of the device awaits them. */
  readonly pending: Promise<void>[] = [];

  constructor(readonly device: GPUDevice) {}

  get(kernel: Kernel, overrides: Record<string, number>): Pipeline {
    let variants = this.#pipelines.get(kernel);
    if (!variants) this.#pipelines.set(kernel, variants = new Map());
    let key = "";
    for (const name in overrides) key += `${name}=${overrides[name]};`;
    let pipeline = variants.get(key);
    if (!pipeline) variants.set(key, pipeline = this.#compile(kernel, overrides));
    return pipeline;
  }

  /** Drops cached bind groups, which would keep destroyed buffers alive. */
  forgetGroups(): void {
    for (const variants of this.#pipelines.values()) {
      for (const { groups } of variants.values()) groups.clear();
    }
  }

  #compile(kernel: Kernel, overrides: Record<string, number>): Pipeline {
    const { device } = this;
    device.pushErrorScope("validation");
    let module = this.#modules.get(kernel.source);
    if (!module) {
      this.#modules.set(
        kernel.source,
        module = device.createShaderModule({ label: kernel.name, code: kernel.source }),
      );
    }
    const { layout, pipeline: pipelineLayout } = this.#layout(kernel);
    const gpu = device.createComputePipeline({
      label: kernel.name,
      layout: pipelineLayout,
      compute: { module, entryPoint: kernel.entry, constants: overrides },
    });
    const compiled = device.popErrorScope().then((error) => {
      if (error) throw new Error(compileMessage(kernel, overrides, error.message));
    });
    compiled.catch(() => {}); // `check` throws it; until then it must not end the process
    this.pending.push(compiled);
    return { gpu, layout, groups: new Map() };
  }

  #layout({ inputs, outputs, panels }: Kernel): { layout: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    const key = `${panels},${inputs},${outputs}`;
    const known = this.#layouts.get(key);
    if (known) return known;
    const entries: GPUBindGroupLayoutEntry[] = [{
      binding: 0,
      visibility: 4,
      buffer: { type: "uniform", hasDynamicOffset: true },
    }];
    for (let i = 1; i <= inputs + outputs; i++) {
      const type = i <= panels ? "uniform" : i <= inputs ? "read-only-storage" : "storage";
      entries.push({ binding: i, visibility: 4, buffer: { type } });
    }
    const layout = this.device.createBindGroupLayout({ label: key, entries });
    const made = {
      layout,
      pipeline: this.device.createPipelineLayout({ label: key, bindGroupLayouts: [layout] }),
    };
    this.#layouts.set(key, made);
    return made;
  }
}

/** The driver's message with the source lines it points at. */
function compileMessage(kernel: Kernel, overrides: Record<string, number>, message: string): string {
  const line = Number(/(?:wgsl:|┌─ .*?:)(\d+)/.exec(message)?.[1] ?? NaN);
  const lines = kernel.source.split("\n");
  const shown = Number.isFinite(line)
    ? lines.slice(Math.max(0, line - 3), line + 2).map((text, i) => `${Math.max(1, line - 2) + i}: ${text}`)
      .join("\n")
    : "";
  return `Cannot compile kernel "${kernel.name}" with ${JSON.stringify(overrides)}: ${message}\n${shown}`
    .trimEnd();
}
