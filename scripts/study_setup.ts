/**
 * A study made ready to run: its configuration from a preset or a file, the identity of its models and data, and for each
 * data set and seed the pictures, people and watermarks. Refuses what cannot be opened, naming file and field.
 */
import { readParaphrases } from "../core/data/paraphrase.ts";
import { InputError, issueOf, messageOf } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { createWatermarker, type Watermarker } from "../core/privacy/mark.ts";
import { createTextRenderer } from "../core/privacy/text_renderer.ts";
import { watermarkOptionsSchema } from "../core/privacy/watermark.ts";
import {
  type ArmContext,
  type ProbeScene,
  probeScenes,
  type SourceItem,
  studyPeople,
  throughEncoder,
} from "../core/study/arms.ts";
import { canonical, type Cell, type Identities, planCells } from "../core/study/cells.ts";
import type { StudyConfig, StudyData, StudyModel } from "../core/study/config.ts";
import { parseStudy, PUBLISHED_RECORDS } from "../core/study/presets.ts";
import { VQA_PICTURES } from "../core/study/work.ts";
import { modelHash } from "../gpu/session.ts";
import { readFontFiles } from "./fonts.ts";
import { modelFolder } from "./model.ts";
import { fittingSource, openSource } from "./study_sources.ts";

/** Where a study's settings come from. */
export interface StudyChoice {
  config?: string;
  preset?: string;
  /** "name=FILE" for data sets of the preset; those that are not named are left out. */
  data: string[];
  /** Folder that image paths of `data` start from. */
  images?: string;
  seeds: number[];
}

/** Reads the configuration and puts the flags into it. @throws InputError naming what does not fit */
export async function loadStudy(choice: StudyChoice): Promise<StudyConfig> {
  const { config: file, preset, seeds } = choice;
  if ((file === undefined) === (preset === undefined)) {
    throw new InputError("Cannot tell which study is meant: give one of --config and --preset");
  }
  const config = parseStudy(
    file === undefined ? { preset } : await readJsonFile(file),
    file ?? `--preset ${preset}`,
  );
  withData(config, choice);
  const named = [...config.models, ...config.data].map(({ name }) => name);
  const twice = named.find((name, i) => named.indexOf(name) !== i);
  if (twice !== undefined) throw new InputError(`Cannot use two models or data sets called "${twice}"`);
  // A seed that is asked for and not in the file extends the study.
  for (const seed of seeds) if (!config.seeds.includes(seed)) config.seeds.push(seed);
  return config;
}

async function readJsonFile(path: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new InputError(`Cannot read the study "${path}": ${messageOf(error)}`);
  }
}

function withData(config: StudyConfig, { data, images }: StudyChoice): void {
  if (data.length === 0) {
    if (images !== undefined) throw new InputError("Cannot use --images without --data name=FILE");
    return;
  }
  config.data = data.map((entry): StudyData => {
    const at = entry.indexOf("="), name = entry.slice(0, at), file = entry.slice(at + 1);
    const known = config.data.find((other) => other.name === name);
    if (at < 1 || !known || known.kind === "synthetic") {
      throw new InputError(
        `Cannot use --data "${entry}": expected name=FILE for one of ${
          config.data.map(({ name }) => name).join(", ")
        }`,
      );
    }
    if (known.kind === "easy-vqa") return { ...known, folder: file };
    return { ...known, data: file, ...(images !== undefined && { images }) };
  });
}

export interface Study {
  config: StudyConfig;
  identities: Identities;
  cells: Cell[];
  /** What a plan had to assume because a file is not there. */
  assumed: string[];
}

/**
 * Identifies models and data and plans the cells.
 * @param planning goes on where data or weights are missing, with published sizes; `modelConfig` stands for the weights
 */
