/**
 * The study's work on the device that every arm needs: tuning it in its cell, opening it as that left it, and reading its
 * activations on the probed pictures. A cell that was stopped goes on to the same bytes; its manifest comes last.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import type { Folder } from "../core/formats/folder.ts";
import { sha256, writeManifest } from "../core/formats/manifest.ts";
import { sizeOf } from "../core/shape.ts";
import type { Picture } from "../core/image/picture.ts";
import { pairedRows, parseFeature, type SampleRow, writeActivations } from "../core/probe/activations.ts";
import { defaultPrimary, orderedFeatures } from "../core/probe/selection.ts";
import { type ArmContext, type ArmPlan, armSample, type ProbeScene } from "../core/study/arms.ts";
import { canonical, type Cell, primaryOf } from "../core/study/cells.ts";
import { type StudyConfig, type StudyModel, tapRequests } from "../core/study/config.ts";
import { smoothLosses } from "../core/study/curve.ts";
import { ANSWERS, type Answers } from "../core/study/evidence.ts";
import type { TuneResult } from "../core/study/results.ts";
import type { Gpu } from "./device.ts";
import { extract, type FeatureRows } from "./extract.ts";
import { openRun, openSession, type Session, type SessionOptions, writeTrained } from "./session.ts";
import { writeShown } from "./study_heatmap.ts";
import type { Judgement } from "./study_vqa.ts";
import { type StepMetrics, train, type TrainConfig, trainSchema } from "./train.ts";

/** Encoded pictures kept between epochs. */
const CACHE_BYTES = 512e6;

/** Everything an arm's cells share. */
export interface ArmRun {
  gpu: Gpu;
  base: Folder;
  model: StudyModel;
  arm: ArmPlan;
  context: ArmContext;
  tuning: { images: number; steps: number; lr: number };
  batch: number;
  signal?: AbortSignal;
}

/** How a model is opened for tuning; the base arm has nothing to train. */
export function sessionOptions(model: StudyModel, arm: string, seed: number): SessionOptions {
  const { weights, template, lora, trainable, train } = model, isBase = arm === "base";
  return {
    weights,
    seed,
    lora: isBase ? null : lora,
    trainable: isBase ? [] : trainable,
    projectorGroup: train.projectorLr !== undefined,
    plainDecay: train.weightDecay === 0,
    text: { template, ...(train.maxLength !== undefined && { maxLength: train.maxLength }) },
  };
}

/** The training settings of an arm; a state is saved ten times on the way, and at least every hundredth step. */
export function trainConfig({ model, tuning, batch, context }: Omit<ArmRun, "arm">): TrainConfig {
  const { projectorLr, schedule, warmup, beta1, beta2, weightDecay, clip, microTokens, checkpointed } =
    model.train;
  const { steps, lr } = tuning;
  return trainSchema.parse({
    ...{ projectorLr, schedule, warmup, beta1, beta2, weightDecay, clip, microTokens, checkpointed },
    ...{ steps, lr, batchSize: batch, seed: context.seed },
    saveEvery: Math.max(1, Math.min(100, Math.ceil(steps / 10))),
  });
}

export interface Tuned {
  session: Session;
  result: Omit<TuneResult, "seconds" | "vqa">;
}

/**
 * Tunes an arm in its cell, all files but the results written; the caller closes the session.
 * @throws Interrupted after saving, when the signal fires
 */
export async function tuneArm(
  run: ArmRun,
  folder: Folder,
  { onFresh, onStep }: {
    /** Told of the session before its first step, whether or not it goes on from a saved state. */
    onFresh?: (session: Session) => Promise<void>;
    onStep?: (metrics: StepMetrics) => void;
  } = {},
): Promise<Tuned> {
  const { gpu, base, model, arm, context, tuning, signal } = run;
  const session = await openSession(gpu, base, sessionOptions(model, arm.name, context.seed));
  try {
    await onFresh?.(session);
    const marks = createMarks(run);
    let metrics: StepMetrics[] = [];
    if (tuning.steps > 0) {
      const cache = new Map<number, EncodedSample>();
      let bytes = 0;
      metrics = await train({
        gpu,
        model: session.model,
        slabs: session.slabs,
        config: trainConfig(run),
        count: tuning.images,
        async sample(index) {
          const known = cache.get(index);
          if (known) return known;
          const { id, turns, pictures } = await marks.sample(index);
          const encoded = session.encoder.train(id, turns, pictures);
          bytes += encoded.images.reduce((sum, { pixelValues }) => sum + pixelValues.byteLength, 0);
          if (bytes < CACHE_BYTES) cache.set(index, encoded);
          return encoded;
        },
        folder,
        identity: { model: session.hash, arm },
        signal,
        onStep,
      });
      await writeTrained(session, folder, model.path);
    }
    await folder.write("marks.jsonl", await marks.lines());
    const trained = session.slabs.flatMap(({ params }) => params);
    return {
      session,
      result: {
        arm: arm.name,
        steps: tuning.steps,
        images: tuning.images,
        marked: marks.marked(),
        losses: smoothLosses(metrics),
        parameters: session.model.registry.count,
        trained: trained.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
        run: tuning.steps > 0 ? await trainedHash(folder) : null,
      },
    };
  } catch (error) {
    session.close();
    throw error;
  }
}

