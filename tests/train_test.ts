/**
 * Training as a whole: accumulation, schedules, a run stopped anywhere that goes on to the same bits, a lost device,
 * and memory that stays flat. Everything runs on a model small enough for software Vulkan.
 */
import assert from "node:assert/strict";
import { InputError, Interrupted } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { DeviceLost, type Gpu, openGpu } from "../gpu/device.ts";
import { sizeClass } from "../gpu/pool.ts";
import { openSession, type Session } from "../gpu/session.ts";
import {
  microBatches,
  scheduleFactor,
  type StepMetrics,
  train,
  type TrainConfig,
  type TrainRun,
  trainSchema,
} from "../gpu/train.ts";
import { allclose } from "./check.ts";
import { EVERYWHERE, sceneSamples, smallCheckpoint } from "./tiny_model.ts";

const gpu = await openGpu();
const checkpoint = await smallCheckpoint();
const options = { lora: { ...EVERYWHERE, lora_dropout: 0.1 }, trainable: ["multi_modal_projector"], seed: 3 };
const settings = (values: Partial<TrainConfig> = {}) =>
  trainSchema.parse({ steps: 12, batchSize: 3, saveEvery: 5, seed: 3, ...values });

const encoding = await openSession(gpu, checkpoint);
const samples = sceneSamples(encoding, 10);
encoding.close();

interface Attempt {
  config?: TrainConfig;
  on?: Gpu;
  edit?: (run: TrainRun, session: Session) => Partial<TrainRun>;
}

/** Opens the checkpoint anew and trains in `folder`, going on where it stands. */
async function attempt(
  folder: MemoryFolder | undefined,
  { config = settings(), on = gpu, edit }: Attempt = {},
) {
  const session = await openSession(on, checkpoint, options);
  const { model, slabs } = session;
  const run: TrainRun = {
    gpu: on,
    model,
    slabs,
    config,
    folder,
    count: samples.length,
    sample: (i) => samples[i],
  };
  try {
    return await train({ ...run, ...edit?.(run, session) });
  } finally {
    session.close();
  }
}

/** Parameters, moments and metrics as saved. */
const bitsOf = async (folder: MemoryFolder) =>
  await Promise.all(["state.safetensors", "metrics.jsonl"].map((name) => folder.read(name)));

const whole = new MemoryFolder("whole");
const metrics = await attempt(whole);
const bits = await bitsOf(whole);

Deno.test("the metrics say what was done, and the loss falls", () => {
  assert.deepEqual(metrics.map(({ step }) => step), Array.from({ length: 12 }, (_, i) => i + 1));
  const mean = (part: StepMetrics[]) => part.reduce((sum, { loss }) => sum + loss, 0) / part.length;
  assert(mean(metrics.slice(-4)) < mean(metrics.slice(0, 4)) - 0.1, JSON.stringify(metrics));
  const lines = new TextDecoder().decode(bits[1]).trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines, metrics);
});

Deno.test("micro-batches accumulate to the whole batch", async () => {
  const session = await openSession(gpu, checkpoint, options);
  assert.equal(microBatches(samples.slice(0, 3), 20, session.model).length, 3);
  session.close();
  const plain = { config: settings({ steps: 3 }) },
    apart = { config: settings({ steps: 3, microTokens: 20 }) };
  // Dropout is drawn per micro-batch, so it must be off for the two to be the same.
  const off = (run: TrainRun, { model }: Session) => {
    for (const { adapter } of model.registry.linears.values()) if (adapter) adapter.dropout = 0;
    return run;
  };
  const [one, many] = [
    await attempt(undefined, { ...plain, edit: off }),
    await attempt(undefined, { ...apart, edit: off }),
  ];
  for (const key of ["loss", "grad_norm"] as const) {
    allclose(key, many.map((entry) => entry[key]), one.map((entry) => entry[key]), 1e-5);
  }
  assert.deepEqual(many.map(({ tokens }) => tokens), one.map(({ tokens }) => tokens));
});

Deno.test("a run stopped by its signal goes on to the same bits", async () => {
  for (const at of [1, 7, 10]) {
    const folder = new MemoryFolder(`stopped at ${at}`), controller = new AbortController();
    const onStep = ({ step }: StepMetrics) => step === at && controller.abort();
    const stopped = attempt(folder, { edit: () => ({ signal: controller.signal, onStep }) });
    await assert.rejects(stopped, (error) => error instanceof Interrupted && /of 12/.test(error.message));
    await attempt(folder);
    assert.deepEqual(await bitsOf(folder), bits, `stopped at ${at}`);
  }
});

Deno.test("a run that failed goes on from its last saved state to the same bits", async () => {
  for (const [calls, saved] of [[2, 0], [20, 5], [35, 10]]) {
    const folder = new MemoryFolder(`failed at call ${calls}`);
    let left = calls;
    const sample = (i: number) => {
      if (left-- === 0) throw new Error("The disk is gone");
      return samples[i];
    };
    const message = new RegExp(`^The disk is gone \\(the last saved state is step ${saved}\\)$`);
    await assert.rejects(attempt(folder, { edit: () => ({ sample }) }), { message });
    await attempt(folder);
    assert.deepEqual(await bitsOf(folder), bits, `failed at call ${calls}`);
  }
});

