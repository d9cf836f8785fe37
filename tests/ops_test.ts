/**
 * Every op against its f64 reference, row by row (op_rows/): forward, gradients by central differences of the
 * reference, frozen inputs, equal bits on a second run. Refuses an op of gpu/ops/ without a row; needs an adapter.
 */
import assert from "node:assert/strict";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { type Gpu, type HostArray, openGpu } from "../gpu/device.ts";
import { type Backward, Tape } from "../gpu/tape.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { allclose, relativeError } from "./check.ts";
import { hardwareTwin } from "./hardware_twin.ts";
import type { Input, OpRow, Row } from "./op_rows/row.ts";

const FORWARD = 1e-5, GRADIENT = 1e-3, DIRECTIONS = 4, STEP = 1e-5;
/** Below this share of ||dy|| a gradient is rounding noise in f32 and is compared absolutely. */
const NOISE = 1e-3;

const gpu = await openGpu();
const asHardware = hardwareTwin(gpu);

const rows: Row[] = [];
for await (const { name } of Deno.readDir(new URL("op_rows/", import.meta.url))) {
  if (name.endsWith(".ts") && name !== "row.ts") rows.push(...(await import(`./op_rows/${name}`)).rows);
}

Deno.test("every exported op has a row", async () => {
  const named = new Set(rows.flatMap(({ op }) => op));
  const missing: string[] = [];
  for await (const { name } of Deno.readDir(new URL("../gpu/ops/", import.meta.url))) {
    if (!name.endsWith(".ts")) continue;
    for (const [op, value] of Object.entries(await import(`../gpu/ops/${name}`))) {
      if (typeof value === "function" && !named.has(op)) missing.push(`${name}: ${op}`);
    }
  }
  assert.deepEqual(missing, []);
});

for (const row of rows) {
  const ops = [row.op].flat().join(", ");
  for (const device of row.tuned ? [gpu, asHardware] : [gpu]) {
    Deno.test(`${ops} ${row.name}${device === gpu ? "" : ", as hardware"}`, async () => {
      using _scope = device.pool.scope();
      if ("check" in row) await row.check(device);
      else await compare(device, row);
      await device.check();
    });
  }
}

/** Fails an op that computes a gradient nobody asked for; handing on dy itself is free. */
class WatchingTape extends Tape {
  override record(output: Tensor, inputs: readonly Tensor[], backward: Backward): Tensor {
    return super.record(output, inputs, (dy) => {
      const grads = backward(dy);
      inputs.forEach((input, k) => {
        const idle = grads[k] && !input.requiresGrad && grads[k].buffer !== dy.buffer;
        assert(!idle, `the gradient of frozen input ${k} was computed`);
      });
      return grads;
    });
  }
}

async function compare(gpu: Gpu, row: OpRow): Promise<void> {
  const random = new Random(1, `${row.op}/${row.name}`);
  const values = row.inputs.map((input) => draw(input, random));
  const truth = row.reference(values);
  const dy = Float64Array.from(truth, () => row.unitDy ? 1 : Math.fround(random.normal()));
  const differentiable = row.inputs.flatMap(({ kind }, k) => kind === "constant" ? [] : [k]);

  // All wanted, twice; then each alone; then none: everything is read back in one wait.
  const wanted = [differentiable, differentiable, ...differentiable.map((k) => [k]), []];
  const runs = wanted.map((wants) => start(gpu, row, values, dy, wants));
  const arrays = await gpu.read(...runs.flatMap(({ y, grads }) => [y, ...grads.values()]));
  let next = 0;
  const results = runs.map(({ grads }) => ({
    y: arrays[next++],
    grads: new Map([...grads.keys()].map((k) => [k, arrays[next++]] as [number, HostArray])),
  }));

  for (const { y } of results) allclose("forward", y, truth, row.tolerance ?? FORWARD);
  const [first, second, ...others] = results;
  assert(sameBits(first.y, second.y), "two runs differ in the forward");
  for (const k of differentiable) {
    assert(
      sameBits(first.grads.get(k)!, second.grads.get(k)!),
      `two runs differ in the gradient of input ${k}`,
    );
    const checked = numericGradient(row, values, dy, k, random);
    checked(`gradient of input ${k}`, first.grads.get(k)!);
    const alone = others.find(({ grads }) => grads.size === 1 && grads.has(k))!;
    checked(`gradient of input ${k} alone`, alone.grads.get(k)!);
  }
}