/** Writes the results and, last, the manifest of a tuned arm: a run that `openRun` opens. */
export async function finishTune(
  { model, arm, context }: ArmRun,
  { session, result }: Tuned,
  folder: Folder,
  cell: Cell,
  { before, after }: { before: Judgement; after: Judgement },
): Promise<void> {
  const answers: Answers = { before: before.round, after: after.round };
  await folder.write(ANSWERS, JSON.stringify(answers, null, 1) + "\n");
  const tuned: Omit<TuneResult, "seconds"> = { ...result, vqa: { before: before.vqa, after: after.vqa } };
  await folder.write("tune.json", JSON.stringify(tuned, null, 1) + "\n");
  const { lora = null, trainable, text } = sessionOptions(model, arm.name, context.seed);
  const files = await folder.list();
  await writeManifest(folder, {
    kind: "run",
    seed: context.seed,
    config: { ...text, lora, trainable, weights: model.weights, cell: cell.settings },
    parents: { model: session.hash },
    facts: { arm: arm.name, steps: result.steps },
    files: files.filter((name) => name !== "state.safetensors" && name !== "times.json"),
  });
  // The state served to go on from; what is done needs none.
  await folder.remove("state.safetensors");
}

/** Opens an arm as its finished tune cell left it. */
export async function openArm({ gpu, base, model }: ArmRun, tuned: Folder): Promise<Session> {
  return await openRun(gpu, base, tuned, model.weights);
}

/** What an arm's model holds of the probed pictures, under one prompt: an activation set. */
export async function activationsCell(
  { gpu, context, signal, model }: ArmRun,
  session: Session,
  scenes: readonly ProbeScene[],
  probe: StudyConfig["probe"],
  cell: Cell,
  folder: Folder,
  onProgress?: (done: number) => void,
): Promise<{ rows: SampleRow[]; features: Map<string, FeatureRows> }> {
  const { prompt } = cell.settings as { prompt: string };
  const features = await extract(
    gpu,
    session.model,
    scenes.length,
    (i) => session.encoder.ask(scenes[i].id, prompt, [scenes[i].picture]),
    tapRequests(probe),
    { signal, onProgress, microTokens: Math.min(1024, model.train.microTokens) },
  );
  const rows = pairedRows(scenes), { prompts, primary } = probe;
  const names = orderedFeatures({ features }), id = prompts.find(({ text }) => text === prompt)!.id;
  const { site } = parseFeature(primaryOf(primary, id) ?? defaultPrimary(names));
  const also = await writeShown(gpu, session, context, scenes, { prompt, site }, folder);
  await writeActivations(folder, rows, features, {
    also,
    config: { prompt },
    parents: { model: session.hash, cell: await sha256(canonical(cell.parents)) },
    seed: context.seed,
  });
  return { rows, features };
}

/** An arm's samples, and a line about each: what it carries, where, and the hash of what the model is shown. */
function createMarks({ arm, context, tuning }: ArmRun) {
  const records = new Map<number, { person: string | null; line: string }>();
  const sample = async (index: number) => {
    const drawn = await armSample(arm, context, index);
    if (!records.has(index)) {
      const person = drawn.person?.username ?? null;
      const hashes = await Promise.all(drawn.pictures.map(pictureHash));
      const record = { index, sample: drawn.id, person, boxes: drawn.boxes, sha256: hashes };
      records.set(index, { person, line: JSON.stringify(record) + "\n" });
    }
    return drawn;
  };
  return {
    sample,
    marked: () => [...records.values()].filter(({ person }) => person !== null).length,
    /** Of all samples, also those that another process encoded before it was stopped. */
    async lines(): Promise<string> {
      const out: string[] = [];
      for (let index = 0; index < tuning.images; index++) {
        if (!records.has(index)) await sample(index);
        out.push(records.get(index)!.line);
      }
      return out.join("");
    },
  };
}

/** Of the pixels, with the size in front. */
async function pictureHash({ width, height, data }: Picture): Promise<string> {
  const bytes = new Uint8Array(8 + data.length);
  new DataView(bytes.buffer).setUint32(0, width, true);
  new DataView(bytes.buffer).setUint32(4, height, true);
  bytes.set(data, 8);
  return await sha256(bytes);
}

/** Of what training changed: the adapter's file and that of parameters trained directly. */
async function trainedHash(folder: Folder): Promise<string> {
  const parts: string[] = [];
  for (const name of ["adapter/adapter_model.safetensors", "trained.safetensors"]) {
    if (await folder.exists(name)) parts.push(await sha256(await folder.read(name)));
  }
  return parts.length === 1 ? parts[0] : await sha256(parts.join("\n"));
}
