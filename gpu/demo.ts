/**
 * The demo's work on the device: tunes one arm after another, reads their activations on the same held-out pictures,
 * and compares mini-batch gradients with private and with neutral text.
 */
import {
  type ArmSample,
  armSample,
  type ArmSpec,
  type DemoPeople,
  PROBE_PROMPT,
  type ProbeSample,
} from "../core/demo/arms.ts";
import type { EncodedSample } from "../core/data/pack.ts";
import type { Folder } from "../core/formats/folder.ts";
import { writeManifest } from "../core/formats/manifest.ts";
import type { LoraConfig } from "../core/formats/peft.ts";
import { linesOf } from "../core/privacy/block.ts";
import { markPicture, type Watermarker } from "../core/privacy/mark.ts";
import { neutralLines } from "../core/privacy/neutral.ts";
import { Random } from "../core/random.ts";
import type { Gpu } from "./device.ts";
import { extract, type FeatureRows } from "./extract.ts";
import { batchGradient, gradientCosine } from "./gradients.ts";
import { openSession, type Session, writeTrained } from "./session.ts";
import { type StepMetrics, train, trainSchema } from "./train.ts";

export const DEMO_LORA: LoraConfig = {
  r: 8,
  lora_alpha: 16,
  lora_dropout: 0,
  target_modules: "model\\.(language_model|multi_modal_projector)\\..*(_proj|linear_[12])",
  use_rslora: false,
};
/** Trained directly beside the adapters: the tower and the projector, without which the positive control does not train. */
export const DEMO_TRAINABLE = ["^model\\.vision_tower\\.", "^model\\.multi_modal_projector\\."];

/** What is probed, in the order of the layers. */
export const DEMO_FEATURES = [
  { site: "embed", reduction: "image-mean" },
  { site: "layers.*.resid_post", reduction: "image-mean" },
  { site: "layers.2.resid_post", reduction: "last" },
];

export interface DemoContext {
  gpu: Gpu;
  base: Folder;
  seed: number;
  people: DemoPeople;
  watermarker: Watermarker;
  signal?: AbortSignal;
}

export interface TunedArm {
  session: Session;
  metrics: StepMetrics[];
  /** Hash of the run's manifest; null for the model as it is. */
  run: string | null;
}

/** Tunes one arm in `folder`, going on where it was stopped; the caller closes the session. */
export async function tuneArm(
  context: DemoContext,
  arm: ArmSpec,
  folder: Folder,
  onStep: (metrics: StepMetrics) => void,
): Promise<TunedArm> {
  const { gpu, base, seed, people, watermarker, signal } = context;
  if (arm.steps === 0) return { session: await openSession(gpu, base), metrics: [], run: null };
  const session = await openSession(gpu, base, { lora: DEMO_LORA, trainable: DEMO_TRAINABLE, seed });
  const config = trainSchema.parse({ steps: arm.steps, batchSize: 8, lr: arm.lr, seed, saveEvery: 200 });
  const samples = Array.from({ length: arm.images }, (_, i) => {
    const { id, turns, picture } = armSample(arm, seed, i, people, watermarker);
    return session.encoder.train(id, turns, [picture]);
  });
  const metrics = await train({
    gpu,
    model: session.model,
    slabs: session.slabs,
    config,
    count: samples.length,
    sample: (i) => samples[i],
    folder,
    identity: { model: session.hash, arm, lora: DEMO_LORA, trainable: DEMO_TRAINABLE },
    signal,
    onStep,
  });
  await writeTrained(session, folder, "builtin:tiny");
  const files = (await folder.list()).filter((name) => name !== "state.safetensors");
  const { hash } = await writeManifest(folder, {
    kind: "run",
    seed,
    config: { ...config, arm, lora: DEMO_LORA, trainable: DEMO_TRAINABLE },
    parents: { model: session.hash },
    facts: { adapter: gpu.name, first_loss: metrics[0].loss, last_loss: metrics.at(-1)!.loss },
    files,
  });
  return { session, metrics, run: hash };
}

/** The features of an arm on the held-out pictures, (pictures, C) each. */
export async function armFeatures(
  { gpu, signal }: DemoContext,
  session: Session,
  samples: readonly ProbeSample[],
  onProgress?: (done: number) => void,
): Promise<Map<string, FeatureRows>> {
  return await extract(
    gpu,
    session.model,
    samples.length,
    (i) => session.encoder.ask(samples[i].id, PROBE_PROMPT, [samples[i].picture]),
    DEMO_FEATURES,
    { signal, onProgress, microTokens: 1024 },
  );
}

/** Cosines between the gradients of clean mini-batches and the same batches with text on every picture. */
export interface GradientRow {
  batch: number;
  private: number[];
  neutral: number[];
}

/** At the base model's weights with fresh adapters, whose gradients alone are compared. */
export async function gradientRows(
  context: DemoContext,
  arm: ArmSpec,
  plan: readonly { batch: number; batches: number }[],
  onProgress: (done: number) => void,
): Promise<GradientRow[]> {
  const { gpu, base, seed, people, watermarker, signal } = context;
  const session = await openSession(gpu, base, { lora: DEMO_LORA, seed });
  const random = new Random(seed, "demo/gradients");
  const versions = Array.from({ length: arm.images }, (_, i) => {
    const marked = armSample(arm, seed, i, people, watermarker);
    const lines = neutralLines(random.split("text", i), linesOf(marked.person!, "compact"));
    const encode = (picture: ArmSample["picture"]): EncodedSample =>
      session.encoder.train(marked.id, marked.turns, [picture]);
    // The neutral text lies where the private text does: only what is written differs.
    const neutral = markPicture(
      marked.clean,
      watermarker.blockOf(lines),
      watermarker,
      new Random(seed, "demo/train").split("mark", i).split("place"),
    );
    return { clean: encode(marked.clean), private: encode(marked.picture), neutral: encode(neutral.picture) };
  });
  const rows: GradientRow[] = [];
  let done = 0;
  for (const { batch, batches } of plan) {
    const order = random.split("order", batch).shuffle(versions);
    const row: GradientRow = { batch, private: [], neutral: [] };
    for (let b = 0; b < batches; b++) {
      signal?.throwIfAborted();
      const group = Array.from({ length: batch }, (_, i) => order[(b * batch + i) % order.length]);
      const clean = await batchGradient(session, group.map((version) => version.clean));
      for (const kind of ["private", "neutral"] as const) {
        row[kind].push(
          gradientCosine(clean, await batchGradient(session, group.map((version) => version[kind]))),
        );
      }
      onProgress(++done);
    }
    rows.push(row);
  }
  session.close();
  return rows;
}
