/**
 * Weights on the device: loaded in slices, kept in f32, bf16 or NF4, cut where a binding shows less than a matrix.
 * The model is llama with matrices far larger than its activations; llava for pictures.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { dequantizeNf4, nf4CodeBytes, packScales, quantizeNf4 } from "../core/formats/nf4.ts";
import { encodeSafetensors, toBf16, toF32 } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { Gpu, openGpu } from "../gpu/device.ts";
import { createModel } from "../gpu/models/create.ts";
import { linearWeights, loadWeights, WEIGHT_TYPES, type WeightType } from "../gpu/models/weights.ts";
import { attachLora, initLora } from "../gpu/nn/lora.ts";
import { optimizerStep, zeroGrad } from "../gpu/nn/optimizer.ts";
import { placeTrained } from "../gpu/nn/params.ts";
import { accumulateGradients } from "../gpu/train.ts";
import { allclose, relativeError } from "./check.ts";
import { hardwareTwin } from "./hardware_twin.ts";
import { EVERYWHERE, randomiseB, randomWeights } from "./tiny_model.ts";

const CONFIG = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 300,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 64,
  vocab_size: 600,
};

const LORA = { ...EVERYWHERE, r: 4, lora_alpha: 8 };

const gpu = await openGpu();
const asHardware = hardwareTwin(gpu);
const weights = randomWeights(CONFIG, 3);

async function folderOf(tensors: typeof weights): Promise<MemoryFolder> {
  const folder = new MemoryFolder("weights");
  await folder.write("model.safetensors", encodeSafetensors(tensors));
  return folder;
}
const folder = await folderOf(weights);

/** 14 tokens of two samples, ten of them supervised. */
function batch() {
  const random = new Random(1, "tokens");
  const samples = [6, 8].map((length) => {
    const ids = Array.from({ length }, () => random.int(CONFIG.vocab_size));
    return { id: String(length), ids, labels: ids.map((id, i) => i < 2 ? -100 : id), images: [] };
  });
  return pack(samples, { imageToken: undefined, featuresOf: () => 0 });
}

interface Options {
  type?: WeightType;
  /** Train every weight beside the adapters. */
  full?: boolean;
  from?: MemoryFolder;
  slice?: number;
}

async function open(on: Gpu, { type, full = false, from = folder, slice }: Options = {}) {
  const model = createModel(CONFIG);
  const loraParams = attachLora(model.registry, LORA);
  const fullParams = full ? [...model.registry.params.values()] : [];
  for (const param of fullParams) param.group = "full";
  const params = [...loraParams, ...fullParams], slabs = placeTrained(on, params);
  initLora(on, loraParams, LORA, 1);
  randomiseB({ gpu: on, loraParams });
  const source = await openWeights(from);
  await loadWeights(on, model, source, type, slice);
  return { on, model, params, slabs };
}
type Opened = Awaited<ReturnType<typeof open>>;

/** Loss and gradients, and the parameters after one clipped step of AdamW. */
async function step({ on, model, params, slabs }: Opened) {
  using _scope = on.pool.scope();
  zeroGrad(on, slabs);
  const [loss] = accumulateGradients(on, model, [batch()], { checkpointed: true, dropoutSeed: 0 });
  const grads = await on.read(loss, ...params.map(({ tensor }) => tensor.grad!));
  const rates = {
    lr: () => 1e-2,
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    weightDecay: 0.1,
    step: 1,
    maxNorm: 0.5,
  };
  const norm = optimizerStep(on, slabs, rates);
  const after = await on.read(norm, ...params.map(({ tensor }) => tensor));
  return { loss: grads[0][0], grads: grads.slice(1), norm: after[0][0], params: after.slice(1) };
}

/** A binding of the limited device: less than the tables and most f32 matrices, more than any activation. */
const LIMIT = 32768;

const frozen = ({ model }: Opened) => [...model.registry.params.values()];
const bytesOf = (opened: Opened) => frozen(opened).map(({ tensor }) => tensor.bytes);
/** The raw words of everything that a model's parameters keep, scales included. */
const wordsOf = async (opened: Opened) =>
  (await opened.on.read(
    ...frozen(opened).flatMap(({ tensor }) => [tensor, ...(tensor.nf4 ? [tensor.nf4.scales] : [])]),
  ))
    .map((values) => new Uint32Array(values.buffer));

const joined = (arrays: ArrayLike<number>[]) =>
  Float64Array.from(arrays.flatMap((values) => Array.from(values)));

for (const device of [gpu, asHardware]) {
  const kind = device === gpu ? "" : ", as hardware";
  // f32 with everything trained: tables, heads and their slabs are larger than the binding as well.
  for (const [type, full] of [["f32", true], ["bf16", false], ["nf4", false]] as const) {
    Deno.test(`a model in ${type} whose matrices are cut computes what the whole one does${kind}`, async () => {
      const limited = new Gpu(device.device, device.adapter, LIMIT);
      const whole = await step(await open(device, { type, full }));
      const opened = await open(limited, { type, full }), cut = await step(opened);
      assert(bytesOf(opened).some((bytes) => bytes > LIMIT), "no matrix is larger than the binding");
      allclose("loss", [cut.loss], [whole.loss], 1e-6);
      allclose("norm", [cut.norm], [whole.norm], 1e-6);
      allclose("gradients", joined(cut.grads), joined(whole.grads), 1e-6);
      // A step moves a parameter by the sign of its gradient at first: rounding shows where that is near zero.
      allclose("parameters", joined(cut.params), joined(whole.params), 1e-5);
    });
  }
}

