/**
 * Low-rank adapters beside linear layers, by peft's rules and under peft's names; A starts Kaiming-uniform, B at zero.
 * Refuses a target that matches no module, and an adapter file that does not fit the modules.
 */
import { InputError } from "../../core/errors.ts";
import { adapterKey, isTarget, type LoraConfig } from "../../core/formats/peft.ts";
import { Random } from "../../core/random.ts";
import { sizeOf } from "../../core/shape.ts";
import type { Gpu } from "../device.ts";
import { Param, type Registry } from "./params.ts";

/** Declares A and B beside every targeted layer and returns them in order. @throws InputError when nothing matches */
export function attachLora(registry: Registry, config: LoraConfig, group = "lora"): Param[] {
  const { r, lora_alpha, lora_dropout: dropout } = config;
  const scaling = config.use_rslora ? lora_alpha / Math.sqrt(r) : lora_alpha / r;
  const params: Param[] = [];
  for (const layer of registry.linears.values()) {
    if (!layer.weight.used || !isTarget(layer.name, config.target_modules)) continue;
    const [N, K] = layer.weight.shape;
    const a = new Param(adapterKey(layer.name, "A"), [r, K]),
      b = new Param(adapterKey(layer.name, "B"), [N, r]);
    a.group = b.group = group;
    layer.adapter = { a, b, scaling, dropout };
    params.push(a, b);
  }
  if (params.length === 0) {
    throw new InputError(
      `Cannot attach adapters: target_modules ${
        JSON.stringify(config.target_modules)
      } matches no linear layer`,
    );
  }
  return params;
}

/** peft's start: A uniform within 1 / sqrt(K) (Kaiming with a = sqrt(5)), B zero; every matrix has its own stream. */
export function initLora(gpu: Gpu, params: readonly Param[], seed: number): void {
  for (const { name, shape, tensor } of params) {
    const values = new Float32Array(sizeOf(shape));
    if (name.endsWith(".lora_A.weight")) {
      const random = new Random(seed, `lora/${name}`), bound = 1 / Math.sqrt(shape[1]);
      for (let i = 0; i < values.length; i++) values[i] = random.uniform(-bound, bound);
    }
    gpu.write(tensor, values);
  }
}

/** Copies a read adapter into placed parameters. @throws InputError naming a key that is missing, extra or misshapen */
export function loadLora(
  gpu: Gpu,
  params: readonly Param[],
  tensors: Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>,
): void {
  const extra = [...tensors.keys()].filter((key) => !params.some(({ name }) => name === key));
  if (extra.length) {
    throw new InputError(`Cannot load the adapter: unexpected "${extra.slice(0, 5).join('", "')}"`);
  }
  for (const { name, shape, tensor } of params) {
    const found = tensors.get(name);
    if (!found) throw new InputError(`Cannot load the adapter: missing "${name}"`);
    if (found.shape.join() !== shape.join()) {
      throw new InputError(
        `Cannot load the adapter: "${name}" is (${found.shape.join(", ")}), expected (${shape.join(", ")})`,
      );
    }
    gpu.write(tensor, found.data);
  }
}
