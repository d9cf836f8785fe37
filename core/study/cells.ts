/**
 * The grid of a study as cells: each named by a hash of everything its result depends on, so a cell that is done is
 * done for good, whatever else the study comes to hold. Refuses a study whose compared arm is not among its arms.
 */
import { InputError } from "../errors.ts";
import { sha256 } from "../formats/manifest.ts";
import { planArm } from "./arms.ts";
import type { StudyConfig, StudyModel } from "./config.ts";

export const CELL_KINDS = ["tune", "activations", "probe", "says", "gradients"] as const;
export type CellKind = typeof CELL_KINDS[number];

/** Where in the grid a cell lies. */
export interface CellKey {
  model: string;
  data: string;
  seed: number;
  batch: number;
  /** Undefined for a comparison of gradients, which is one for all arms. */
  arm?: string;
  prompt?: string;
}

export interface Cell {
  /** 16 hexadecimal digits: a hash of kind, settings and parents. */
  id: string;
  kind: CellKind;
  key: CellKey;
  /** All that its result depends on, beside its parents. */
  settings: Record<string, unknown>;
  /** Cells that must be done before it. */
  parents: string[];
}

/** What the grid's names stand for: hashes of the models, and of each data set at each seed, with its pictures. */
export interface Identities {
  models: Record<string, string>;
  data: Record<string, { hash: string; images: number }>;
  /** Of a file of paraphrases. */
  paraphrases?: string;
}

/** Raised where cells of the past are no longer what this code would make. */
const CELL_VERSION = 1;

/** What an arm is tuned with: its own settings before its model's, one epoch unless told. */
export function tuningOf(
  config: StudyConfig,
  model: StudyModel,
  arm: string,
  batch: number,
  available: number,
): { images: number; steps: number; lr: number } {
  if (arm === "base") return { images: 0, steps: 0, lr: 0 };
  const { images = available, steps, epochs, lr = 2e-4 } = { ...model.train, ...config.tuning[arm] };
  return { images, steps: steps ?? Math.max(1, Math.ceil(images * (epochs ?? 1) / batch)), lr };
}

/** All cells, parents first. @throws InputError for an arm to compare with that is not in the grid */
export async function planCells(config: StudyConfig, identities: Identities): Promise<Cell[]> {
  if (!config.arms.includes(config.comparedTo)) {
    throw new InputError(
      `Cannot plan the study: arms are compared with "${config.comparedTo}", which is not one of ${
        config.arms.join(", ")
      }`,
    );
  }
  const stray = Object.keys(config.tuning).find((arm) => !config.arms.includes(arm));
  if (stray) {
    throw new InputError(`Cannot plan the study: "tuning" names the arm "${stray}", which is not in "arms"`);
  }
  const cells: Cell[] = [];
  for (const model of config.models) {
    for (const data of config.data) {
      for (const batch of config.batchSizes) {
        for (const seed of config.seeds) {
          const key = { model: model.name, data: data.name, seed, batch };
          const shared = sharedSettings(config, model, identities, data.name, seed);
          for (const arm of config.arms) {
            cells.push(...await armCells(config, model, { ...key, arm }, shared, identities));
          }
          // Mini-batches are compared before any tuning, so one batch size of the grid stands for all.
          if (config.gradients && batch === config.batchSizes[0]) {
            const settings = gradientSettings(config, config.gradients, model, key, identities);
            cells.push(await makeCell("gradients", key, { ...shared, ...settings }, []));
          }
        }
      }
    }
  }
  return cells;
}

/** What every cell of one model, data set and seed depends on. */
function sharedSettings(
  config: StudyConfig,
  model: StudyModel,
  { models, data }: Identities,
  dataName: string,
  seed: number,
): Record<string, unknown> {
  const { people, watermark, encoding } = config;
  return {
    version: CELL_VERSION,
    model: models[model.name],
    data: data[`${dataName}/${seed}`].hash,
    seed,
    people,
    watermark,
    encoding,
    weights: model.weights,
    template: model.template,
  };
}

/** Both trajectories are trained as the clean arm is. */
function gradientSettings(
  config: StudyConfig,
  gradients: NonNullable<StudyConfig["gradients"]>,
  model: StudyModel,
  { data: name, seed, batch }: CellKey,
  { data, paraphrases }: Identities,
): Record<string, unknown> {
  const { versions, trajectory } = gradients, arms = trajectory.steps > 0 ? trajectory.arms : [];
  const edited = [...versions, ...arms].includes("text-augmented");
  const asked = arms.some((arm) => planArm(arm).question !== "task");
  return {
    gradients,
    ...tuned(model),
    ...(arms.length > 0 &&
      { ...tuningOf(config, model, "r0", batch, data[`${name}/${seed}`].images), batch }),
    ...(asked && { questions: config.questions, once: config.tuning.known?.images }),
    ...(edited && { paraphrases: paraphrases ?? "rules" }),
  };
}

