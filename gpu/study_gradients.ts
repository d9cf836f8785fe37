/**
 * The study's comparison of gradients: mini-batches of the same pictures in several versions at the same weights, and
 * two trainings step by step. Each mini-batch is kept as it is done, so a stopped cell goes on to the same result.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { type ArmContext, armSample, planArm } from "../core/study/arms.ts";
import type { StudyConfig } from "../core/study/config.ts";
import {
  type BatchLine,
  measureSets,
  type MiniBatch,
  type ParameterSet,
  planBatches,
  type SetProducts,
  summariseGradients,
  type TrajectoryLine,
} from "../core/study/gradients.ts";
import { cosineOf, type InnerProducts, sumProducts } from "../core/study/products.ts";
import type { GradientResult } from "../core/study/results.ts";
import { gradientProducts } from "./gradients.ts";
import { zeroGrad } from "./nn/optimizer.ts";
import type { PendingProducts } from "./ops/dot.ts";
import { isProjector, openRun, openSession, type Session } from "./session.ts";
import { type ArmRun, sessionOptions, trainConfig } from "./study_arm.ts";
import { compareTrajectories } from "./study_trajectory.ts";
import { accumulateGradients, microBatches } from "./train.ts";

type Settings = NonNullable<StudyConfig["gradients"]>;

/** The pictures without a watermark, that everything is compared with. */
const CLEAN = "r0";
/** The arm whose pictures a version has. */
const ARM_OF: Record<Settings["versions"][number], string> = {
  "private": "r100",
  "neutral": "neutral",
  "other-person": "swap",
  "image-augmented": "image-augmented",
  "text-augmented": "text-augmented",
  "reencode": "reencode",
  "order": CLEAN,
};
/** Versions that are held against the direction of private content. */
const ALIGNED = ["private", "neutral"];

const LINES = "gradients.jsonl";
/** Encoded pictures kept between mini-batches. */
const CACHE_BYTES = 512e6;

/** What an arm's cells share, without an arm: `tuning` is the clean arm's, which both trajectories have. */
export interface GradientRun extends Omit<ArmRun, "arm"> {
  gradients: Settings;
}

export interface GradientOptions {
  /** A finished run at whose weights mini-batches are compared, instead of the base model's with fresh adapters. */
  tuned?: Folder;
  /** Told of mini-batches and steps. */
  onProgress?(done: number, total: number): void;
}

/**
 * Compares gradients, going on where `folder` says it was stopped; leaves gradients.jsonl, the caller writes the result.
 * @throws InputError where nothing is trained or the pictures are too few, and the signal's reason when it fires
 */
export async function gradientCell(
  run: GradientRun,
  folder: Folder,
  { tuned, onProgress }: GradientOptions = {},
): Promise<GradientResult> {
  const { gpu, base, model, context, gradients, tuning, signal } = run;
  const { versions, joined, trajectory } = gradients;
  const plan = planBatches(context.seed, context.source.count, gradients);
  const log = await openLog(folder), steps = Math.min(trajectory.steps, tuning.steps);
  const tickets = plan.batches.length + steps * trajectory.arms.length;
  let done = log.batches.length;
  const fresh = () => openSession(gpu, base, sessionOptions(model, CLEAN, context.seed));
  const session = tuned ? await openRun(gpu, base, tuned, model.weights) : await fresh();
  let sets: ParameterSet[];
  try {
    sets = parameterSets(session, gradients.parameters, model.name);
    const sample = sampleCache(session, context);
    for (const half of [0, 1] as const) {
      const left = plan.batches.filter((entry) => entry.half === half && !log.has(entry));
      if (left.length === 0) continue;
      const step = { session, run, sample, sets };
      const directed = versions.includes("private");
      if (directed) await findDirection(step, plan.halves[1 - half]);
      for (const entry of left) {
        signal?.throwIfAborted();
        await log.add(await compareBatch(step, entry, directed));
        onProgress?.(++done, tickets);
      }
    }
  } finally {
    session.close();
  }
  for (const arm of steps > 0 ? trajectory.arms : []) {
    const last = 1 + trajectory.every * Math.floor((steps - 1) / trajectory.every);
    done += steps;
    if (log.steps.some((line) => line.arm === arm && line.step === last)) continue;
    const session = await fresh();
    try {
      await compareTrajectories({
        ...{ session, config: trainConfig(run), count: tuning.images, arms: [CLEAN, arm], sets, joined },
        ...{ sample: sampleCache(session, context), steps, every: trajectory.every, signal },
      }, async (line) => {
        if (!log.has(line)) await log.add(line);
        onProgress?.(done - steps + line.step, tickets);
      });
    } finally {
      session.close();
    }
  }
  return summariseGradients(log.batches, log.steps, {
    ...{ seed: context.seed, pictures: plan.pictures, versions, sets },
  });
}

