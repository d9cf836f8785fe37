/**
 * The table of a study before it runs: every chain's cells, operations and time. Samples of the data are looked at where
 * they are there, else a picture of 640x480 and 256 tokens of text stand for one; a model needs no more than its config.
 */
import { armSample, planArm } from "../core/study/arms.ts";
import { type Chain, tuningOf } from "../core/study/cells.ts";
import type { StudyModel } from "../core/study/config.ts";
import { totalWork } from "../core/study/work.ts";
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import type { Gpu } from "../gpu/device.ts";
import { ANY_DEVICE, DryGpu } from "../gpu/dry_gpu.ts";
import { createModel } from "../gpu/models/create.ts";
import { type Plan, planStep } from "../gpu/plan.ts";
import { impliedProcessor, sampleOfSize } from "../gpu/plan_samples.ts";
import { secondsOf } from "../gpu/rate.ts";
import { openBare } from "../gpu/session.ts";
import { sessionOptions } from "../gpu/study_arm.ts";
import { formatTable } from "./table.ts";
import { planText, type Speed, speedOf } from "./plan_step.ts";
import { folderOf, modelJson, openContext, type Study } from "./study_setup.ts";

/** Samples of the data that a plan looks at. */
const LOOKED_AT = 8;

/** One sample's cost with one model. */
export interface ModelCost {
  plan: Plan;
  speed?: Speed;
  /** Operations and seconds of a sample trained on, and of one read. */
  trained: { flops: number; seconds?: number };
  read: { flops: number; seconds?: number };
}

/** @param modelConfig a config.json that stands for a model which is not there */
export async function modelCosts(
  study: Study,
  { gpu, gflops, modelConfig }: { gpu?: Gpu; gflops?: number; modelConfig?: string },
): Promise<Map<string, ModelCost>> {
  const { config } = study, costs = new Map<string, ModelCost>();
  for (const model of config.models) {
    const json = await modelJson(model, modelConfig), { train } = model;
    const samples = await samplesFor(study, model, json, modelConfig === undefined);
    const batch = Math.max(...config.batchSizes);
    const step = Array.from({ length: batch }, (_, i) => samples[i % samples.length]);
    const plan = planStep({
      json,
      device: gpu ? { name: gpu.name, limits: gpu.device.limits } : ANY_DEVICE,
      ...{ weights: model.weights, lora: model.lora, trainable: model.trainable },
      projectorGroup: train.projectorLr !== undefined,
      plainDecay: train.weightDecay === 0,
      checkpointed: train.checkpointed,
      microTokens: train.microTokens,
      step,
      heaviest: step,
    });
    const speed = await speedOf(plan, gflops, gpu);
    const share = (work: Plan["work"]) => ({
      flops: Object.values(work).reduce((sum, { flops }) => sum + flops, 0) / batch,
      ...(speed && { seconds: secondsOf({ ...plan, work }, speed.rate) / batch }),
    });
    const { tower, decoder } = plan.work;
    costs.set(model.name, {
      plan,
      speed,
      trained: share(plan.work),
      read: share({ ...(tower && { tower }), decoder }),
    });
  }
  return costs;
}

/** As training would see them where model and data are there. */
async function samplesFor(
  { config, assumed }: Study,
  model: StudyModel,
  json: unknown,
  isThere: boolean,
): Promise<EncodedSample[]> {
  if (isThere && assumed.length === 0) {
    const { context } = await openContext(config, config.data[0].name, config.seeds[0]);
    const dry = new DryGpu({
      name: "",
      limits: { maxBufferSize: 2 ** 40, maxStorageBufferBindingSize: 2 ** 40 },
    });
    const { encoder } = await openBare(dry, await folderOf(model), sessionOptions(model, "base", 0));
    return await Promise.all(Array.from({ length: LOOKED_AT }, async (_, i) => {
      const { id, turns, pictures } = await armSample(planArm("r100"), context, i);
      return encoder.train(id, turns, pictures);
    }));
  }
  const processor = impliedProcessor(json);
  if (!processor) throw new InputError(`Cannot plan the model "${model.name}": it reads no pictures`);
  return [sampleOfSize(createModel(json), processor, { tokens: 256, images: 1, width: 640, height: 480 })];
}

/** The table, a line a chain, and below it the sum. @param done cells that are there, by id */
export function studyTable(
  study: Study,
  chains: readonly Chain[],
  done: ReadonlySet<string>,
  costs: ReadonlyMap<string, ModelCost>,
): string {
  const { config, identities, assumed } = study;
  const rows = chains.map((chain) => {
    const left = chain.cells.filter(({ id }) => !done.has(id)), { key } = chain.cells[0];
    const { trained, read } = totalWork(config, identities, left), cost = costs.get(key.model)!;
    const flops = trained * cost.trained.flops + read * cost.read.flops;
    const seconds = cost.speed && trained * cost.trained.seconds! + read * cost.read.seconds!;
    return { chain, cells: `${chain.cells.length - left.length}/${chain.cells.length}`, flops, seconds };
  });
  const steps = ({ cells: [{ key }] }: Chain) => {
    const model = config.models.find(({ name }) => name === key.model)!;
    const { images } = identities.data[`${key.data}/${key.seed}`];
    return key.arm ? String(tuningOf(config, model, key.arm, key.batch, images).steps) : "-";
  };
  const lines = formatTable(
    ["chain", "steps", "done", "TFLOP", "time"],
    rows.map(({ chain, cells, flops, seconds }) => [
      chain.name,
      steps(chain),
      cells,
      (flops / 1e12).toPrecision(3),
      seconds === undefined ? "?" : spanOf(seconds),
    ]),
  );
  const flops = rows.reduce((sum, row) => sum + row.flops, 0);
  const timed = rows.every(({ seconds }) => seconds !== undefined);
  const seconds = rows.reduce((sum, row) => sum + (row.seconds ?? 0), 0);
  const cells = chains.flatMap((chain) => chain.cells), left = cells.filter(({ id }) => !done.has(id)).length;
  const speed = [...costs.values()].find(({ speed }) => speed)?.speed;
  return [
    `${config.title}: ${cells.length} cells in ${chains.length} chains, ${left} to do`,
    ...[...costs].map(([name, { plan }]) =>
      `${name}: ${plan.parameters} parameters, ${plan.trained} trained, one step of ${plan.step.samples} samples:\n${
        planText(plan).split("\n").slice(1).filter((line) => !line.startsWith("    ")).join("\n")
      }`
    ),
    ...assumed,
    "",
    lines,
    "",
    `to do: ${(flops / 1e12).toPrecision(4)} TFLOP${
      timed
        ? `, about ${spanOf(seconds)} at ${(speed!.rate.flops / 1e9).toPrecision(3)} GFLOP/s (${
          speed!.source
        })`
        : "; --gflops says how long that takes"
    }; fitting probes and decoding pictures not counted`,
  ].join("\n");
}

/** Seconds as a reader likes them. */
export function spanOf(seconds: number): string {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return seconds < 200_000 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}
