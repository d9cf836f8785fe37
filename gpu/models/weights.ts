/**
 * The strict loader: every tensor of a checkpoint goes to exactly one parameter, slice by slice, never whole in memory.
 * Refuses missing, unexpected and misshapen tensors with one list.
 */
import { InputError } from "../../core/errors.ts";
import type { WeightSource } from "../../core/formats/checkpoint.ts";
import { toBf16 } from "../../core/formats/safetensors.ts";
import { sizeOf } from "../../core/shape.ts";
import type { Gpu } from "../device.ts";
import { nf4Bytes, nf4Over, type Nf4Writer, nf4Writer } from "../nf4.ts";
import type { Param } from "../nn/params.ts";
import { byteLength, tensorOver } from "../tensor.ts";
import type { Model } from "./model.ts";

/** How frozen weights lie on the device. Trained ones are f32 always. */
export const WEIGHT_TYPES = ["f32", "bf16", "nf4"] as const;
export type WeightType = typeof WEIGHT_TYPES[number];

/** Values read, converted and written at a time. */
const SLICE = 2 ** 20;
/**
 * Bytes handed to the device before it is waited for: it keeps a copy of each write until then, and many copies at once
 * leave holes among the weights in its memory.
 */
export const PENDING_BYTES = 8 * 2 ** 20;

/**
 * How a frozen parameter lies on the device: f32 keeps every bit; bf16 rounds what is a matrix; nf4 takes the matrices
 * of linear layers, the vision tower's included and the output head not, and leaves the rest as bf16 does.
 */
export function frozenDtype(param: Param, linears: ReadonlySet<Param>, type: WeightType): WeightType {
  if (type === "nf4" && linears.has(param)) return "nf4";
  const packable = param.shape.length > 1 && sizeOf(param.shape) % 2 === 0;
  return type !== "f32" && packable ? "bf16" : "f32";
}

/** The weights of a model's linear layers. */
export function linearWeights({ registry }: Pick<Model, "registry">): Set<Param> {
  return new Set([...registry.linears.values()].map(({ weight }) => weight));
}

/**
 * Loads a checkpoint into the model's parameters, `slice` values at a time, a multiple of 512; trained ones must have
 * been placed. @throws InputError for tensors that do not match, and for a matrix that no buffer of the device holds
 */
export async function loadWeights(
  gpu: Gpu,
  model: Model,
  source: WeightSource,
  type: WeightType = "f32",
  slice = SLICE,
): Promise<void> {
  const found = matchNames(model, source), linears = linearWeights(model);
  let pending = 0;
  for (const param of model.registry.params.values()) {
    const name = found.get(param.name);
    if (!name || !isWanted(param)) continue;
    const dtype = frozenDtype(param, linears, type), size = sizeOf(param.shape);
    const writer = openWriter(gpu, param, dtype);
    for (let from = 0; from < size; from += slice) {
      const values = await source.f32Range(name, from, Math.min(size, from + slice));
      writer.write(values);
      if ((pending += byteLength([values.length], dtype)) < PENDING_BYTES) continue;
      await gpu.settle();
      pending = 0;
    }
    writer.finish();
  }
  await gpu.check();
}

/** Writes one parameter as f32, giving a frozen one its buffer. */
export function writeParam(gpu: Gpu, param: Param, values: Float32Array<ArrayBuffer>): void {
  openWriter(gpu, param, "f32").write(values);
}

/** Gives a frozen parameter a buffer with undefined content. @throws InputError naming one that is too large */
export function placeFrozen(gpu: Gpu, param: Param, dtype: WeightType): void {
  const bytes = dtype === "nf4" ? nf4Bytes(param.shape) : byteLength(param.shape, dtype);
  if (bytes > gpu.pool.largest) {
    throw new InputError(
      `Cannot place "${param.name}": it takes ${bytes} bytes as ${dtype}, the device's largest buffer has ${gpu.pool.largest}`,
    );
  }
  param.tensor = dtype === "nf4"
    ? nf4Over(gpu.pool.acquire(bytes), param.shape)
    : gpu.persistent(param.shape, dtype);
}

/** Gives a frozen parameter its buffer and takes its values in order. @throws InputError by name */
function openWriter(gpu: Gpu, param: Param, dtype: WeightType): Pick<Nf4Writer, "finish"> & {
  write(values: Float32Array<ArrayBuffer>): void;
} {
  if (!param.trainable) placeFrozen(gpu, param, dtype);
  const { tensor } = param;
  if (tensor.nf4) return nf4Writer(gpu, tensor);
  const width = tensor.dtype === "bf16" ? 2 : 4;
  let position = tensor.offset;
  return {
    write(values) {
      const part = tensorOver(tensor.buffer, [values.length], tensor.dtype, position);
      gpu.write(part, tensor.dtype === "bf16" ? toBf16(values) : values);
      position += values.length * width;
    },
    finish: () => {},
  };
}

/** What never computes is loaded only where modules_to_save keeps it with the rest of its module. */
export const isWanted = ({ used, trainable }: Param) => used || trainable;

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