Deno.test("a finished run is not trained again", async () => {
  assert.deepEqual(await attempt(whole), metrics);
  assert.deepEqual(await bitsOf(whole), bits);
});

Deno.test("a state of other settings, data or model is refused by the folder's name", async () => {
  const other: Attempt[] = [
    { config: settings({ lr: 2e-3 }) },
    { config: settings({ seed: 4 }) },
    { edit: () => ({ count: 9 }) },
    { edit: () => ({ identity: { model: "another" } }) },
  ];
  for (const each of other) {
    await assert.rejects(attempt(whole, each), (error) => {
      assert(error instanceof InputError);
      assert.match(
        error.message,
        /^Cannot resume in "whole": its state\.safetensors belongs to other settings/,
      );
      return true;
    });
  }
});

Deno.test("a lost device ends in an error that names the saved state, and the state is good", async () => {
  const losses: [string, (lost: Gpu) => void, RegExp][] = [
    ["destroyed", (lost) => lost.device.destroy(), /\(the last saved state is step 5\)$/],
    [
      "failed",
      (lost) => lost.fail(new DeviceLost("The cable fell out")),
      /^The cable fell out \(the last .* step 5\)$/,
    ],
  ];
  for (const [what, lose, message] of losses) {
    const folder = new MemoryFolder(what), lost = await openGpu();
    const onStep = ({ step }: StepMetrics) => step === 7 && lose(lost);
    await assert.rejects(attempt(folder, { on: lost, edit: () => ({ onStep }) }), (error: Error) => {
      assert.match(error.message, message);
      assert(error.cause instanceof DeviceLost, `the cause is ${error.cause}`);
      return true;
    });
    await attempt(folder);
    assert.deepEqual(await bitsOf(folder), bits, what);
    lost.close();
  }
});

Deno.test("schedules are those of transformers", () => {
  // get_{cosine,linear,constant}_schedule_with_warmup of transformers 5.18, at every step of 10 with 3 of warm-up and of
  // 7 with none.
  const rise = [0, 0.3333333333333333, 0.6666666666666666];
  const cosine = [
    1,
    0.9504844339512095,
    0.8117449009293668,
    0.6112604669781572,
    0.38873953302184283,
    0.18825509907063326,
    0.04951556604879048,
  ];
  const linear = [
    1,
    0.8571428571428571,
    0.7142857142857143,
    0.5714285714285714,
    0.42857142857142855,
    0.2857142857142857,
    0.14285714285714285,
  ];
  const expected = { cosine, linear, constant: Array(7).fill(1) };
  for (const schedule of ["cosine", "linear", "constant"] as const) {
    const factors = (steps: number, warmup: number) =>
      Array.from({ length: steps }, (_, i) => scheduleFactor(i, settings({ steps, warmup, schedule })));
    allclose(`${schedule} after a warm-up`, factors(10, 0.25), [...rise, ...expected[schedule]], 1e-12);
    allclose(schedule, factors(7, 0), expected[schedule], 1e-12);
  }
});

Deno.test("sixty steps of varying length leave the device's memory flat", async () => {
  const long = await openSession(gpu, checkpoint),
    varied = [1, 2, 3, 4].flatMap((n) => sceneSamples(long, 4, n));
  long.close();
  gpu.pool.trim();
  const used: number[] = [], held: number[] = [];
  await attempt(undefined, {
    config: settings({ steps: 60, batchSize: 1 }),
    edit: () => ({
      count: varied.length,
      sample: (i) => { // asked for between two steps, when no step holds anything
        used.push(gpu.pool.usedBytes);
        held.push(gpu.pool.usedBytes + gpu.pool.idleBytes);
        return varied[i];
      },
    }),
  });
  assert.equal(used.length, 60);
  assert.deepEqual([...new Set(used)], [used[0]], "bytes in use differ between steps");
  // Every length came up in the first epoch: from then on nothing new may be allocated.
  assert.deepEqual([...new Set(held.slice(varied.length))], [held[varied.length]]);
});

Deno.test("frozen parameters cost no gradients: the pool holds the weights and four times what is trained", async () => {
  const before = gpu.pool.usedBytes;
  const session = await openSession(gpu, checkpoint, { lora: EVERYWHERE });
  let expected = 0;
  for (const param of session.model.registry.params.values()) {
    if (!param.used) continue;
    const { grad, requiresGrad, bytes } = param.tensor;
    assert.deepEqual([param.trainable, grad, requiresGrad], [false, undefined, false], param.name);
    expected += sizeClass(bytes);
  }
  for (const { param } of session.slabs) expected += 4 * sizeClass(param.bytes);
  assert.equal(gpu.pool.usedBytes - before, expected);
  session.close();
  assert.equal(gpu.pool.usedBytes, before);
});
