/**
 * Taps: sites read, reduced on the device and edited, against all rows reduced on the host and the f64 loss of a model
 * changed in the same way. Refuses sites and reductions that make no sense.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { Random } from "../core/random.ts";
import { modelLossReference } from "../core/reference/model.ts";
import { openGpu } from "../gpu/device.ts";
import { extract } from "../gpu/extract.ts";
import { runModel } from "../gpu/models/model.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { zeroGrad } from "../gpu/nn/optimizer.ts";
import { scale } from "../gpu/ops/add.ts";
import { crossEntropy } from "../gpu/ops/cross_entropy.ts";
import { openSession } from "../gpu/session.ts";
import { Tape } from "../gpu/tape.ts";
import { type Edit, type Reduction, Taps } from "../gpu/taps.ts";
import { allclose } from "./check.ts";
import { randomWeights, sceneSamples, SMALL_CONFIG, smallCheckpoint } from "./tiny_model.ts";

const gpu = await openGpu();
const session = await openSession(gpu, await smallCheckpoint(), { trainable: ["."] });
const { model } = session;
const samples = sceneSamples(session, 3);
const batch = pack(samples, { imageToken: model.imageToken, featuresOf: model.featuresOf });
const T = batch.ids.length;

const features = (requests: { site: string; reduction: Reduction }[], microTokens?: number) =>
  extract(gpu, model, samples.length, (i) => samples[i], requests, { microTokens });

Deno.test("a site that does not exist is refused with a list of those that do", async () => {
  await assert.rejects(features([{ site: "layers.9.resid_post", reduction: "last" }]), (error) => {
    assert(error instanceof InputError);
    assert.match(error.message, /^No tap site matches "layers\.9\.resid_post": there are /);
    for (const site of ["image_features", "embed", "layers.0.attn_out", "layers.1.resid_post", "norm"]) {
      assert(error.message.includes(site), `${site} is not listed: ${error.message}`);
    }
    return true;
  });
  const taps = new Taps([], batch, new Map([["layers.0.mlp", (x) => x]]));
  using _scope = gpu.pool.scope();
  runModel(new Forward(new Tape(gpu, false), taps), model, batch, false);
  assert.throws(() => taps.check(), /No tap site matches "layers\.0\.mlp": there are /);
});

Deno.test("reductions are those of all rows, reduced on the host", async () => {
  const sites = ["embed", "layers.0.attn_out", "layers.1.resid_post", "norm"];
  const taps = new Taps(sites.map((site) => ({ site, reduction: "all" })), batch);
  {
    using _scope = gpu.pool.scope();
    runModel(new Forward(new Tape(gpu, false), taps), model, batch, false);
  }
  const whole = await taps.collect(gpu);
  const isImage = (t: number) => batch.ids[t] === model.imageToken;
  const rows: Record<Reduction, (from: number, to: number) => number[]> = {
    last: (_, to) => [to - 1],
    "index:-2": (_, to) => [to - 2],
    "index:3": (from) => [from + 3],
    "image-mean": (from, to) => range(from, to).filter(isImage),
    "text-mean": (from, to) => range(from, to).filter((t) => !isImage(t)),
    mean: range,
  };
  const requests = sites.flatMap((site) => Object.keys(rows).map((reduction) => ({ site, reduction })));
  const found = await features(requests);
  assert.equal(found.size, requests.length);
  for (const { site, reduction } of requests) {
    const { shape: [tokens, C], data } = whole.get(`${site}@all`)!;
    assert.equal(tokens, T);
    const expected = samples.flatMap((_, s) => {
      const chosen = rows[reduction](batch.starts[s], batch.starts[s + 1]);
      assert(chosen.length > 0);
      return range(0, C).map((c) => chosen.reduce((sum, t) => sum + data[t * C + c], 0) / chosen.length);
    });
    const { dim, data: ours } = found.get(`${site}@${reduction}`)!;
    assert.equal(dim, C);
    allclose(`${site}@${reduction}`, ours, expected, 1e-6);
  }
  const apart = await features(requests, 1); // every sample in a pass of its own
  for (const [key, { data }] of found) allclose(`${key}, unpacked`, apart.get(key)!.data, data, 1e-5);
});

Deno.test("reductions that make no sense are refused", async () => {
  const refused: [string, string, RegExp][] = [
    ["embed", "median", /^Unknown reduction "median": use last, index:N/],
    ["embed", "index:9999", /^Reduction "index:9999" finds no token in sample 0 of \d+ tokens$/],
    ["embed", "all", /^Cannot extract with the reduction "all"/],
    [
      "image_features",
      "last",
      new RegExp(`^Cannot reduce "image_features" by "last": it has 12 rows for ${T} tokens`),
    ],
    [
      "vision.layers.*.resid_post",
      "mean",
      /^Cannot reduce "vision\.layers\.0\.resid_post" by "mean": it has 51 rows/,
    ],
  ];
  for (const [site, reduction, message] of refused) {
    await assert.rejects(features([{ site, reduction }]), (error) => {
      assert(error instanceof InputError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

/** Loss and gradients with an edit in place, and a reading before and after it. */
async function edited(edits: Map<string, Edit>, checkpointed: boolean) {
  const requests = ["layers.0.resid_mid", "layers.0.mlp_out", "layers.1.resid_post"];
  const taps = new Taps(requests.map((site) => ({ site, reduction: "mean" })), batch, edits);
  using _scope = gpu.pool.scope();
  zeroGrad(gpu, session.slabs);
  const tape = new Tape(gpu), hidden = runModel(new Forward(tape, taps), model, batch, checkpointed);
  const { loss } = crossEntropy(tape, hidden, model.head.tensor, { ...batch, scale: 1 / batch.rows.length });
  tape.backward(loss, gpu.upload(new Float32Array([1])));
  const [[value], ...grads] = await gpu.read(loss, ...session.fullParams.map(({ tensor }) => tensor.grad!));
  const found = await taps.collect(gpu);
  return {
    loss: value,
    read: requests.map((site) => found.get(`${site}@mean`)!.data),
    grads: new Map(session.fullParams.map(({ name }, i) => [name, grads[i]])),
  };
}

