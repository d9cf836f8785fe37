/**
 * `deno task pretrain --out DIR`: makes the built-in model's checkpoint from nothing. Interrupted, it goes on where it was.
 */
import { z } from "zod";
import { writeManifest } from "../core/formats/manifest.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { tinyTokenizerJson } from "../core/text/tiny.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { initWeights, PRETRAIN_KINDS, pretrainSample, TINY_CONFIG, TINY_PROCESSOR } from "../gpu/pretrain.ts";
import { openBare } from "../gpu/session.ts";
import { train, trainSchema } from "../gpu/train.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { progress } from "./progress.ts";

await runTask({
  name: "pretrain",
  summary: "Train the built-in model builtin:tiny from scratch on drawn scenes",
  schema: trainSchema.extend({
    out: z.string().describe("folder of the checkpoint"),
    steps: z.number().int().positive().default(3000).describe("optimiser steps"),
    batchSize: z.number().int().positive().default(16).describe("scenes a step"),
    saveEvery: z.number().int().positive().default(250).describe("steps between two saved states"),
    scenes: z.number().int().positive().default(16000).describe("different scenes"),
    questions: z.number().int().positive().default(6).describe("questions a scene"),
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  async run({ out, scenes, questions, adapter, ...config }) {
    const gpu = await openGpu(adapter), folder = new DiskFolder(out), work = folder.folder("training");
    await folder.write("config.json", JSON.stringify(TINY_CONFIG, null, 2) + "\n");
    await folder.write("preprocessor_config.json", JSON.stringify(TINY_PROCESSOR, null, 2) + "\n");
    await folder.write("tokenizer.json", JSON.stringify(tinyTokenizerJson(), null, 1) + "\n");
    const session = await openBare(gpu, folder, { trainable: ["."] });
    initWeights(gpu, session.model, config.seed);
    const random = new Random(config.seed, "pretrain"), bar = progress("pre-training", config.steps);
    const started = performance.now();
    const metrics = await train({
      gpu,
      model: session.model,
      slabs: session.slabs,
      config,
      count: scenes,
      sample: (index) => pretrainSample(session.encoder, random, index, questions),
      folder: work,
      identity: { scenes, questions, sizes: TINY_CONFIG },
      signal: interruptSignal(),
      onStep: ({ step, loss }) => bar.update(step, `loss ${loss.toFixed(4)}`),
    });
    bar.stop();
    const heldOut = Array.from(
      { length: 200 },
      (_, i) => pretrainSample(session.encoder, random, scenes + i, questions),
    );
    const { accuracy, loss } = await evaluate(gpu, session.model, heldOut);
    const values = await gpu.read(...session.fullParams.map(({ tensor }) => tensor));
    const tensors = session.fullParams.map((
      { name, shape },
      i,
    ) => [name, { shape: [...shape], data: values[i] }]);
    await folder.write("model.safetensors", encodeSafetensors(Object.fromEntries(tensors), { format: "pt" }));
    const facts = {
      parameters: session.model.registry.count,
      final_loss: metrics.slice(-100).reduce((sum, { loss }) => sum + loss, 0) /
        Math.min(100, metrics.length),
      held_out: { scenes: heldOut.length, loss, accuracy, questions: PRETRAIN_KINDS },
      adapter: gpu.name,
      seconds: Math.round((performance.now() - started) / 1000),
    };
    const files = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"];
    await writeManifest(folder, {
      kind: "model",
      seed: config.seed,
      config: { ...config, scenes, questions },
      facts,
      files,
    });
    console.log(JSON.stringify(facts));
  },
});