/** Every weight as a type keeps it, in f32. */
function rounded(type: WeightType): typeof weights {
  const linears = new Set([...linearWeights(createModel(CONFIG))].map(({ name }) => name));
  const convert = (name: string, { shape, data }: (typeof weights)[string]) => {
    if (type === "nf4" && linears.has(name)) return throughNf4(data);
    return type === "f32" || shape.length === 1 ? data : toF32(new Uint8Array(toBf16(data).buffer), "BF16");
  };
  return Object.fromEntries(
    Object.entries(weights).map(([name, tensor]) => [name, { ...tensor, data: convert(name, tensor) }]),
  );
}

function throughNf4(values: Float32Array) {
  const codes = new Uint8Array(nf4CodeBytes(values.length)),
    absmax = new Float32Array(Math.ceil(values.length / 64));
  quantizeNf4(values, codes, absmax);
  return dequantizeNf4(codes, packScales(absmax), values.length);
}

for (const type of WEIGHT_TYPES) {
  Deno.test(`slices of 512 values leave the same ${type} words as whole matrices`, async () => {
    const whole = await wordsOf(await open(gpu, { type }));
    assert.deepEqual(await wordsOf(await open(gpu, { type, slice: 512 })), whole);
  });
}

for (const device of [gpu, asHardware]) {
  for (const type of ["bf16", "nf4"] as const) {
    Deno.test(`${type} weights compute what their values in f32 do${device === gpu ? "" : ", as hardware"}`, async () => {
      const packed = await step(await open(device, { type }));
      const wide = await step(await open(device, { from: await folderOf(rounded(type)) }));
      allclose("loss", [packed.loss], [wide.loss], 1e-6);
      allclose("gradients", joined(packed.grads), joined(wide.grads), 1e-5);
    });
  }
}

Deno.test("nf4 takes the linear layers, bf16 the tables and the head; norms stay", async () => {
  const types = Object.fromEntries(
    frozen(await open(gpu, { type: "nf4" })).map(({ name, tensor }) => [name, tensor.dtype]),
  );
  assert.equal(types["model.embed_tokens.weight"], "bf16");
  assert.equal(types["lm_head.weight"], "bf16");
  assert.equal(types["model.norm.weight"], "f32");
  const layers = Object.entries(types).filter(([name]) => /_proj.weight$/.test(name));
  assert.equal(layers.length, 14);
  assert(layers.every(([, dtype]) => dtype === "nf4"));
});

Deno.test("gradients of adapters beside bf16 and nf4 weights point where those beside f32 do", async () => {
  const all: Float64Array[] = [];
  for (const type of WEIGHT_TYPES) all.push(joined((await step(await open(gpu, { type }))).grads));
  const [f32, bf16, nf4] = all;
  const cosine = (a: Float64Array, b: Float64Array) =>
    a.reduce((sum, x, i) => sum + x * b[i], 0) / Math.hypot(...a) / Math.hypot(...b);
  // Measured: 0.99991 and 0.942. Random matrices of this size lose more in 4 bits than trained large ones.
  assert(cosine(bf16, f32) > 0.999, `bf16: ${cosine(bf16, f32)}`);
  assert(cosine(nf4, f32) > 0.9, `nf4: ${cosine(nf4, f32)}`);
  assert(relativeError(nf4, f32) > 0.05, "nothing was quantised");
});

Deno.test("adapters beside nf4 weights learn a batch by heart", async () => {
  const { on, model, slabs } = await open(gpu, { type: "nf4" });
  const losses: number[] = [];
  for (let step = 1; step <= 30; step++) {
    using _scope = on.pool.scope();
    zeroGrad(on, slabs);
    const [loss] = accumulateGradients(on, model, [batch()], { checkpointed: false, dropoutSeed: 0 });
    optimizerStep(on, slabs, {
      lr: () => 1e-2,
      beta1: 0.9,
      beta2: 0.99,
      eps: 1e-8,
      weightDecay: 0,
      step,
      maxNorm: 1,
    });
    losses.push((await on.read(loss))[0][0]);
  }
  assert(losses.at(-1)! < losses[0] / 10, `the loss went from ${losses[0]} to ${losses.at(-1)}`);
});

Deno.test("what no buffer and no binding holds is refused by name", async () => {
  const limited = new Gpu(gpu.device, gpu.adapter, 16384);
  const refused = (pattern: RegExp) => (error: unknown) =>
    error instanceof InputError && pattern.test(error.message);
  const opened = await open(limited);
  await assert.rejects(
    step(opened),
    refused(/the device binds 16384/),
  );
  Object.defineProperty(limited.pool, "largest", { value: 65536 });
  await assert.rejects(
    open(limited),
    refused(/place "model.embed_tokens.weight": it takes 153600 bytes as f32, .* 65536$/),
  );
  await assert.rejects(open(limited, { full: true }), refused(/train "model.embed_tokens.weight"/));
});

Deno.test("tensors that no buffer holds together are read all the same", async () => {
  const small = new Gpu(gpu.device, gpu.adapter);
  using _scope = small.pool.scope();
  const rows = [1, 2, 3].map((value) => small.upload(new Float32Array(1000).fill(value)));
  Object.defineProperty(small.pool, "largest", { value: 8192 });
  assert.deepEqual((await small.read(...rows)).map(([first, ...rest]) => [first, rest.length]), [[1, 999], [
    2,
    999,
  ], [3, 999]]);
});
