/**
 * Holds every kernel against its f64 reference on this device: results, and gradients by central differences.
 * Each check stands alone: one that fails, or does not even compile, is reported and the rest go on.
 */
import { messageOf } from "../core/errors.ts";
import { dequantizeNf4, NF4_BLOCK, nf4CodeBytes, packScales, quantizeNf4 } from "../core/formats/nf4.ts";
import { toBf16, toF32 } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { Gpu } from "./device.ts";
import { type CaseInput, type KernelCase, kernelCases } from "./doctor_cases.ts";
import { nf4Bytes, nf4Over, nf4Writer } from "./nf4.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/** Allowed relative error of a result, and of gradients along random directions. */
const FORWARD = 1e-5, GRADIENT = 1e-3, DIRECTIONS = 4, STEP = 1e-5;

export interface KernelCheck {
  name: string;
  ok: boolean;
  /** Relative error of the result and of all gradients; null where there is none or nothing came back. */
  forward: number | null;
  gradient: number | null;
  /** Why nothing came back: a compiler's message with kernel and line, or the device's. */
  failure?: string;
}

/**
 * Runs the cases on this device, one after another; a case that throws is reported, not thrown.
 * Gradients are held against central differences of the f64 reference.
 */
export async function checkKernels(
  gpu: Gpu,
  cases: readonly KernelCase[] = kernelCases(),
): Promise<KernelCheck[]> {
  const checks: KernelCheck[] = [];
  let own = gpu;
  for (const kernelCase of cases) {
    let check: KernelCheck;
    try {
      check = { name: kernelCase.name, ...await compare(own, kernelCase) };
    } catch (thrown) {
      check = { name: kernelCase.name, ok: false, forward: null, gradient: null, failure: messageOf(thrown) };
      own = new Gpu(gpu.device, gpu.adapter); // errors stick to the old one
    }
    checks.push(check);
  }
  return checks;
}

async function compare(gpu: Gpu, kernelCase: KernelCase): Promise<Omit<KernelCheck, "name">> {
  using _scope = gpu.pool.scope();
  const random = new Random(1, `doctor/${kernelCase.name}`);
  const drawn = kernelCase.inputs.map((input) => draw(input, random));
  const values = kernelCase.inputs.map((input, k) => held(input, drawn[k]));
  const truth = kernelCase.reference(values);
  const dy = truth.map(() => kernelCase.unitDy ? 1 : Math.fround(random.normal()));

  const tape = new Tape(gpu);
  const tensors = kernelCase.inputs.map((input, k) => place(gpu, input, drawn[k]));
  const y = kernelCase.gpu(tape, tensors);
  if (tape.touched) tape.backward(y, gpu.upload(Float32Array.from(dy), y.shape));
  const wanted = kernelCase.inputs.flatMap(({ kind }, k) => kind === "constant" ? [] : [k]);
  const grads = wanted.map((k) => {
    const grad = tensors[k].grad ?? tape.gradOf(tensors[k]);
    if (!grad) throw new Error(`Cannot check "${kernelCase.name}": input ${k} got no gradient`);
    return grad;
  });
  const [result, ...gradients] = await gpu.read(y, ...grads);

  const ours: number[] = [], theirs: number[] = [];
  wanted.forEach((k, i) => {
    for (let d = 0; d < DIRECTIONS; d++) {
      const direction = values[k].map(() => random.normal());
      const along = (step: number) => {
        const moved = values.map((v, j) => j === k ? v.map((value, n) => value + step * direction[n]) : v);
        return dot(kernelCase.reference(moved), dy);
      };
      ours.push(dot(direction, gradients[i]));
      theirs.push((along(STEP) - along(-STEP)) / (2 * STEP));
    }
  });
  const forward = relativeError(result, truth);
  const gradient = wanted.length ? relativeError(ours, theirs) : null;
  return { ok: forward <= FORWARD && (gradient ?? 0) <= GRADIENT, forward, gradient };
}

function draw({ shape, positive }: CaseInput, random: Random): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: sizeOf(shape) }, () => {
    const value = random.normal();
    return positive ? value * value : value;
  });
}

/** Values rounded as the device will hold them. */
function held({ type = "f32" }: CaseInput, values: Float32Array): Float64Array {
  if (type === "f32") return Float64Array.from(values);
  if (type === "bf16") {
    return Float64Array.from(toF32(new Uint8Array(toBf16(values).buffer), "BF16"));
  }
  const codes = new Uint8Array(nf4CodeBytes(values.length));
  const absmax = new Float32Array(Math.ceil(values.length / NF4_BLOCK));
  quantizeNf4(values, codes, absmax);
  return Float64Array.from(dequantizeNf4(codes, packScales(absmax), values.length));
}

function place(
  gpu: Gpu,
  { shape, kind, type = "f32" }: CaseInput,
  values: Float32Array<ArrayBuffer>,
): Tensor {
  if (type === "nf4") {
    const tensor = nf4Over(gpu.pool.scoped(nf4Bytes(shape)), shape), writer = nf4Writer(gpu, tensor);
    writer.write(values);
    writer.finish();
    return tensor;
  }
  const tensor = gpu.empty(shape, type);
  gpu.write(tensor, type === "bf16" ? toBf16(values) : values);
  tensor.requiresGrad = kind !== "constant";
  if (kind === "parameter") {
    tensor.grad = gpu.empty(shape);
    gpu.zero(tensor.grad);
  }
  return tensor;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** ||ours - theirs|| / ||theirs||; infinite where a value is no number. */
function relativeError(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  let difference = 0, norm = 0;
  for (let i = 0; i < theirs.length; i++) {
    difference += (ours[i] - theirs[i]) ** 2;
    norm += theirs[i] ** 2;
  }
  const error = Math.sqrt(difference / (norm || 1));
  return Number.isNaN(error) ? Infinity : error;
}
