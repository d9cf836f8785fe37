/**
 * Gradients of a whole LLaVA-shaped model, adapters and every weight trained, against central differences of the f64
 * loss; recomputed blocks give the same bits, and a packed batch the sum of its samples.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { modelLossReference } from "../core/reference/model.ts";
import { openGpu } from "../gpu/device.ts";
import { zeroGrad } from "../gpu/nn/optimizer.ts";
import { openSession } from "../gpu/session.ts";
import { accumulateGradients } from "../gpu/train.ts";
import { allclose, relativeError } from "./check.ts";
import { EVERYWHERE, randomiseB, sceneSamples, SMALL_CONFIG, smallCheckpoint } from "./tiny_model.ts";

/** Text of width 96 and an MLP of 200: products then go through several panels. */
const config = {
  ...SMALL_CONFIG,
  text_config: { ...SMALL_CONFIG.text_config, hidden_size: 96, intermediate_size: 200 },
};
const REL = 1e-3, STEP = 1e-5, DIRECTIONS = 4;

const gpu = await openGpu();
const folder = await smallCheckpoint(config);
const session = await openSession(gpu, folder, {
  lora: { ...EVERYWHERE, lora_dropout: 0.25 },
  trainable: ["."],
});
randomiseB(session);
const { model, slabs, loraParams, fullParams } = session;
const params = [...loraParams, ...fullParams];
const samples = sceneSamples(session, 3);
const packed = (chosen: typeof samples) =>
  pack(chosen, { imageToken: model.imageToken, featuresOf: (image) => model.featuresOf(image) });
const batch = packed(samples);

type Options = { checkpointed?: boolean; dropoutSeed?: number };

/** The gradient of every parameter, and the loss. */
async function gradients(batches = [batch], { checkpointed = false, dropoutSeed = 0 }: Options = {}) {
  using _scope = gpu.pool.scope();
  zeroGrad(gpu, slabs);
  const losses = accumulateGradients(gpu, model, batches, { checkpointed, dropoutSeed });
  const read = await gpu.read(...params.map(({ tensor }) => tensor.grad!), ...losses);
  return {
    grads: read.slice(0, params.length),
    loss: read.slice(params.length).reduce((sum, [x]) => sum + x, 0),
  };
}

async function weightsInF64(): Promise<Map<string, Float64Array>> {
  const values = new Map<string, Float64Array>();
  const file = await SafetensorsFile.open(await folder.open("model.safetensors"));
  for (const name of file.entries.keys()) values.set(name, Float64Array.from(await file.f32(name)));
  const adapters = await gpu.read(...loraParams.map(({ tensor }) => tensor));
  loraParams.forEach(({ name }, i) => values.set(name, Float64Array.from(adapters[i])));
  return values;
}

const values = await weightsInF64();
const scaling = EVERYWHERE.lora_alpha / EVERYWHERE.r;
const lossAt = (values: Map<string, Float64Array>, of = batch) =>
  modelLossReference(config, { values, scaling }, of);

/** The loss's slope along a direction given for some of the parameters. */
function slope(directions: Map<string, Float64Array>, of = batch): number {
  const moved = (step: number) => {
    const out = new Map(values);
    for (const [name, d] of directions) out.set(name, values.get(name)!.map((v, i) => v + step * d[i]));
    return lossAt(out, of);
  };
  return (moved(STEP) - moved(-STEP)) / (2 * STEP);
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
const norm = (parts: ArrayLike<number>[]) => Math.sqrt(parts.reduce((sum, part) => sum + dot(part, part), 0));
const { grads, loss } = await gradients();
const total = norm(grads);

Deno.test("the loss is that of the f64 reference", () => {
  const reference = lossAt(values);
  assert(Math.abs(loss - reference) <= 1e-5 * reference, `${loss}, expected ${reference}`);
});

const parts: [string, (name: string) => boolean][] = [
  ["the adapters", (name) => name.includes(".lora_")],
  ["the vision tower and the projector", (name) => /^model\.(vision_tower|multi_modal_projector)/.test(name)],
  ["everything", () => true],
];
for (const [what, isPart] of parts) {
  Deno.test(`gradients of ${what} agree with central differences in random directions`, () => {
    const chosen = params.map(({ name }, i) => ({ name, grad: grads[i] }))
      .filter(({ name }) => isPart(name) && values.has(name));
    const ours: number[] = [], theirs: number[] = [];
    for (let k = 0; k < DIRECTIONS; k++) {
      const directions = new Map(chosen.map(({ name, grad }) => {
        const random = new Random(k, name);
        return [name, Float64Array.from(grad, () => random.normal())] as const;
      }));
      ours.push(chosen.reduce((sum, { name, grad }) => sum + dot(grad, directions.get(name)!), 0));
      theirs.push(slope(directions));
    }
    allclose(`slopes along ${what}`, ours, theirs, REL);
  });
}

Deno.test("every parameter's own gradient agrees with a central difference", async () => {
  const one = packed(samples.slice(0, 1)), { grads } = await gradients([one]);
  const total = norm(grads), wrong: string[] = [];
  params.forEach(({ name, used }, i) => {
    if (!used) return;
    const random = new Random(9, name), direction = Float64Array.from(grads[i], () => random.normal());
    const difference = Math.abs(dot(grads[i], direction) - slope(new Map([[name, direction]]), one));
    // Attention does not see a shift of all keys: the gradient of their bias is 0 up to rounding.
    const size = Math.max(norm([grads[i]]), 1e-4 * total);
    if (!(difference <= REL * size)) wrong.push(`${name}: off by ${difference}, gradient ${size}`);
  });
  assert.deepEqual(wrong, []);
});

Deno.test("blocks computed again in backward give the same bits, dropout included", async () => {
  for (const dropoutSeed of [0, 7]) { // 0 switches dropout off: that is what the references above agree with
    const kept = await gradients([batch], { dropoutSeed });
    const again = await gradients([batch], { dropoutSeed, checkpointed: true });
    params.forEach(({ name }, i) => assert.deepEqual(again.grads[i], kept.grads[i], name));
    assert.equal(again.loss, kept.loss);
    assert.equal(kept.loss === loss, dropoutSeed === 0, "whether dropout changes the loss");
  }
});

Deno.test("a packed step is the sum of single-sample steps", async () => {
  const singles = samples.map((sample) => packed([sample]));
  const apart = await gradients(singles);
  assert(Math.abs(apart.loss - loss) <= 1e-5 * loss, `${apart.loss}, expected ${loss}`);
  params.forEach(({ name }, i) => {
    const size = norm([grads[i]]);
    if (size > 1e-4 * total) allclose(name, apart.grads[i], grads[i], 1e-5);
    else assert(relativeError(apart.grads[i], grads[i]) * size <= 1e-6 * total, name);
  });
});