/** Which trained parameters are compared. @throws InputError where nothing is trained */
export function parameterSets(
  { slabs, lora }: Pick<Session, "slabs" | "lora">,
  wanted: Settings["parameters"],
  model: string,
): ParameterSet[] {
  const names = slabs.flatMap(({ params }) => params.map(({ name }) => name));
  if (names.length === 0) {
    throw new InputError(`Cannot compare gradients of "${model}": neither "lora" nor "trainable" trains any`);
  }
  const places = (fits: (name: string) => boolean) => names.flatMap((name, i) => fits(name) ? [i] : []);
  const inAll = (name: string) => lora === null || name.includes(".lora_");
  return [...new Set(wanted)].flatMap((set): ParameterSet[] => {
    switch (set) {
      case "all":
        return [{ name: "all", members: places(inAll) }];
      case "layer": {
        const layers = new Set(names.filter(inAll).flatMap((name) => layerOf(name) ?? []));
        return [...layers].sort((a, b) => a - b).map((layer) => ({
          name: `layer ${layer}`,
          members: places((name) => inAll(name) && layerOf(name) === layer),
        }));
      }
      case "projector":
        return [{ name: set, members: places((name) => isProjector({ name })) }];
      default:
        return [{ name: set, members: places((name) => name.includes(`.lora_${set}.`)) }];
    }
  });
}

/** The decoder's block that a parameter belongs to. */
function layerOf(name: string): number | undefined {
  const found = /vision|visual/.test(name) ? null : /\.(?:layers|h)\.(\d+)\./.exec(name);
  return found ? Number(found[1]) : undefined;
}

interface Comparison {
  session: Session;
  run: GradientRun;
  sample(arm: string, index: number): Promise<EncodedSample>;
  sets: readonly ParameterSet[];
}

/** Adds the gradient of the mean loss of these samples to what the slabs hold, without dropout. */
function addGradient(
  { session: { gpu, model }, run }: Comparison,
  samples: readonly EncodedSample[],
  { weight = 1, microTokens = run.model.train.microTokens } = {},
): void {
  using _scope = gpu.pool.scope();
  const { checkpointed } = run.model.train;
  accumulateGradients(gpu, model, microBatches(samples, microTokens, model), {
    ...{ checkpointed, dropoutSeed: 0, weight },
  });
}

/**
 * Leaves in the slabs' second moments, which nothing else uses here, what private content adds to the gradient of these
 * pictures on average. The clean gradient of a mini-batch lies in the first moments: no more memory than training takes.
 */
async function findDirection(step: Comparison, pictures: readonly number[]): Promise<void> {
  const { gpu, slabs } = step.session;
  zeroGrad(gpu, slabs);
  for (const [arm, weight] of [[ARM_OF.private, 1], [CLEAN, -1]] as const) {
    addGradient(step, await Promise.all(pictures.map((index) => step.sample(arm, index))), { weight });
  }
  for (const { grad, v } of slabs) gpu.copy(grad, v);
  await gpu.settle();
}

