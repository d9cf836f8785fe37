/**
 * `deno task train`: fine-tunes a model on a LLaVA-format data set with LoRA. Interrupted or killed, the same command
 * goes on from the last saved state to the same bits.
 */
import { z } from "zod";
import type { SampleEncoder } from "../core/data/encode.ts";
import type { EncodedSample } from "../core/data/pack.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { textSchema } from "../core/text/codec.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { peftHash } from "../gpu/peft.ts";
import { loadAdapter, openSession, writeTrained } from "../gpu/session.ts";
import { train, trainSchema } from "../gpu/train.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { type Dataset, openDataset } from "./dataset.ts";
import { DiskFolder } from "./folder.ts";
import { adaptersOf, loraFlags } from "./lora_settings.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { progress } from "./progress.ts";

/** Bytes of processed pictures kept in memory between epochs. */
const CACHE_BYTES = 512 * 2 ** 20;

/** A function from index to encoded sample that decodes each picture once as long as they fit into memory. */
export function cachedSamples(
  data: Dataset,
  encoder: SampleEncoder,
  labels: "train" | "judge" = "train",
): (index: number) => Promise<EncodedSample> {
  const cache = new Map<number, EncodedSample>();
  let bytes = 0;
  return async (index) => {
    const known = cache.get(index);
    if (known) return known;
    const sample = data.samples[index];
    const encoded = encoder[labels](sample.id, sample.turns, await data.pictures(sample));
    bytes += encoded.images.reduce((sum, { pixelValues }) => sum + pixelValues.byteLength, 0);
    if (bytes < CACHE_BYTES) cache.set(index, encoded);
    return encoded;
  };
}

/** Share of the most frequent answer: what guessing without looking gets. */
function majority(data: Dataset): number {
  const counts = new Map<string, number>(),
    answers = data.samples.flatMap(({ turns }) => turns.map(({ answer }) => answer));
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  return Math.max(...counts.values()) / answers.length;
}

if (import.meta.main) {
  await runTask({
    name: "train",
    summary: "Fine-tune a model on images and conversations in LLaVA's format",
    schema: trainSchema.extend({
      ...modelFlags,
      data: z.string().describe("conversations in LLaVA's or Qwen-VL's JSON"),
      images: z.string().describe("folder that the records' image paths start from"),
      out: z.string().describe("folder of the run"),
      ...loraFlags,
      trainable: z.array(z.string()).default([]).describe(
        "regular expressions on parameters trained directly, without adapter",
      ),
      ...textSchema.shape,
      evalData: z.string().optional().describe("held-out conversations, answered before and after"),
      evalImages: z.string().optional().describe("its images (default: --images)"),
      weights: z.enum(["f32", "bf16"]).default("f32").describe("how frozen matrices lie on the GPU"),
      adapter: z.string().optional().describe("WebGPU adapter by name or index"),
    }),
    examples: [
      "deno task train --data data.json --images images --out runs/first",
      "deno task train --data data.json --images images --out runs/open --trainable vision_tower,multi_modal_projector",
    ],
    async run(settings) {
      const {
        model,
        data,
        images,
        out,
        trainable,
        evalData,
        evalImages,
        weights,
        adapter,
        template,
        system,
        date,
        maxLength,
        adapterFrom,
      } = settings;
      const config = trainSchema.parse(settings);
      const folder = new DiskFolder(out), base = await modelFolder(model, settings);
      const dataset = await openDataset(data, images);
      const heldOut = evalData ? await openDataset(evalData, evalImages ?? images) : undefined;
      const { lora, tensors } = await adaptersOf(settings, base);
      const gpu = await openGpu(adapter);
      const text = { template, system, date, maxLength };
      const session = await openSession(gpu, base, {
        ...{ weights, lora, trainable, seed: config.seed, text },
        projectorGroup: config.projectorLr !== undefined,
        plainDecay: config.weightDecay === 0,
      });
      if (tensors) loadAdapter(session, tensors);
      const trained = session.slabs.reduce((sum, { param }) => sum + param.shape[0], 0);
      console.error(
        `${session.model.family}: ${session.model.registry.count} parameters, ${trained} trained, on ${gpu.name}`,
      );
      const answer = async (data: Dataset) => {
        const sample = cachedSamples(data, session.encoder, "judge");
        return await evaluate(
          gpu,
          session.model,
          await Promise.all(data.samples.map((_, i) => sample(i))),
          config.microTokens,
        );
      };
      const before = heldOut && await answer(heldOut);
      const parents = {
        model: session.hash,
        data: dataset.hash,
        ...(adapterFrom && { adapter: await peftHash(new DiskFolder(adapterFrom)) }),
      };
      const bar = progress("training", config.steps);
      const metrics = await train({
        gpu,
        model: session.model,
        slabs: session.slabs,
        config,
        count: dataset.samples.length,
        sample: cachedSamples(dataset, session.encoder),
        folder,
        identity: { ...parents, lora, trainable, text },
        signal: interruptSignal(),
        onStep: ({ step, loss }) => bar.update(step, `loss ${loss.toFixed(4)}`),
      });
      bar.stop();
      await writeTrained(session, folder, model);
      const after = heldOut && await answer(heldOut);
      const report = (e?: { loss: number; accuracy: number }) => e && { loss: e.loss, accuracy: e.accuracy };
      const facts = {
        first_loss: metrics[0].loss,
        last_loss: metrics.at(-1)!.loss,
        adapter: gpu.name,
        ...(heldOut &&
          { held_out: { before: report(before), after: report(after), majority: majority(heldOut) } }),
      };
      const files = (await folder.list()).filter((name) => name !== "state.safetensors");
      await writeManifest(folder, {
        kind: "run",
        seed: config.seed,
        config: { ...settings, lora, trainable },
        parents,
        facts,
        files,
      });
      console.log(JSON.stringify(facts));
      gpu.close();
    },
  });
}
