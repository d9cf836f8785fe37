/**
 * The study's presets: every value of the published settings, parameter counts on published configs without weights, and
 * files that depart from a preset.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { chainsOf } from "../core/study/cells.ts";
import { type StudyConfigInput, studySchema, tapRequests } from "../core/study/config.ts";
import { parseStudy, PRESETS } from "../core/study/presets.ts";
import { modelCosts, studyTable } from "../scripts/study_plan.ts";
import { identifyStudy, loadStudy } from "../scripts/study_setup.ts";
import { FIXTURES } from "./check.ts";

const CONFIGS = `${FIXTURES}/configs`;
const refused = (message: RegExp) => (error: unknown) => {
  assert(error instanceof InputError, String(error));
  assert.match(error.message, message);
  return true;
};

Deno.test("llava and qwen_vl hold the published settings", () => {
  const { models: [llava], ...study } = parseStudy({ preset: "llava" }, "test");
  assert.deepEqual(
    [llava.lora!.r, llava.lora!.lora_alpha, llava.lora!.lora_dropout],
    [128, 256, 0.05],
  );
  const { lr, projectorLr, schedule, warmup, weightDecay, beta2, clip, epochs, maxLength, checkpointed } =
    llava.train;
  assert.deepEqual(
    { lr, projectorLr, schedule, warmup, weightDecay, beta2, clip, epochs, maxLength, checkpointed },
    {
      ...{ lr: 2e-4, projectorLr: 2e-5, schedule: "cosine", warmup: 0.03, weightDecay: 0, beta2: 0.999 },
      ...{ clip: 1, epochs: 1, maxLength: 2048, checkpointed: true },
    },
  );
  assert.equal(llava.template, "vicuna_v1");
  assert.deepEqual([study.batchSizes, study.seeds, study.people, study.probe.scenes], [[16], [42], 20, 25]);
  assert.deepEqual(study.probe.prompts.map(({ text }) => text), [
    "What is the username?",
    "What is the user_id of the username?",
  ]);
  assert.deepEqual([study.probe.c, study.probe.reductions[0]], [1, "index:-2"]);
  const { split, testSize, seed, centerScenes, standardize } = study.probe.faithful;
  assert.deepEqual([split, testSize, seed, centerScenes, standardize], ["image", 0.2, 42, false, false]);
  assert.deepEqual(study.data.map(({ name }) => name), ["coco", "gqa", "ocr-vqa", "textvqa", "vg"]);

  const { models: [qwen], batchSizes } = parseStudy({ preset: "qwen_vl" }, "test");
  assert.deepEqual(qwen.lora, {
    ...{ r: 64, lora_alpha: 16, lora_dropout: 0.05, use_rslora: false },
    target_modules: ["c_attn", "attn.c_proj", "w1", "w2"],
  });
  const train = qwen.train;
  assert.deepEqual(
    [train.lr, train.weightDecay, train.beta2, train.warmup, train.schedule, train.clip, train.maxLength],
    [1e-5, 0.1, 0.95, 0.01, "cosine", 1, 2048],
  );
  assert.deepEqual([batchSizes, qwen.template, qwen.trainable], [[12], "chatml", []]);
});

const COUNTS: [preset: string, config: string, parameters: number, trained: number][] = [
  // LoRA of the seven linear layers of 32 blocks at r 128, and the projector's 1024 x 4096 and 4096 x 4096 with biases.
  ["llava", "llava-1.5-7b-hf.json", 7063427072, 319815680 + 20979712],
  // c_attn, c_proj, w1 and w2 of 32 blocks at r 64.
  ["qwen_vl", "Qwen-VL-Chat.json", 9656935168, 112197632],
  ["smolvlm", "SmolVLM-256M-Instruct.json", 256484928, 46153728],
];
for (const [preset, file, parameters, trained] of COUNTS) {
  Deno.test(`${preset} is planned from a published config without weights or data`, async () => {
    const modelConfig = await Deno.makeTempFile({ suffix: ".json" });
    const json = JSON.parse(await Deno.readTextFile(`${CONFIGS}/${file}`));
    await Deno.writeTextFile(modelConfig, JSON.stringify(json.config ?? json));
    const config = await loadStudy({ preset, data: [], seeds: [] });
    // One data set and one arm are enough for the counts.
    config.data = config.data.slice(0, 1);
    const study = await identifyStudy(config, { modelConfig });
    const costs = await modelCosts(study, { gflops: 30_000, modelConfig });
    const { plan } = costs.get(config.models[0].name)!;
    assert.equal(plan.parameters, parameters);
    assert.equal(plan.trained, trained);
    const table = studyTable(study, chainsOf(study.cells), new Set(), costs);
    assert.match(table, new RegExp(`, ${study.cells.length} to do`));
    assert.match(table, /r100, batch 1[26] +\d+ +0\/6 /);
    const all = new Set(study.cells.map(({ id }) => id));
    assert.match(studyTable(study, chainsOf(study.cells), all, costs), /, 0 to do/);
    await Deno.remove(modelConfig);
  });
}

Deno.test("a file departs from a preset by what it says", () => {
  const file = {
    preset: "tiny",
    arms: ["base", "r0", "known"],
    models: [{ name: "builtin-tiny", train: { steps: 5 } }],
    probe: { draws: 7 },
  };
  const config = parseStudy(file, "file.json");
  assert.deepEqual(config.arms, file.arms);
  assert.equal(config.models[0].train.steps, 5);
  assert.equal(config.models[0].train.lr, 1e-3);
  assert.equal(config.models[0].path, "builtin:tiny");
  assert.deepEqual([config.probe.draws, config.probe.partitions], [7, 8]);
  // "who" is not among its arms: the preset's words about it go, the file's own would be refused later.
  assert.deepEqual(Object.keys(config.tuning), ["known"]);
  assert.deepEqual(Object.keys(parseStudy({ ...file, tuning: { who: { steps: 1 } } }, "f").tuning).sort(), [
    "known",
    "who",
  ]);
  // Another checkpoint is not made of the preset's parts.
  const whole =
    parseStudy({ preset: "llava", models: [{ name: "llava-1.5-7b", path: "hf" }] }, "f").models[0];
  assert.deepEqual([whole.path, whole.visionTower, whole.lora!.r], ["hf", undefined, 128]);
  assert.throws(
    () => parseStudy({ preset: "huge" }, "f"),
    refused(/"f": preset is "huge", expected one of tiny/),
  );
  assert.throws(() => parseStudy({ preset: "tiny", seed: 3 }, "f"), refused(/"f": .*seed/s));
  assert.throws(
    () => parseStudy({ preset: "tiny", models: [{ name: "builtin-tiny", template: "jinja" }] }, "f"),
    refused(/template/),
  );
});

Deno.test("data and seeds are chosen by flags", async () => {
  const choice = { preset: "llava", data: ["gqa=my/gqa.json"], images: "my", seeds: [7] };
  const config = await loadStudy(choice);
  assert.deepEqual(config.data, [
    { kind: "llava", name: "gqa", data: "my/gqa.json", images: "my", testShare: 0.2 },
  ]);
  assert.deepEqual(config.seeds, [42, 7]);
  await assert.rejects(
    loadStudy({ ...choice, data: ["gqa"] }),
    refused(/--data "gqa": expected name=FILE for one of coco/),
  );
  await assert.rejects(loadStudy({ data: [], seeds: [] }), refused(/give one of --config and --preset/));
  await assert.rejects(identifyStudy(config, undefined), InputError);
});

Deno.test("every preset fits the schema, and a site may name its own reduction", () => {
  for (const preset of Object.values(PRESETS)) studySchema.parse(preset satisfies StudyConfigInput);
  assert.deepEqual(tapRequests({ sites: ["a@last", "b"], reductions: ["mean", "index:-2"] }), [
    { site: "a", reduction: "last" },
    { site: "b", reduction: "mean" },
    { site: "b", reduction: "index:-2" },
  ]);
});
