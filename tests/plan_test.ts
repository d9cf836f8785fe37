/**
 * Plans against what they plan: parameters of published configs, the pool's true peak and the dispatches of a true step,
 * operations against the closed formula, and refusals that name what would help.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { sizeOf } from "../core/shape.ts";
import { openGpu } from "../gpu/device.ts";
import { ANY_DEVICE, type DeviceFacts } from "../gpu/dry_gpu.ts";
import { createModel } from "../gpu/models/create.ts";
import { frozenDtype, linearWeights, placeFrozen, type WeightType } from "../gpu/models/weights.ts";
import { optimizerStep, zeroGrad } from "../gpu/nn/optimizer.ts";
import { checkFits, type Plan, type PlanInput, planStep, remedies } from "../gpu/plan.ts";
import { impliedProcessor, sampleOfSize } from "../gpu/plan_samples.ts";
import { declareTrained } from "../gpu/session.ts";
import { accumulateGradients, microBatches } from "../gpu/train.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { FIXTURES } from "./check.ts";
import { EVERYWHERE, SMALL_CONFIG } from "./tiny_model.ts";

const gpu = await openGpu();
const here: DeviceFacts = { name: gpu.name, limits: gpu.device.limits };
const llama = await readJson(new DiskFolder(`${FIXTURES}/models/llama`), "config.json");
/** Wide enough that products go by packed blocks. */
const MIDDLE = {
  ...SMALL_CONFIG,
  text_config: {
    ...SMALL_CONFIG.text_config,
    hidden_size: 192,
    intermediate_size: 512,
    num_attention_heads: 4,
    vocab_size: 1000,
  },
};

function inputOf(json: unknown, changes: Partial<PlanInput> = {}, count = 4, tokens = 30): PlanInput {
  const processor = impliedProcessor(json);
  const sizes = { tokens, images: processor ? 1 : 0, width: 64, height: 48 };
  const samples = new Array(count).fill(sampleOfSize(createModel(json), processor, sizes));
  return {
    ...{ json, device: here, weights: "f32" as WeightType, lora: EVERYWHERE, trainable: [] },
    ...{ checkpointed: false, microTokens: 4096, step: samples, heaviest: samples },
    ...changes,
  };
}

/** Runs the planned step on the device with undefined weights. */
function trueStep(input: PlanInput): { peak: number; dispatches: number } {
  const { model, slabs } = declareTrained(gpu, createModel(input.json), input);
  const linears = linearWeights(model);
  const frozen = [...model.registry.params.values()].filter(({ used, trainable }) => used && !trainable);
  for (const param of frozen) placeFrozen(gpu, param, frozenDtype(param, linears, input.weights));
  gpu.pool.trim();
  const nothing = gpu.pool.usedBytes - [
    ...slabs.flatMap(({ param, grad, m, v }) => [param, grad, m, v]),
    ...frozen.map(({ tensor }) => tensor),
  ].reduce((sum, { buffer }) => sum + buffer.bytes, 0);
  gpu.pool.peakBytes = 0;
  const before = gpu.dispatches;
  {
    using _scope = gpu.pool.scope();
    zeroGrad(gpu, slabs);
    const batches = microBatches(input.heaviest, input.microTokens, model);
    accumulateGradients(gpu, model, batches, { checkpointed: input.checkpointed, dropoutSeed: 1 });
    const plain = { lr: () => 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 };
    optimizerStep(gpu, slabs, { ...plain, step: 1, maxNorm: 1 });
  }
  const peak = gpu.pool.peakBytes - nothing, dispatches = gpu.dispatches - before;
  for (const { param, grad, m, v } of slabs) {
    for (const { buffer } of [param, grad, m, v]) gpu.pool.release(buffer);
  }
  for (const { tensor } of frozen) gpu.pool.release(tensor.buffer);
  return { peak, dispatches };
}

const sumOf = (plan: Plan, key: "dispatches" | "flops") =>
  Object.values(plan.work).reduce((sum, work) => sum + work[key], 0);
const windowsOf = ({ memory }: Plan) =>
  memory.parts.filter(({ name }) => name.startsWith("windows")).reduce((sum, { bytes }) => sum + bytes, 0);