Deno.test("an edit changes what comes after it and carries gradients", async () => {
  const halve = new Map<string, Edit>([["layers.0.mlp_out", (x, tape) => scale(tape, x, 0.5)]]);
  const plain = await edited(new Map(), false), changed = await edited(halve, false);
  assert.deepEqual(changed.read.slice(0, 2), plain.read.slice(0, 2), "what lies before the edit");
  assert.notDeepEqual(changed.read[2], plain.read[2], "what lies after the edit");

  // The same model with half a down projection, in f64.
  const down = "model.language_model.layers.0.mlp.down_proj.weight";
  const values = new Map(
    Object.entries(randomWeights(SMALL_CONFIG, 1)).map(([name, { data }]) => [name, Float64Array.from(data)]),
  );
  values.set(down, values.get(down)!.map((value) => value / 2));
  const lossAt = (values: Map<string, Float64Array>) =>
    modelLossReference(SMALL_CONFIG, { values, scaling: 1 }, batch);
  assert(
    Math.abs(changed.loss - lossAt(values)) < 1e-5 * changed.loss,
    `${changed.loss}, not ${lossAt(values)}`,
  );
  for (const part of ["layers.0.mlp.up_proj", "layers.0.self_attn.v_proj", "layers.1.mlp.up_proj"]) {
    const name = `model.language_model.${part}.weight`, random = new Random(6, name);
    const direction = values.get(name)!.map(() => random.normal());
    const along = (step: number) =>
      lossAt(new Map(values).set(name, values.get(name)!.map((value, i) => value + step * direction[i])));
    const slope = (along(1e-5) - along(-1e-5)) / 2e-5;
    const grad = changed.grads.get(name)!, size = Math.hypot(...grad);
    const ours = direction.reduce((sum, value, i) => sum + value * grad[i], 0);
    assert(Math.abs(ours - slope) < 1e-3 * size, `${name}: ${ours}, expected ${slope}`);
  }

  assert.deepEqual(await edited(halve, true), changed, "with blocks computed again");
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
