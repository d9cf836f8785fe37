/**
 * The stages of the demo, in order; each leaves its artifact behind, and a stopped demo goes on with the arm it was at.
 * It returns the report's data: every number in it was measured in this run.
 */
import {
  ARMS,
  armSample,
  type ArmSpec,
  demoPeople,
  PROBE_PROMPT,
  type ProbeSample,
  probeSamples,
} from "../core/demo/arms.ts";
import { meanWithInterval } from "../core/probe/student.ts";
import { type ProbePlan, resultsOf, storeProbe } from "../core/demo/probes.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { VERSION, writeManifest } from "../core/formats/manifest.ts";
import { encodeImage } from "../core/image/codecs.ts";
import type { Picture } from "../core/image/picture.ts";
import { pairedRows, writeActivations } from "../core/probe/activations.ts";
import type { FittedProbe } from "../core/probe/fit.ts";
import { createWatermarker } from "../core/privacy/mark.ts";
import { TINY_WATERMARK } from "../core/privacy/watermark.ts";
import { formatPeople } from "../core/privacy/people.ts";
import type { DemoReport, Gradients } from "../core/report/schema.ts";
import { smoothLosses } from "../core/study/curve.ts";
import { serveApp } from "../functions/serve.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { armFeatures, type DemoContext, gradientRows, tuneArm } from "../gpu/demo.ts";
import type { Gpu } from "../gpu/device.ts";
import { openRun } from "../gpu/session.ts";
import { createGpuEncoder } from "./encoder.ts";
import { type ProbeTask, startProbes } from "./demo_probe.ts";
import { progress } from "./progress.ts";

export interface DemoSettings {
  gpu: Gpu;
  base: Folder;
  folder: Folder;
  seed: number;
  quick: boolean;
  arms: ArmSpec[];
  command: string;
  /** performance.now() at the start of the task. */
  started: number;
  signal: AbortSignal;
}

/** Named before any result was seen: the first block after the image tokens have met the decoder, their mean. */
export const PRIMARY = "layers.0.resid_post@image-mean";
const PROBE_ID = "known-people";
export const DEMO_PEOPLE = 8;
type Plan = ProbePlan & {
  scenes: number;
  gradients: { batch: number; batches: number }[];
  shorten: number;
  positive: number;
};
const PLAN: Record<"whole" | "quick", Plan> = {
  whole: {
    scenes: 24,
    partitions: 8,
    draws: 200,
    gradients: [{ batch: 1, batches: 24 }, { batch: 4, batches: 16 }, { batch: 16, batches: 8 }],
    shorten: 1,
    positive: 1,
  },
  quick: { scenes: 12, partitions: 8, draws: 99, gradients: [], shorten: 1 / 3, positive: 5 / 8 },
};