for (const [name, json] of Object.entries({ small: SMALL_CONFIG, llama, middle: MIDDLE })) {
  for (const checkpointed of [false, true]) {
    for (const weights of ["f32", "nf4"] as const) {
      const what = `${name}, ${weights}, blocks ${checkpointed ? "computed again" : "kept"}`;
      Deno.test(`the memory and the dispatches of a step are those planned: ${what}`, async () => {
        const input = inputOf(json, { checkpointed, weights }), plan = planStep(input);
        const { peak, dispatches } = trueStep(input);
        await gpu.check();
        const planned = plan.memory.bytes - windowsOf(plan) + plan.memory.idle;
        assert(Math.abs(planned / peak - 1) < 0.01, `planned ${planned}, the pool held ${peak}`);
        assert.equal(sumOf(plan, "dispatches"), dispatches);
        assert.equal(
          plan.memory.parts.reduce((sum, { bytes }) => sum + bytes, 0),
          plan.memory.bytes,
        );
      });
    }
  }
}

Deno.test("operations follow the closed formula", () => {
  const { registry, decoder } = createModel(llama), { C, V, H, D, layers } = decoder.config;
  const r = EVERYWHERE.r, n = 3, t = 24, T = n * t;
  const input = inputOf(llama, { device: ANY_DEVICE, trainable: [] }, n, t), plan = planStep(input);
  let product = 0, low = 0;
  for (const { weight } of registry.linears.values()) {
    if (weight.name === "lm_head.weight") continue;
    const [out, inner] = weight.shape;
    product += 2 * T * out * inner;
    low += 2 * T * r * (out + inner);
  }
  const pairs = n * t * (t + 1) / 2, attention = 2 * pairs * H * D * layers;
  assert.equal(plan.work.decoder.flops, product + low + 2 * attention);
  assert.equal(plan.work.loss.flops, 2 * 2 * plan.step.supervised * C * V);
  // Backward: dx of everything but what lies before the first adapter, twice the adapters' products, 7 of attention.
  const first = [...registry.linears.values()].slice(0, 3).reduce(
    (sum, { weight }) => sum + 2 * T * sizeOf(weight.shape) + 2 * T * r * weight.shape[1],
    0,
  );
  assert.equal(plan.work.backward.flops, product + 2 * low - first + 7 * attention);
  const again = planStep({ ...input, checkpointed: true });
  // The checkpoint of the first block hands nothing back, but its block runs again.
  assert.equal(again.work.backward.flops - plan.work.backward.flops, plan.work.decoder.flops);
});

for (const name of ["Qwen2-VL-2B-Instruct", "Qwen2.5-VL-3B-Instruct", "SmolVLM-256M-Instruct"]) {
  Deno.test(`the plan of ${name} has transformers' counts and shapes, and says what helps`, async () => {
    const published = await readJson(new DiskFolder(`${FIXTURES}/configs`), `${name}.json`) as {
      config: unknown;
      parameters: number;
      vision: number;
      tensors: number;
      shapes: Record<string, number[]>;
    };
    const input = inputOf(published.config, { device: ANY_DEVICE, weights: "bf16" }, 2, 100);
    const plan = planStep(input);
    assert.deepEqual(
      [plan.parameters, plan.vision, plan.tensors],
      [published.parameters, published.vision, published.tensors],
    );
    for (const [name, shape] of Object.entries(published.shapes)) {
      assert.deepEqual(plan.shapes[name]?.shape, shape, name);
    }
    const counted = Object.values(plan.shapes).reduce(
      (sum, { shape, count }) => sum + sizeOf(shape) * count,
      0,
    );
    assert.equal(counted, published.parameters);
    const [best, ...others] = remedies(input, plan);
    assert(best.bytes < plan.memory.bytes && others.every(({ bytes }) => bytes >= best.bytes));
    const checkpointed = planStep({ ...input, checkpointed: true });
    assert(checkpointed.memory.bytes < plan.memory.bytes, "checkpointing saves nothing");
  });
}

Deno.test("what does not fit is refused with its largest parts and what would help", () => {
  const input = inputOf(MIDDLE), plan = planStep(input), budget = { bytes: 1e6, source: "--memory" };
  checkFits(input, plan, undefined);
  checkFits(input, plan, { ...budget, bytes: plan.memory.bytes });
  assert.throws(() => checkFits(input, plan, budget), (error) => {
    assert(error instanceof InputError);
    for (const part of plan.memory.parts.slice(0, 3)) assert(error.message.includes(part.name), part.name);
    assert.match(error.message, /there are 1\.0 MB \(--memory\).*would help: .*--checkpointed/);
    return true;
  });
  const limits = { maxBufferSize: 2 ** 30, maxStorageBufferBindingSize: 2 ** 30 };
  const tight = { ...input, device: { name: "a small one", limits: { ...limits, maxBufferSize: 1e5 } } };
  assert.throws(() => checkFits(tight, planStep(tight), undefined), /"a small one": one buffer of the/);
});