async function compareBatch(step: Comparison, entry: MiniBatch, directed: boolean): Promise<BatchLine> {
  const { session: { gpu, slabs, lora }, run: { gradients }, sets, sample } = step;
  const { batch, index, pictures } = entry, { versions, joined } = gradients;
  const samplesOf = (arm: string) => Promise.all(pictures.map((picture) => sample(arm, picture)));
  using _scope = gpu.pool.scope();
  const pending: PendingProducts[] = [];
  const compare = (part: "m" | "v") => pending.push(gradientProducts(gpu, [slabs, "grad"], [slabs, part]));
  const clean = await samplesOf(CLEAN);
  zeroGrad(gpu, slabs);
  addGradient(step, clean);
  for (const { grad, m } of slabs) gpu.copy(grad, m);
  if (directed) compare("v");
  for (const version of versions) {
    zeroGrad(gpu, slabs);
    if (version === "order") addGradient(step, clean.toReversed(), { microTokens: halfOf(clean) });
    else addGradient(step, await samplesOf(ARM_OF[version]));
    compare("m");
    if (directed && ALIGNED.includes(version)) compare("v");
  }
  const read = await gpu.read(...pending.map(({ shares }) => shares));
  const found = pending.map(({ finish }, i) => finish(read[i]));

  const all = parameterSets({ slabs, lora }, ["all"], "")[0];
  const whole = (parts: readonly InnerProducts[]) => sumProducts(all.members.map((i) => parts[i]));
  const products: Record<string, SetProducts> = {}, seen: Record<string, InnerProducts> = {};
  const wholes: Record<string, InnerProducts> = {};
  const line: BatchLine = { batch, index, measures: {}, squares: {}, alignment: {} };
  const cleanDirection = directed ? whole(found.shift()!) : undefined;
  if (cleanDirection) {
    seen.clean = cleanDirection;
    line.alignment.clean = cosineOf(cleanDirection) ?? 0;
  }
  for (const version of versions) {
    const parts = found.shift()!,
      { aa, bb, dd } = wholes[version] = whole(parts),
      measured = measureSets(parts, sets, joined);
    line.measures[version] = measured.measures;
    products[version] = measured.products;
    line.squares.clean = bb;
    if (version === "private") line.squares.private = aa;
    if (!cleanDirection || !ALIGNED.includes(version)) continue;
    const direction = whole(found.shift()!);
    seen[version] = direction;
    const norm = Math.sqrt(dd * direction.bb);
    line.alignment[version] = cosineOf(direction) ?? 0;
    line.alignment[`${version} excess`] = norm > 0 ? (direction.ab - cleanDirection.ab) / norm : 0;
  }
  return { ...line, products, whole: wholes, ...(cleanDirection && { directed: seen }) };
}

/** Tokens of a pass that cut the samples in about two. */
const halfOf = (samples: readonly EncodedSample[]): number =>
  Math.ceil(samples.reduce((sum, { ids }) => sum + ids.length, 0) / 2);

/** Encoded samples of an arm's pictures, kept as far as memory goes. */
function sampleCache({ encoder }: Session, context: ArmContext): Comparison["sample"] {
  const cache = new Map<string, EncodedSample>();
  let bytes = 0;
  return async (arm, index) => {
    const key = `${arm}/${index}`, known = cache.get(key);
    if (known) return known;
    const { id, turns, pictures } = await armSample(planArm(arm), context, index);
    const encoded = encoder.train(id, turns, pictures);
    bytes += encoded.images.reduce((sum, { pixelValues }) => sum + pixelValues.byteLength, 0);
    if (bytes < CACHE_BYTES) cache.set(key, encoded);
    return encoded;
  };
}

/** The lines that a cell has written, one a mini-batch and one a compared step. */
async function openLog(folder: Folder) {
  const text = await folder.exists(LINES) ? new TextDecoder().decode(await folder.read(LINES)) : "";
  const lines: (BatchLine | TrajectoryLine)[] = text.split("\n").filter(Boolean).map((line) =>
    JSON.parse(line)
  );
  const isStep = (line: object): line is TrajectoryLine => "step" in line;
  return {
    get batches() {
      return lines.filter((line): line is BatchLine => !isStep(line));
    },
    get steps() {
      return lines.filter(isStep);
    },
    has(wanted: MiniBatch | TrajectoryLine): boolean {
      return lines.some((line) =>
        isStep(wanted)
          ? isStep(line) && line.arm === wanted.arm && line.step === wanted.step
          : !isStep(line) && line.batch === wanted.batch && line.index === wanted.index
      );
    },
    async add(line: BatchLine | TrajectoryLine): Promise<void> {
      lines.push(line);
      await folder.write(LINES, lines.map((entry) => JSON.stringify(entry) + "\n").join(""));
    },
  };
}
