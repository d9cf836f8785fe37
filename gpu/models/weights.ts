/**
 * The strict loader: every tensor of a checkpoint goes to exactly one parameter, tensor by tensor, never all in memory.
 * Refuses missing, unexpected and misshapen tensors with one list.
 */
import { InputError } from "../../core/errors.ts";
import type { WeightSource } from "../../core/formats/checkpoint.ts";
import { toBf16 } from "../../core/formats/safetensors.ts";
import { sizeOf } from "../../core/shape.ts";
import type { Gpu } from "../device.ts";
import type { Param } from "../nn/params.ts";
import type { Model } from "./model.ts";

/** f32 keeps every bit; bf16 packs frozen matrices, two values a word. */
export type WeightType = "f32" | "bf16";

/** Loads a checkpoint into the model's parameters; trained ones must have been placed. */
export async function loadWeights(
  gpu: Gpu,
  model: Model,
  source: WeightSource,
  type: WeightType = "f32",
): Promise<void> {
  const found = matchNames(model, source);
  for (const param of model.registry.params.values()) {
    const name = found.get(param.name);
    if (!name || !isWanted(param)) continue;
    const values = await source.f32(name);
    writeParam(gpu, param, values, type);
  }
  await gpu.check();
}

/** Writes one parameter, giving a frozen one its buffer. */
export function writeParam(
  gpu: Gpu,
  param: Param,
  values: Float32Array<ArrayBuffer>,
  type: WeightType = "f32",
): void {
  if (param.trainable) return gpu.write(param.tensor, values);
  const packed = type === "bf16" && param.shape.length > 1 && sizeOf(param.shape) % 2 === 0;
  const tensor = gpu.persistent(param.shape, packed ? "bf16" : "f32");
  gpu.write(tensor, packed ? toBf16(values) : values);
  param.tensor = tensor;
}

/** What never computes is loaded only where modules_to_save keeps it with the rest of its module. */
const isWanted = ({ used, trainable }: Param) => used || trainable;

/** Parameter name -> tensor name. @throws InputError listing what is missing, unexpected or of another shape */
function matchNames(model: Model, source: WeightSource): Map<string, string> {
  const { params, ties, copies } = model.registry;
  const found = new Map<string, string>(), problems: string[] = [];
  for (const name of source.names()) {
    const target = model.rename(name);
    if (target === undefined) continue;
    const param = params.get(target);
    if (!param) {
      if (!ties.has(target)) problems.push(`unexpected "${name}"`);
      continue;
    }
    const shape = source.shape(name);
    if (shape.join() !== param.shape.join()) {
      problems.push(`tensor "${name}" is (${shape.join(", ")}), expected (${param.shape.join(", ")})`);
    }
    if (found.has(target)) problems.push(`"${name}" and "${found.get(target)}" are the same parameter`);
    found.set(target, name);
  }
  for (const [name, source] of copies) {
    if (!found.has(name) && found.has(source)) found.set(name, found.get(source)!);
  }
  for (const param of params.values()) {
    if (isWanted(param) && !found.has(param.name)) problems.push(`missing "${param.name}"`);
  }
  if (problems.length) {
    const shown = problems.slice(0, 12).join("; "),
      more = problems.length > 12 ? `; and ${problems.length - 12} more` : "";
    throw new InputError(`Cannot load "${source.name}": ${shown}${more}`);
  }
  return found;
}