/** Runs every stage. @throws Interrupted when the signal fires, after the arm under way has been saved */
export async function runDemo(settings: DemoSettings): Promise<DemoReport> {
  const { gpu, base, folder, seed, quick, signal } = settings;
  const plan = PLAN[quick ? "quick" : "whole"];
  // The positive control keeps more of its steps: it learns late or not at all.
  const arms = settings.arms.map((arm) => ({
    ...arm,
    steps: Math.round(arm.steps * (arm.role === "positive" ? plan.positive : plan.shorten)),
  }));
  const stages: DemoReport["provenance"]["stages"] = [];
  const stage = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    stages.push({ name, seconds: (performance.now() - start) / 1000 });
    return result;
  };

  const people = demoPeople(seed, DEMO_PEOPLE), watermarker = await createWatermarker(TINY_WATERMARK);
  const context: DemoContext = { gpu, base, seed, people, watermarker, signal };
  const samples = await stage("people", async () => {
    const sets = folder.folder("people");
    for (const [name, set] of Object.entries(people)) await sets.write(`${name}.jsonl`, formatPeople(set));
    await writeManifest(sets, { kind: "people", seed, config: { sizes: DEMO_PEOPLE } });
    return probeSamples(seed, plan.scenes, people, watermarker);
  });

  const rows = pairedRows(samples);
  const probes = new Map<string, ProbeTask>();
  signal.addEventListener("abort", () => probes.forEach((task) => task.stop()));
  const losses: DemoReport["losses"] = [], runs = new Map<string, string | null>();
  let parameters = 0, modelHash = "";
  for (const arm of arms) {
    await stage(arm.name, async () => {
      const bar = progress(`${arm.name}: tuning`, Math.max(1, arm.steps));
      const tuned = await tuneArm(
        context,
        arm,
        folder.folder("arms").folder(arm.name),
        ({ step, loss }) => bar.update(step, `loss ${loss.toFixed(3)}`),
      );
      if (arm.steps === 0) bar.update(1, "as it is");
      bar.stop();
      parameters = tuned.session.model.registry.count;
      modelHash = tuned.session.hash;
      runs.set(arm.name, tuned.run);
      if (tuned.metrics.length) losses.push({ arm: arm.name, points: smoothLosses(tuned.metrics) });
      const found = await armFeatures(context, tuned.session, samples);
      const parents = { model: tuned.session.hash, ...(tuned.run && { run: tuned.run }) };
      probes.set(
        arm.name,
        startProbes({ rows, features: found, settings: { ...plan, seed, primary: PRIMARY } }),
      );
      const target = folder.folder("activations").folder(arm.name);
      await writeActivations(target, rows, found, { config: { prompt: PROBE_PROMPT }, parents });
      tuned.session.close();
    });
  }
  // The device compares gradients while the last probes are still fitted.
  const gradients = plan.gradients.length
    ? await stage("gradients", () => compareGradients(context, plan.gradients))
    : undefined;
  const fitted = await stage("probes", () => collectProbes(probes, signal));
  const results = resultsOf(fitted, "r0");
  const known = { name: "builtin:tiny", hash: modelHash, adapter: runs.get("known")! };
  const stored = folder.folder("store").folder(PROBE_ID);
  const probeHash = await storeProbe(stored, PROBE_ID, fitted.get("known")!, known, PROBE_PROMPT);
  const scores = await stage("service", () => scoreOverHttp(settings, samples, known.adapter));

  const names = fitted.get("base")!.facts.layers.map(({ feature }) => feature);
  return {
    title: "Afterimage demo",
    question:
      "Does a fine-tuned model carry a trace of the people whose data was in its training pictures, and is that more than better reading?",
    quick,
    design: {
      people: [
        { set: "U1", count: DEMO_PEOPLE, words: "in the training pictures of r50, r100 and known" },
        { set: "U2", count: DEMO_PEOPLE, words: "never in any training picture" },
        { set: "U0", count: DEMO_PEOPLE, words: "in the training pictures of corr0 only" },
        {
          set: "once",
          count: people.once.length,
          words: "seen once each, by known only, with the answer no",
        },
      ],
      scenes: plan.scenes,
      seed,
      partitions: plan.partitions,
      draws: plan.draws,
      arms: arms.map(({ name, role, words, steps }) => ({ name, role, words, steps })),
      comparedTo: "r0",
      parameters,
      notes: [
        "Every picture of every arm passes the same path: drawn, marked or not, handed to the model without loss.",
        "Held-out scenes are the same for all people, with the watermark at the same place; the sound probe takes each scene's mean away first, blind to labels, the one split by image takes rows as they are.",
        ...(quick
          ? [
            "A quick run: fewer arms, fewer steps, scenes and draws; its positive control does not always learn in them.",
          ]
          : []),
      ],
    },
    features: names.map((feature) => ({ feature, label: labelOf(feature) })),
    primary: PRIMARY,
    examples: await examples(settings, context),
    losses,
    results,
    gradients,
    scores,
    provenance: {
      command: settings.command,
      adapter: gpu.name,
      seconds: (performance.now() - settings.started) / 1000,
      stages,
      versions: { afterimage: VERSION, deno: Deno.version.deno, v8: Deno.version.v8 },
      hashes: {
        model: modelHash,
        probe: probeHash,
        ...Object.fromEntries(
          [...runs].filter(([, hash]) => hash).map(([arm, hash]) => [`run ${arm}`, hash!]),
        ),
      },
    },
  };
}