/** Values of an input, rounded to its dtype. */
function draw({ shape, dtype, value }: Input, random: Random): Float64Array {
  return Float64Array.from({ length: sizeOf(shape) }, (_, i) => {
    const drawn = value(random, i);
    if (dtype === "u32") return drawn >>> 0;
    return dtype === "f32" ? Math.fround(drawn) : fromBits(toBf16(drawn) << 16);
  });
}

/** Records one forward and backward in which only the inputs `wants` need a gradient. */
function start(gpu: Gpu, row: OpRow, values: Float64Array[], dy: Float64Array, wants: number[]) {
  const tape = new WatchingTape(gpu);
  const tensors = row.inputs.map((input, k) => {
    const tensor = gpu.empty(input.shape, input.dtype);
    if (input.dtype === "bf16") gpu.write(tensor, Uint16Array.from(values[k], toBf16));
    else {gpu.write(
        tensor,
        input.dtype === "u32" ? Uint32Array.from(values[k]) : Float32Array.from(values[k]),
      );}
    tensor.requiresGrad = wants.includes(k);
    if (input.kind === "parameter" && tensor.requiresGrad) {
      tensor.grad = gpu.upload(new Float32Array(sizeOf(input.shape)).fill(PRESET), input.shape);
    }
    return tensor;
  });
  const y = row.gpu(tape, tensors);
  assert.equal(sizeOf(y.shape), dy.length, "the size of the result");
  assert.equal(tape.touched, wants.length > 0, "whether the tape was touched");
  const grads = new Map<number, Tensor>();
  if (wants.length) tape.backward(y, gpu.upload(Float32Array.from(dy), y.shape));
  tensors.forEach((tensor, k) => {
    const grad = row.inputs[k].kind === "parameter" ? tensor.grad : tape.gradOf(tensor);
    assert.equal(grad !== undefined, wants.includes(k), `whether input ${k} got a gradient`);
    if (grad) grads.set(k, grad);
  });
  return { y, grads };
}

/** What a parameter's gradient holds before the backward, which must add to it. */
const PRESET = 0.5;

/** Directional derivatives of <dy, reference> along random directions, as a check of a whole gradient. */
function numericGradient(row: OpRow, values: Float64Array[], dy: Float64Array, k: number, random: Random) {
  const preset = row.inputs[k].kind === "parameter" ? PRESET : 0;
  const directions = Array.from({ length: DIRECTIONS }, () => values[k].map(() => random.normal()));
  const along = (direction: Float64Array, step: number) => {
    const moved = values.map((v, i) => i === k ? v.map((x, j) => x + step * direction[j]) : v);
    return dot(row.reference(moved), dy);
  };
  const theirs = directions.map((d) => (along(d, STEP) - along(d, -STEP)) / (2 * STEP));
  return (what: string, gradient: HostArray) => {
    assert.equal(gradient.length, values[k].length, `${what}: its size`);
    const ours = directions.map((d) => dot(d, Float64Array.from(gradient, (g) => g - preset)));
    const norm = Math.hypot(...theirs), floor = NOISE * Math.sqrt(dot(dy, dy));
    const error = norm > 0 ? relativeError(ours, theirs) * norm : Math.hypot(...ours);
    const allowed = GRADIENT * Math.max(norm, floor);
    assert(
      error <= allowed,
      `${what}: off by ${error.toExponential(2)}, allowed ${allowed.toExponential(2)}`,
    );
  };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function sameBits(a: HostArray, b: HostArray): boolean {
  const [x, y] = [a, b].map((v) => new Uint32Array(v.buffer, v.byteOffset, v.length));
  return x.length === y.length && x.every((word, i) => word === y[i]);
}

const word = new DataView(new ArrayBuffer(4));

/** Rounds to nearest even, as every bf16 converter does. */
function toBf16(x: number): number {
  word.setFloat32(0, x);
  const bits = word.getUint32(0);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function fromBits(bits: number): number {
  word.setUint32(0, bits);
  return word.getFloat32(0);
}
