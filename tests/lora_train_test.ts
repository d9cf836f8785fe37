/**
 * Training adapters and whole modules together: torch's losses with rates and decay by group, the groups themselves,
 * and a stopped run that goes on to the same bits and is opened as it was left.
 */
import assert from "node:assert/strict";
import { MemoryFolder, readJson } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { openGpu } from "../gpu/device.ts";
import { logitsOf } from "../gpu/logits.ts";
import { checkBatch } from "../gpu/merge_check.ts";
import { createModel } from "../gpu/models/create.ts";
import { optimizerStep, zeroGrad } from "../gpu/nn/optimizer.ts";
import { readBatch } from "../gpu/parity.ts";
import { openTunedPeft, peftHash } from "../gpu/peft.ts";
import { decays, openRun, openSession, writeTrained } from "../gpu/session.ts";
import { accumulateGradients, train, trainSchema } from "../gpu/train.ts";
import { adaptersOf, loraOf } from "../scripts/lora_settings.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { openChosen, tunedParent } from "../scripts/tuned.ts";
import { FIXTURES } from "./check.ts";
import { EVERYWHERE, sceneSamples, smallCheckpoint } from "./tiny_model.ts";

const gpu = await openGpu();
const checkpoint = await smallCheckpoint();

const RATES: Record<string, number> = { lora: 1e-2, projector: 4e-3, full: 2e-3 };
for (const name of ["llama_patterns", "llama_tied", "llava_projector", "smolvlm_connector"]) {
  Deno.test(`${name}: six steps with rates and decay by group lose as torch's`, async () => {
    const base = new DiskFolder(`${FIXTURES}/models/${name.replace(/_[a-z]+$/, "")}`);
    const adapter = new DiskFolder(`${FIXTURES}/adapters/${name}`);
    const expected = await SafetensorsFile.open(await adapter.open("logits.safetensors"));
    const reference = await SafetensorsFile.open(await base.open("case.safetensors"));
    const tuned = await openTunedPeft(gpu, base, adapter, { projectorGroup: true, plainDecay: false });
    const batch = await readBatch(tuned.model, reference), losses: number[] = [];
    for (let step = 1; step <= 6; step++) {
      using _scope = gpu.pool.scope();
      zeroGrad(gpu, tuned.slabs);
      const options = { checkpointed: false, dropoutSeed: 0 };
      const [loss] = accumulateGradients(gpu, tuned.model, [batch], options);
      const betas = { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
      const lr = (group: string) => RATES[group];
      optimizerStep(gpu, tuned.slabs, { ...betas, lr, weightDecay: 0.5, step, maxNorm: 0 });
      losses.push((await gpu.read(loss))[0][0]);
    }
    const theirs = await expected.f32("losses");
    const worst = Math.max(...losses.map((loss, i) => Math.abs(loss / theirs[i] - 1)));
    assert(worst <= 1e-4, `losses ${losses.join(", ")}, torch ${theirs.join(", ")}`);
    assert(theirs[5] < 0.9 * theirs[0], "too little was learnt to tell a wrong rate");
    for (const file of [expected, reference]) file.source.close();
    tuned.close();
  });
}

Deno.test("decay reaches as many parameters as in transformers' Trainer", async () => {
  // len(Trainer.get_decay_parameter_names(model)) of parameters that exist, transformers 5.18.
  const counts = { llama: 29, llava: 53, qwen2_vl: 45, qwen2_5_vl: 40, smolvlm: 51, idefics3: 51 };
  for (const [family, count] of Object.entries(counts)) {
    const { registry } = createModel(
      await readJson(new DiskFolder(`${FIXTURES}/models/${family}`), "config.json"),
    );
    // Here every parameter counts; in training what never computes has no gradient and does not decay.
    const all = [...registry.params.values()].map(({ name, shape }) => ({ name, shape, used: true }));
    assert.equal(all.filter((param) => decays(param as never, registry)).length, count, family);
  }
});

Deno.test("adapters, projector and the rest are groups of their own only where rates differ", async () => {
  const options = {
    lora: { ...EVERYWHERE, modules_to_save: ["multi_modal_projector"] },
    trainable: ["vision_tower.embeddings"],
  };
  const groups = async (more: object) => {
    const session = await openSession(gpu, checkpoint, { ...options, ...more });
    session.close();
    return session.slabs.map(({ group, decays }) => `${group} ${decays}`);
  };
  assert.deepEqual(await groups({}), ["lora true", "full true"]);
  assert.deepEqual(await groups({ projectorGroup: true }), ["lora true", "projector true", "full true"]);
  assert.deepEqual(await groups({ projectorGroup: true, plainDecay: false }), [
    ...["lora true", "projector true", "full true", "projector false"],
  ]);
});

Deno.test("each group moves by its own rate", async () => {
  const session = await openSession(gpu, checkpoint, {
    lora: { ...EVERYWHERE, modules_to_save: ["multi_modal_projector"] },
    trainable: ["language_model.norm"],
    projectorGroup: true,
  });
  const values = async () => await gpu.read(...session.slabs.map(({ param }) => param));
  const before = await values(), samples = sceneSamples(session, 2);
  const config = trainSchema.parse({
    ...{ steps: 1, batchSize: 2, warmup: 0, schedule: "constant", clip: 0 },
    ...{ lr: 1e-3, fullLr: 1e-4, projectorLr: 1e-2 },
  });
  await train({ ...session, config, count: 2, sample: (i) => samples[i] });
  const after = await values(),
    expected: Record<string, number> = { lora: 1e-3, projector: 1e-2, full: 1e-4 };
  session.slabs.forEach(({ group }, s) => {
    // The first step of AdamW moves whatever has a gradient by the rate.
    const moved = Math.max(...after[s].map((x, i) => Math.abs(x - before[s][i])));
    assert(Math.abs(moved / expected[group] - 1) < 0.02, `${group} moved by ${moved}`);
  });
  session.close();
});

Deno.test("a stopped run with modules trained whole goes on to the same bits and opens as it was left", async () => {
  const lora = {
    ...EVERYWHERE,
    use_rslora: true,
    modules_to_save: ["multi_modal_projector"],
    lora_dropout: 0.1,
  };
  const config = trainSchema.parse({
    steps: 6,
    batchSize: 2,
    saveEvery: 2,
    weightDecay: 0.1,
    projectorLr: 1e-3,
  });
  const options = { lora, projectorGroup: true, plainDecay: false };
  const attempt = async (folder: MemoryFolder, stopAt?: number) => {
    const session = await openSession(gpu, checkpoint, options), samples = sceneSamples(session, 5);
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => step === stopAt && stop.abort();
    const run = {
      ...session,
      config,
      folder,
      count: 5,
      sample: (i: number) => samples[i],
      onStep,
      signal: stop.signal,
    };
    await train(run).catch((error) => {
      if (stopAt === undefined) throw error;
    });
    return session;
  };
  const whole = new MemoryFolder("whole"), parts = new MemoryFolder("parts");
  const session = await attempt(whole);
  (await attempt(parts, 2)).close();
  (await attempt(parts)).close();
  assert.deepEqual(await parts.read("state.safetensors"), await whole.read("state.safetensors"));

  await writeTrained(session, whole, "small");
  await writeManifest(whole, { kind: "run", parents: { model: session.hash }, config: { lora } });
  const batch = await checkBatch(session.model, checkpoint), expected = await logitsOf(session, batch);
  session.close();
  const opened = await openRun(gpu, checkpoint, whole);
  assert.deepEqual(await logitsOf(opened, batch), expected);
  opened.close();
  const adapter = await openTunedPeft(gpu, checkpoint, whole.folder("adapter"));
  assert.deepEqual(await logitsOf(adapter, batch), expected);
  adapter.close();
});

Deno.test("a task opens the base, a run or an adapter of peft, and names which among the parents", async () => {
  const peft = await Deno.makeTempDir();
  try {
    const session = await openSession(gpu, checkpoint, { lora: EVERYWHERE });
    await writeTrained(session, new DiskFolder(peft), "small");
    session.close();
    const adapter = `${peft}/adapter`, options = { weights: "f32", text: {} } as const;
    assert.deepEqual(await tunedParent({}), {});
    assert.deepEqual(await tunedParent({ peft: adapter }), {
      adapter: await peftHash(new DiskFolder(adapter)),
    });
    await assert.rejects(tunedParent({ run: "a", peft: "b" }), /Cannot use --run and --peft at once/);
    const opened = await openChosen(gpu, checkpoint, { peft: adapter }, options);
    assert.equal(opened.lora!.r, EVERYWHERE.r);
    opened.close();
    const plain = await openChosen(gpu, checkpoint, {}, options);
    assert.equal(plain.lora, null);
    plain.close();
  } finally {
    await Deno.remove(peft, { recursive: true });
  }
});

// --- settings ---

const flags = (more: object = {}) => ({
  ...{
    r: 8,
    loraAlpha: 16,
    loraDropout: 0,
    targetModules: "all-linear",
    modulesToSave: [],
    useRslora: false,
  },
  ...more,
});

Deno.test("flags become peft's settings", () => {
  assert.deepEqual(loraOf(flags({ targetModules: "q_proj,attn.c_proj" }))!.target_modules, [
    "q_proj",
    "attn.c_proj",
  ]);
  assert.equal(loraOf(flags({ targetModules: ".*\\.(q|v)_proj" }))!.target_modules, ".*\\.(q|v)_proj");
  assert.equal(loraOf(flags({ targetModules: "all-linear" }))!.target_modules, "all-linear");
  const chosen = loraOf(
    flags({ targetModules: "q_proj", layersToTransform: [1], modulesToSave: ["lm_head"] }),
  )!;
  assert.deepEqual([chosen.layers_to_transform, chosen.modules_to_save], [[1], ["lm_head"]]);
  assert.equal(loraOf(flags({ r: 0 })), null);
  assert.throws(() => loraOf(flags({ r: 0, modulesToSave: ["lm_head"] })), /--modules-to-save with --r 0/);
  assert.throws(
    () => loraOf(flags({ layersToTransform: [1] })),
    /layers_to_transform needs target_modules to be a list/,
  );
});

Deno.test("a file or an adapter brings all settings; flags beside it are refused", async () => {
  const folder = `${FIXTURES}/adapters/llama_patterns`, base = new DiskFolder(`${FIXTURES}/models/llama`);
  const loraConfig = `${folder}/adapter_config.json`;
  assert.deepEqual(loraOf(flags({ loraConfig }))!.rank_pattern, {
    q_proj: 3,
    "^model\\.layers\\.3\\.mlp\\.down_proj": 1,
  });
  assert.throws(() => loraOf(flags({ loraConfig, r: 4 })), /Cannot use --lora-config together with "r"/);
  assert.throws(() => loraOf(flags({ loraConfig: "none.json" })), /Cannot read the config "none.json"/);
  const { lora, tensors } = await adaptersOf(flags({ adapterFrom: folder }), base);
  assert.equal(lora!.r, 2);
  assert.equal(tensors!.size, 10);
  await assert.rejects(
    adaptersOf(flags({ adapterFrom: folder, useRslora: true }), base),
    /together with "useRslora"/,
  );
  await assert.rejects(
    adaptersOf(flags({ adapterFrom: folder, loraConfig }), base),
    /together with "loraConfig"/,
  );
  assert.match(await peftHash(new DiskFolder(folder)), /^[0-9a-f]{64}$/);
});