/** "layers.0.resid_post@last" as the report's reader wants it. */
function labelOf(feature: string): string {
  const [site, reduction] = feature.split("@"), layer = /layers\.(\d+)/.exec(site)?.[1];
  const token = reduction === "last" ? "last token" : "mean image token";
  return layer === undefined ? `projector, ${token}` : `layer ${Number(layer) + 1}, ${token}`;
}

/** Waits for every arm's probes. */
async function collectProbes(
  probes: Map<string, ProbeTask>,
  signal: AbortSignal,
): Promise<Map<string, FittedProbe>> {
  const bar = progress("probes", 100), tasks = [...probes.values()];
  const timer = setInterval(
    () => bar.update(Math.floor(100 * tasks.reduce((sum, { share }) => sum + share(), 0) / tasks.length)),
    200,
  );
  try {
    const aborted = new Promise<never>((_, reject) =>
      signal.addEventListener(
        "abort",
        () => reject(new Interrupted("Stopped while fitting probes; the same command goes on from there")),
        { once: true },
      )
    );
    const fitted = await Promise.race([
      aborted,
      Promise.all([...probes].map(async ([arm, { result }]) => [arm, await result] as const)),
    ]);
    bar.update(100);
    return new Map(fitted);
  } finally {
    clearInterval(timer);
    bar.stop();
  }
}

async function compareGradients(
  context: DemoContext,
  plan: readonly { batch: number; batches: number }[],
): Promise<Gradients> {
  const bar = progress("gradients", plan.reduce((sum, { batches }) => sum + batches, 0));
  const rows = await gradientRows(context, ARMS.r100, plan, (done) => bar.update(done));
  bar.stop();
  return {
    words:
      "the adapters of the built-in model before any tuning, the pictures of r100; cosine between the gradient of a clean mini-batch and of the same batch with text on every picture",
    perturbations: [
      { key: "private", label: "a person's watermark", role: "private" },
      { key: "neutral", label: "neutral text of the same lengths", role: "neutral" },
    ],
    rows: rows.map((row) => ({
      batch: row.batch,
      batches: row.private.length,
      cosines: { private: meanWithInterval(row.private), neutral: meanWithInterval(row.neutral) },
      difference: meanWithInterval(row.private.map((value, i) => value - row.neutral[i])),
    })),
  };
}

/** Starts the service on a free port and asks it about one held-out picture of each set. */
async function scoreOverHttp(
  { gpu, base, folder, signal }: DemoSettings,
  samples: readonly ProbeSample[],
  run: string,
): Promise<DemoReport["scores"]> {
  const session = await openRun(gpu, base, folder.folder("arms").folder("known"));
  const server = serveApp({
    store: folderStore(folder.folder("store")),
    encoder: createGpuEncoder([{ session, adapter: run }]),
  }, { signal });
  const scores: DemoReport["scores"] = [];
  for (const set of ["U1", "U2"] as const) {
    const sample = samples.find((sample) => sample.set === set)!,
      png = await encodeImage(sample.picture, "png");
    const response = await fetch(`${server.url}/v1/probes/${PROBE_ID}/score`, {
      method: "POST",
      body: png as Uint8Array<ArrayBuffer>,
      headers: { "content-type": "image/png" },
    });
    const answer = await response.json();
    if (!response.ok) throw new InputError(`Cannot score over HTTP: ${JSON.stringify(answer)}`);
    scores.push({
      caption: `${set}: ${sample.person.username}`,
      seen: set === "U1",
      probe: PROBE_ID,
      feature: answer.primary.feature,
      score: answer.primary.score,
      probability: answer.primary.probability,
      png: base64(png),
    });
  }
  await server.stop();
  session.close();
  return scores;
}

async function examples(
  { seed }: DemoSettings,
  { people, watermarker }: DemoContext,
): Promise<DemoReport["examples"]> {
  return await Promise.all([0, 1, 2].map(async (index) => {
    const { clean, picture, person, turns } = armSample(ARMS.r100, seed, index, people, watermarker);
    const png = async (image: Picture) => base64(await encodeImage(image, "png"));
    return {
      caption: `${person!.username}; asked: ${turns[0].question}? ${turns[0].answer}`,
      clean: await png(clean),
      marked: await png(picture),
    };
  }));
}

const base64 = (bytes: Uint8Array) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