const tuned = ({ lora, trainable, train }: StudyModel) => ({ lora, trainable, train });

async function armCells(
  config: StudyConfig,
  model: StudyModel,
  key: CellKey & { arm: string },
  shared: Record<string, unknown>,
  { data, paraphrases }: Identities,
): Promise<Cell[]> {
  const { arm: name, batch, seed } = key, arm = planArm(name), { words: _, ...plan } = arm;
  const tuning = tuningOf(config, model, name, batch, data[`${key.data}/${seed}`].images);
  // The untuned model is the same whatever it would have been tuned with.
  const how = name === "base" ? {} : { ...tuned(model), ...tuning, batch };
  const questions = arm.question === "known"
    ? { known: config.questions.known, once: config.tuning.known?.images }
    : arm.question === "who"
    ? { who: config.questions.who }
    : {};
  const tune = await makeCell("tune", key, {
    ...shared,
    arm: plan,
    ...how,
    ...questions,
    ...(arm.change === "text" && { paraphrases: paraphrases ?? "rules" }),
  }, []);
  const cells = [tune];
  const { prompts, sites, reductions, scenes, ...fit } = config.probe;
  for (const prompt of prompts) {
    const primary = primaryOf(fit.primary, prompt.id);
    // The primary feature decides whose image tokens are kept one by one.
    const read = { prompt: prompt.text, sites, reductions, scenes, primary };
    const activations = await makeCell("activations", { ...key, prompt: prompt.id }, read, [tune.id]);
    const probe = await makeCell(
      "probe",
      { ...key, prompt: prompt.id },
      { ...fit, primary, id: prompt.id },
      [activations.id],
    );
    cells.push(activations, probe);
  }
  if (config.says) {
    const { draws, partitions } = fit, { who } = config.questions;
    cells.push(await makeCell("says", key, { says: config.says, draws, partitions, who }, [tune.id]));
  }
  return cells;
}

/** The part of "prompt/feature" that concerns this prompt. */
export function primaryOf(primary: string | undefined, prompt: string): string | undefined {
  if (primary === undefined) return undefined;
  const at = primary.indexOf("/");
  return primary.slice(0, at) === prompt ? primary.slice(at + 1) : undefined;
}

async function makeCell(
  kind: CellKind,
  key: CellKey,
  settings: Record<string, unknown>,
  parents: string[],
): Promise<Cell> {
  const id = (await sha256(canonical({ kind, settings, parents }))).slice(0, 16);
  return { id, kind, key, settings, parents };
}

/** JSON with sorted keys, so that the order of writing changes no hash. */
export function canonical(value: unknown): string {
  return JSON.stringify(
    value,
    (_, entry) =>
      entry && typeof entry === "object" && !Array.isArray(entry)
        ? Object.fromEntries(Object.entries(entry).sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0))
        : entry,
  );
}

/** Cells that must run on one machine: an arm's, or a comparison of gradients. */
export interface Chain {
  name: string;
  cells: Cell[];
}

/** Cells in chains, in order of the grid; a cell that two places of the grid share belongs to the first. */
export function chainsOf(cells: readonly Cell[]): Chain[] {
  const chains = new Map<string, Cell[]>(), seen = new Set<string>();
  for (const cell of cells) {
    if (seen.has(cell.id)) continue;
    seen.add(cell.id);
    const { model, data, seed, batch, arm } = cell.key;
    const name = [
      model,
      data,
      `seed ${seed}`,
      arm ?? "gradients",
      ...(arm === "base" ? [] : [`batch ${batch}`]),
    ].join(", ");
    chains.set(name, [...chains.get(name) ?? [], cell]);
  }
  return [...chains].map(([name, cells]) => ({ name, cells }));
}

/** The chains of one machine of several, dealt so that each gets about the same work. @throws InputError for i outside 1..n */
export function shardOf(
  chains: readonly Chain[],
  i: number,
  n: number,
  cost: (chain: Chain) => number,
): Chain[] {
  if (!(Number.isInteger(i) && Number.isInteger(n) && i >= 1 && i <= n)) {
    throw new InputError(`Cannot run shard ${i}/${n}: expected a number from 1 to the number of shards`);
  }
  const loads = new Array<number>(n).fill(0), mine = new Set<Chain>();
  for (const chain of [...chains].sort((a, b) => cost(b) - cost(a))) {
    const shard = loads.indexOf(Math.min(...loads));
    loads[shard] += cost(chain);
    if (shard === i - 1) mine.add(chain);
  }
  return chains.filter((chain) => mine.has(chain));
}
