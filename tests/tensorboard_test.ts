/**
 * Held-out loss on the way and TensorBoard's event files: training's bits stay the same, a stop changes nothing, events
 * are those of TensorBoard's own writer, and a step is written once however often a run is stopped.
 */
import assert from "node:assert/strict";
import { InputError, Interrupted } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { crc32c, decodeEvents, encodeEvents, type ScalarEvent } from "../core/formats/tensorboard.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { openSession } from "../gpu/session.ts";
import { bestStep, train, type TrainRun, trainSchema } from "../gpu/train.ts";
import { openEventLog } from "../scripts/tensorboard.ts";
import { EVERYWHERE, sceneSamples, smallCheckpoint } from "./tiny_model.ts";

Deno.test("CRC-32C has the values of RFC 3720", () => {
  assert.equal(crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
});

/** The bytes of tensorboard 2's RecordWriter and protocol buffers for these events, made once with Python. */
const time = 1700000000.25;
const EVENTS: ScalarEvent[] = [
  { step: 1, time, scalars: { "train/loss": 1.5, "train/lr": 0.001 } },
  { step: 300, time, scalars: { "eval/loss": 0.25 } },
];
const THEIRS = Uint8Array.from(
  atob(
    "GAAAAAAAAACjf0siCQAAEED8VNlBGg1icmFpbi5FdmVudDoyM40v6TEAAAAAAAAAnYOD6QkAABBA/FTZQRABKiQKEQ" +
      "oKdHJhaW4vbG9zcxUAAMA/Cg8KCHRyYWluL2xyFW8SgzqH5eofIAAAAAAAAAAp7alQCQAAEED8VNlBEKwCKhIKEAoJ" +
      "ZXZhbC9sb3NzFQAAgD4Hp0m6",
  ),
  (c) => c.charCodeAt(0),
);

Deno.test("event files are TensorBoard's own to the byte, and damage is refused", () => {
  assert.deepEqual(encodeEvents(EVENTS), THEIRS);
  const read = decodeEvents(THEIRS, "theirs");
  assert.deepEqual(read.map(({ step }) => step), [1, 300]);
  assert.deepEqual(read[0], { ...EVENTS[0], scalars: { "train/loss": 1.5, "train/lr": Math.fround(0.001) } });
  assert.deepEqual(decodeEvents(THEIRS.slice(0, -3), "cut").map(({ step }) => step), [1]);
  const broken = THEIRS.slice();
  broken[60] ^= 1;
  assert.throws(() => decodeEvents(broken, "broken"), InputError);
});

const gpu = await openGpu(), checkpoint = await smallCheckpoint();

/** Trains seven steps on drawn scenes, with held-out ones looked at every so often. */
async function attempt(folder: MemoryFolder, every?: number, edit: Partial<TrainRun> = {}) {
  const session = await openSession(gpu, checkpoint, { lora: { ...EVERYWHERE, lora_dropout: 0.1 }, seed: 3 });
  const { model, slabs } = session, samples = sceneSamples(session, 10);
  try {
    return await train({
      gpu,
      model,
      slabs,
      folder,
      config: trainSchema.parse({ steps: 7, batchSize: 2, saveEvery: 2, lr: 5e-3 }),
      count: 8,
      sample: (i) => samples[i],
      evaluation: every ? { every, run: () => evaluate(gpu, model, samples.slice(8)) } : undefined,
      ...edit,
    });
  } finally {
    session.close();
  }
}

Deno.test("looking at held-out samples changes no bit of training, and survives a stop", async () => {
  const [plain, looked, stopped] = ["plain", "looked", "stopped"].map((name) => new MemoryFolder(name));
  const without = await attempt(plain), found = await attempt(looked, 3);
  assert.deepEqual(await looked.read("state.safetensors"), await plain.read("state.safetensors"));
  assert.deepEqual(found.map(({ eval_loss: _, eval_accuracy: __, ...rest }) => rest), without);
  assert.deepEqual(found.filter(({ eval_loss }) => eval_loss !== undefined).map(({ step }) => step), [
    3,
    6,
    7,
  ]);
  const best = bestStep(found)!;
  assert.equal(best.eval_loss, Math.min(...found.map(({ eval_loss = Infinity }) => eval_loss)));
  assert.equal(bestStep(without), undefined);

  const controller = new AbortController();
  const onStep = ({ step }: { step: number }) => step === 5 && controller.abort();
  await assert.rejects(attempt(stopped, 3, { signal: controller.signal, onStep }), Interrupted);
  await attempt(stopped, 3);
  for (const name of ["metrics.jsonl", "state.safetensors"]) {
    assert.deepEqual(await stopped.read(name), await looked.read(name), name);
  }
});

Deno.test("every step is in the event files once, however often a run was stopped", async () => {
  const folder = new MemoryFolder("events");
  /** One start of the task: events as scripts/train.ts writes them; the device fails at a step. */
  const start = async (failAt: number, flushed: boolean) => {
    let log: Awaited<ReturnType<typeof openEventLog>>;
    const run = attempt(folder, 3, {
      onResume: async (past) => void (log = await openEventLog(folder, past)),
      onStep(metrics) {
        log.add(metrics);
        if (metrics.step === failAt) throw new Error("The power is gone");
      },
      onEvaluation: (metrics) => log.addEvaluation(metrics),
      onSave: () => flushed ? log.flush() : undefined,
    });
    if (failAt) return await assert.rejects(run, /The power is gone/);
    await run;
    await log!.flush();
  };
  await start(3, true); // state and events of 2 steps
  await start(5, false); // a state of 4 steps whose events never got out
  await start(0, true);
  const names = (await folder.folder("tensorboard").list()).sort();
  assert.equal(names.length, 2);
  const events: ScalarEvent[] = [];
  for (const name of names) events.push(...decodeEvents(await folder.folder("tensorboard").read(name), name));
  const stepsOf = (tag: string) => events.filter(({ scalars }) => tag in scalars).map(({ step }) => step);
  assert.deepEqual(stepsOf("train/loss"), [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(stepsOf("eval/loss"), [3, 6, 7]);
  const metrics = new TextDecoder().decode(await folder.read("metrics.jsonl")).trim().split("\n")
    .map((line) => JSON.parse(line));
  for (const { step, scalars } of events) {
    for (const [tag, value] of Object.entries(scalars)) {
      if (tag === "train/tokens_per_second") assert(value > 0, `${value} tokens a second`);
      else {
        const key = tag.replace("train/", "").replace("eval/", "eval_");
        assert.equal(value, Math.fround(metrics[step - 1][key]), `${tag} of step ${step}`);
      }
    }
  }
});
