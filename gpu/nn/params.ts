/**
 * Parameters and where they live: a module tree declares names and shapes without a device, `place` allocates them.
 * Frozen ones get a buffer each (f32 or packed bf16); trained ones share slabs with their gradients and moments.
 */
import { InputError } from "../../core/errors.ts";
import { sizeOf } from "../../core/shape.ts";
import type { Gpu } from "../device.ts";
import { type Tensor, tensorOver } from "../tensor.ts";

/** One tensor of a model, under its Hugging Face (or peft) name. */
export class Param {
  /** Learning-rate group, set for trained parameters only. */
  group?: string;
  #tensor?: Tensor;

  constructor(
    readonly name: string,
    readonly shape: readonly number[],
    /** False for what a checkpoint holds but this model never computes with; it is counted and not loaded. */
    readonly used = true,
  ) {}

  get trainable(): boolean {
    return this.group !== undefined;
  }

  get placed(): boolean {
    return this.#tensor !== undefined;
  }

  /** @throws Error before the parameter was placed */
  get tensor(): Tensor {
    if (!this.#tensor) throw new Error(`Parameter "${this.name}" was not placed on a device`);
    return this.#tensor;
  }

  set tensor(tensor: Tensor) {
    this.#tensor = tensor;
  }
}

/** Every parameter and linear layer that a module tree declared, in order. */
export class Registry {
  readonly params = new Map<string, Param>();
  readonly linears = new Map<string, Linear>();
  /** Names that stand for another parameter: tied embeddings. */
  readonly ties = new Map<string, string>();
  /** Parameters that start as another one's values where a checkpoint does not hold them: untied heads. */
  readonly copies = new Map<string, string>();

  get root(): Names {
    return new Names(this, "");
  }

  /** All values, tied ones once. */
  get count(): number {
    let total = 0;
    for (const { shape } of this.params.values()) total += sizeOf(shape);
    return total;
  }
}

/** A place in the module tree: `names.child("mlp").linear("up_proj", F, C)`. */
export class Names {
  constructor(readonly registry: Registry, readonly path: string) {}

  child(name: string | number): Names {
    return new Names(this.registry, this.#join(String(name)));
  }

  param(name: string, shape: readonly number[], used = true): Param {
    const param = new Param(this.#join(name), shape, used);
    if (this.registry.params.has(param.name)) throw new Error(`Parameter "${param.name}" is declared twice`);
    this.registry.params.set(param.name, param);
    return param;
  }

  linear(
    name: string,
    out: number,
    inner: number,
    options: { bias?: boolean; used?: boolean; bypassed?: boolean } = {},
  ): Linear {
    const at = this.child(name);
    const layer: Linear = {
      name: at.path,
      bypassed: options.bypassed,
      weight: at.param("weight", [out, inner], options.used),
      bias: options.bias ? at.param("bias", [out], options.used) : undefined,
    };
    this.registry.linears.set(at.path, layer);
    return layer;
  }

  #join(name: string): string {
    return this.path ? `${this.path}.${name}` : name;
  }
}

/** A linear layer and the adapter beside it, if one was attached. */
export interface Linear {
  readonly name: string;
  readonly weight: Param; // (N, K)
  readonly bias?: Param; // (N)
  /** Its weight is read past the layer, so that an adapter peft puts there has no effect: torch's MultiheadAttention. */
  readonly bypassed?: boolean;
  adapter?: { a: Param; b: Param; scaling: number; dropout: number };
}

/** A flat stretch of trained parameters with one learning rate: what the optimiser updates in one dispatch. */
export interface Slab {
  readonly group: string;
  /** Whether AdamW's decay reaches its parameters. */
  readonly decays: boolean;
  readonly params: Param[];
  /** Element offset of each parameter. */
  readonly offsets: number[];
  readonly param: Tensor;
  readonly grad: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

/** Makes each parameter and its gradient lie in these slabs, of which there may be several sets. */
export function pointInto(slabs: readonly Slab[]): void {
  for (const { params, offsets, param, grad } of slabs) {
    params.forEach((member, i) => {
      const tensor = tensorOver(param.buffer, member.shape, "f32", offsets[i] * 4);
      tensor.requiresGrad = true;
      tensor.grad = tensorOver(grad.buffer, member.shape, "f32", offsets[i] * 4);
      member.tensor = tensor;
    });
  }
}

/** Elements between two parameters of a slab start at multiples of 256 bytes, as bindings must. */
const ALIGN = 64;

/**
 * Allocates the trained parameters in slabs, zeroed, and points each parameter and its gradient into them.
 * @param decays sets apart what decay spares; without it everything decays
 * @throws InputError for a parameter that no buffer of the device holds
 */
export function placeTrained(
  gpu: Gpu,
  params: readonly Param[],
  decays: (param: Param) => boolean = () => true,
): Slab[] {
  const limit = Math.floor(gpu.bindingLimit / 4 / ALIGN) * ALIGN;
  const slabs: Slab[] = [];
  const parts = [true, false].flatMap((decayed) => {
    const chosen = params.filter((param) => decays(param) === decayed);
    return [...new Set(chosen.map(({ group }) => group!))].map((group) => ({ group, decayed, chosen }));
  });
  for (const { group, decayed, chosen } of parts) {
    let members: Param[] = [], offsets: number[] = [], size = 0;
    const close = () => {
      if (!members.length) return;
      const [param, grad, m, v] = Array.from({ length: 4 }, () => {
        const tensor = gpu.persistent([size]);
        gpu.zero(tensor);
        return tensor;
      });
      const slab = { group, decays: decayed, params: members, offsets, param, grad, m, v };
      slabs.push(slab);
      pointInto([slab]);
      [members, offsets, size] = [[], [], 0];
    };
    for (const member of chosen.filter((param) => param.group === group)) {
      const need = Math.ceil(sizeOf(member.shape) / ALIGN) * ALIGN;
      if (4 * need > gpu.pool.largest) {
        throw new InputError(
          `Cannot train "${member.name}": it takes ${
            4 * need
          } bytes, the device's largest buffer has ${gpu.pool.largest}`,
        );
      }
      if (size + need > limit) close(); // one beyond the limit has a slab of its own, which ops cut
      members.push(member);
      offsets.push(size);
      size += need;
    }
    close();
  }
  return slabs;
}
