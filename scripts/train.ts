/**
 * `deno task train`: fine-tunes a model on a LLaVA-format data set with LoRA. Interrupted or killed, the same command
 * goes on from the last saved state to the same bits.
 */
import type { SampleEncoder } from "../core/data/encode.ts";
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import { teachesEnd, textSchema } from "../core/text/codec.ts";
import { openGpu } from "../gpu/device.ts";
import { evaluate } from "../gpu/evaluate.ts";
import { peftHash } from "../gpu/peft.ts";
import { loadAdapter, openSession, type Session, writeTrained } from "../gpu/session.ts";
import { bestStep, train, trainSchema } from "../gpu/train.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { type Dataset, openDataset } from "./dataset.ts";
import { DiskFolder } from "./folder.ts";
import { adaptersOf } from "./lora_settings.ts";
import { modelFolder } from "./model.ts";
import { planFirst } from "./plan_step.ts";
import { progress } from "./progress.ts";
import { type EventLog, openEventLog } from "./tensorboard.ts";
import { trainSettings } from "./train_settings.ts";
import { weightsOf } from "./weights.ts";

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

/** A function that answers held-out samples, `evalLimit` of them spread over the file, each encoded once. */
function answering(
  { gpu, model, encoder }: Session,
  data: Dataset,
  { microTokens, evalLimit = data.samples.length }: { microTokens: number; evalLimit?: number },
): () => Promise<{ loss: number; accuracy: number }> {
  const sample = cachedSamples(data, encoder, "judge"), all = data.samples.length;
  const count = Math.min(all, evalLimit);
  return async () => {
    const chosen = Array.from({ length: count }, (_, i) => sample(Math.floor(i * all / count)));
    const { loss, accuracy } = await evaluate(gpu, model, await Promise.all(chosen), microTokens);
    return { loss, accuracy };
  };
}

if (import.meta.main) {
  await runTask({
    name: "train",
    summary: "Fine-tune a model on images and conversations in LLaVA's format",
    schema: trainSettings,
    examples: [
      "deno task train --data data.json --images images --out runs/first",
      "deno task train --data data.json --images images --out runs/open --trainable vision_tower,multi_modal_projector",
    ],
    async run(settings) {
      const { model, data, images, out, trainable, evalData, evalImages, evalEvery, adapterFrom } = settings;
      const config = trainSchema.parse(settings), text = textSchema.parse(settings);
      const weights = weightsOf(settings);
      if (evalEvery !== undefined && evalData === undefined) {
        throw new InputError("Cannot use --eval-every: it needs --eval-data");
      }
      const folder = new DiskFolder(out), base = await modelFolder(model, settings);
      const dataset = await openDataset(data, images);
      const heldOut = evalData ? await openDataset(evalData, evalImages ?? images) : undefined;
      const { lora, tensors } = await adaptersOf(settings, base);
      const gpu = await openGpu(settings.adapter);
      await planFirst(gpu, base, dataset, lora, settings);
      const session = await openSession(gpu, base, {
        ...{ weights, lora, trainable, seed: config.seed, text },
        projectorGroup: config.projectorLr !== undefined,
        plainDecay: config.weightDecay === 0,
      });
      const { text: codec } = session.encoder;
      if (!teachesEnd(codec)) {
        console.error(
          `The template of ${codec.template} ends answers with no token: a model tuned with it does not learn to stop`,
        );
      }
      if (tensors) loadAdapter(session, tensors);
      const answer = heldOut && answering(session, heldOut, settings);
      const before = await answer?.();
      const parents = {
        model: session.hash,
        data: dataset.hash,
        ...(adapterFrom && { adapter: await peftHash(new DiskFolder(adapterFrom)) }),
      };
      const bar = progress("training", config.steps);
      let log: EventLog | undefined, evaluated = "";
      const metrics = await train({
        gpu,
        model: session.model,
        slabs: session.slabs,
        config,
        count: dataset.samples.length,
        sample: cachedSamples(dataset, session.encoder),
        folder,
        identity: { ...parents, lora, trainable, text, ...(weights !== "f32" && { weights }) },
        signal: interruptSignal(),
        evaluation: answer && evalEvery ? { every: evalEvery, run: () => log!.outside(answer) } : undefined,
        async onResume(past) {
          log = await openEventLog(folder, past);
        },
        onStep(metrics) {
          log!.add(metrics);
          bar.update(metrics.step, `loss ${metrics.loss.toFixed(4)}${evaluated}`);
        },
        onEvaluation(metrics) {
          log!.addEvaluation(metrics);
          evaluated = `, held out ${metrics.eval_loss!.toFixed(4)}`;
          bar.update(metrics.step, `loss ${metrics.loss.toFixed(4)}${evaluated}`);
        },
        onSave: () => log!.flush(),
      });
      bar.stop();
      await log!.flush(); // a kill between the last save and its events left them out
      await writeTrained(session, folder, model);
      const after = await answer?.(), best = bestStep(metrics);
      const facts = {
        first_loss: metrics[0].loss,
        last_loss: metrics.at(-1)!.loss,
        adapter: gpu.name,
        ...(heldOut &&
          { held_out: { before, after, majority: majority(heldOut) } }),
        ...(best && { best: { step: best.step, loss: best.eval_loss, accuracy: best.eval_accuracy } }),
      };
      const files = (await folder.list()).filter((name) =>
        name !== "state.safetensors" && !name.startsWith("tensorboard/")
      );
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