export async function identifyStudy(
  config: StudyConfig,
  planning?: { modelConfig?: string },
): Promise<Study> {
  const identities: Identities = { models: {}, data: {} }, assumed: string[] = [];
  for (const model of config.models) {
    identities.models[model.name] = planning?.modelConfig
      ? await sha256(await Deno.readTextFile(planning.modelConfig))
      : await modelHash(await folderOf(model));
  }
  for (const data of config.data) {
    for (const seed of config.seeds) {
      try {
        const { hash, count } = await openSource(data, seed);
        identities.data[`${data.name}/${seed}`] = { hash, images: count };
      } catch (error) {
        if (!planning || !(error instanceof InputError)) throw error;
        const images = assumedImages(data);
        identities.data[`${data.name}/${seed}`] = { hash: `assumed/${data.name}/${seed}`, images };
        assumed.push(`"${data.name}" is not there: ${images} pictures to tune on are assumed`);
      }
    }
  }
  if (config.paraphrases !== undefined) {
    identities.paraphrases = await sha256(canonical(await paraphrasesOf(config.paraphrases)));
  }
  const cells = await planCells(config, identities);
  return { config, identities, cells, assumed: [...new Set(assumed)] };
}

const assumedImages = (data: StudyData): number => {
  if (data.kind === "synthetic") return data.images;
  const all = data.limit ?? PUBLISHED_RECORDS[data.name] ?? 10_000;
  return Math.round(all * (1 - data.testShare));
};

export function folderOf({ path, mmProjector, visionTower }: StudyModel): Promise<Folder> {
  return modelFolder(path, { mmProjector, visionTower });
}

async function paraphrasesOf(file: string) {
  return readParaphrases(await readJsonFile(file), file);
}

/** A model's config.json, parsed. */
export async function modelJson(model: StudyModel, file?: string): Promise<unknown> {
  return file === undefined ? await readJson(await folderOf(model), "config.json") : await readJsonFile(file);
}

/** The study's watermarks. @throws InputError for options that do not fit */
export async function watermarkerOf({ watermark }: StudyConfig): Promise<Watermarker> {
  const parsed = watermarkOptionsSchema.strict().safeParse(watermark);
  if (!parsed.success) throw new InputError(`Cannot use "watermark": ${issueOf(parsed.error)}`);
  const text = parsed.data.font === "sans" ? await createTextRenderer(await readFontFiles()) : undefined;
  return await createWatermarker(parsed.data, text);
}

/** What the cells of one data set and seed share. */
export interface SeedContext {
  context: ArmContext;
  /** The probed pictures, drawn when first asked for. */
  scenes(): Promise<ProbeScene[]>;
  /** Held-out pictures with their questions, through the study's encoder. */
  questions(): Promise<SourceItem[]>;
}

/** @throws InputError when the data has fewer held-out pictures than are probed, or one is too small */
export async function openContext(config: StudyConfig, dataName: string, seed: number): Promise<SeedContext> {
  const data = config.data.find(({ name }) => name === dataName)!;
  const source = await openSource(data, seed), { questions, encoding, probe } = config;
  if (source.heldOutCount < probe.scenes && data.kind !== "synthetic") {
    throw new InputError(
      `Cannot probe "${dataName}": it has ${source.heldOutCount} held-out pictures, "probe.scenes" asks for ${probe.scenes}`,
    );
  }
  const people = studyPeople(seed, config.people, config.tuning.known?.images ?? source.count);
  const watermarker = await watermarkerOf(config);
  const paraphrases = config.paraphrases === undefined ? undefined : await paraphrasesOf(config.paraphrases);
  const fitting = fittingSource(source, watermarker, people);
  const context = { seed, source: fitting, people, watermarker, encoding, questions, paraphrases };
  let drawn: Promise<ProbeScene[]> | undefined, asked: Promise<SourceItem[]> | undefined;
  const questionOf = async (_: unknown, i: number): Promise<SourceItem> => {
    const item = await source.heldOut(i);
    const pictures = await Promise.all(item.pictures.map((picture) => throughEncoder(picture, encoding)));
    return { ...item, pictures };
  };
  return {
    context,
    scenes: () => drawn ??= probeScenes(context, probe.scenes),
    questions: () =>
      asked ??= Promise.all(
        Array.from({ length: Math.min(VQA_PICTURES, source.heldOutCount) }, questionOf),
      ),
  };
}
