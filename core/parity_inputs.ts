/**
 * Parity before the model: image processors, the probe's fit and its metrics against what Pillow, transformers and
 * scikit-learn computed, in one folder of their numbers. It measures and judges nothing; another kind of folder is refused.
 */
import { z } from "zod";
import { InputError, issueOf } from "./errors.ts";
import { type Folder, readJson } from "./formats/folder.ts";
import { SafetensorsFile } from "./formats/safetensors.ts";
import { decodeImage } from "./image/codecs.ts";
import type { Picture } from "./image/picture.ts";
import { createProcessor } from "./image/processors.ts";
import type { PillowVersion } from "./image/resize.ts";
import { accuracy, auroc, brier, logLoss, sigmoid, tprAtFpr } from "./probe/metrics.ts";
import { fitLikeSklearn, type LinearModel } from "./probe/sklearn_fit.ts";
import { splitByImage } from "./probe/splits.ts";

export interface ImageParity {
  max_abs: number;
  mean_abs: number;
  shape_ok: boolean;
}

export interface InputsParity {
  preprocess: Record<string, ImageParity>;
  probe: { coef_rel: number; proba_max_abs: number; auroc_abs: number };
  metrics: { max_abs: number };
}

const processorsSchema = z.record(
  z.string(),
  z.object({
    config: z.record(z.string(), z.unknown()),
    images: z.record(
      z.string(),
      z.looseObject({
        pixel_values: z.array(z.number()),
        image_grid_thw: z.array(z.array(z.number())).optional(),
      }),
    ),
  }),
);

const rate = z.number();
const metricsSchema = z.array(z.looseObject({
  y: z.array(z.union([z.literal(0), z.literal(1)])),
  score: z.array(z.number()),
  auroc: rate,
  tpr_at_1pct_fpr: rate,
  tpr_at_5pct_fpr: rate,
  brier: rate,
  log_loss: rate,
  accuracy: rate,
}));

/** Differences up to one of 256 levels here and there, in units of any processor's pixel values. */
const LEVEL = 0.02, MEAN = 1e-3;

/**
 * @param note gets a line for each processor that fits Pillow 13, whose resizing rounds otherwise, better than 12
 * @throws InputError for a folder that is not of this kind
 */
export async function inputsParity(folder: Folder, note: (line: string) => void): Promise<InputsParity> {
  return {
    preprocess: await imageParity(folder, note),
    probe: await probeParity(folder),
    metrics: await metricsParity(folder),
  };
}

async function readAs<S extends z.ZodType>(folder: Folder, name: string, schema: S): Promise<z.infer<S>> {
  const parsed = schema.safeParse(await readJson(folder, name));
  if (!parsed.success) {
    throw new InputError(`Cannot use "${folder.path}/${name}": ${issueOf(parsed.error)}`);
  }
  return parsed.data;
}

async function imageParity(
  folder: Folder,
  note: (line: string) => void,
): Promise<InputsParity["preprocess"]> {
  const cases = await readAs(folder, "preprocess.json", processorsSchema);
  const truth = await SafetensorsFile.open(await folder.open("preprocess.safetensors"));
  const pictures = new Map<string, Picture>(), found: InputsParity["preprocess"] = {};
  try {
    for (const [name, { config, images }] of Object.entries(cases)) {
      for (const image of Object.keys(images)) {
        if (pictures.has(image)) continue;
        pictures.set(image, await decodeImage(await folder.read(`images/${image}.png`)));
      }
      const measure = async (pillow: PillowVersion): Promise<ImageParity> => {
        const processor = createProcessor(config, `${folder.path}/preprocess.json: ${name}`, pillow);
        const total = { max_abs: 0, sum: 0, count: 0, shape_ok: true };
        for (const [image, expected] of Object.entries(images)) {
          const key = `${image}.${name}`,
            { pixelValues, shape, grid } = processor.process(pictures.get(image)!);
          const sameGrid = !expected.image_grid_thw || String(expected.image_grid_thw) === String(grid);
          if (String(shape) !== String(truth.entry(key).shape) || !sameGrid) {
            total.shape_ok = false;
            continue;
          }
          const theirs = await truth.f32(key);
          for (let i = 0; i < theirs.length; i++) {
            const off = Math.abs(pixelValues[i] - theirs[i]);
            if (!(off <= total.max_abs)) total.max_abs = off;
            total.sum += off;
          }
          total.count += theirs.length;
        }
        return { max_abs: total.max_abs, mean_abs: total.sum / (total.count || 1), shape_ok: total.shape_ok };
      };
      found[name] = await measure(12);
      if (found[name].max_abs <= LEVEL && found[name].mean_abs <= MEAN) continue;
      const other = await measure(13);
      if (other.max_abs >= found[name].max_abs) continue;
      note(`${name}: these pixels are Pillow 13's; Pillow 12's differ from them by ${found[name].max_abs}`);
      found[name] = other;
    }
    return found;
  } finally {
    truth.source.close();
  }
}

/** The fit on all rows and the one on scikit-learn's own split, which is drawn here again. */
async function probeParity(folder: Folder): Promise<InputsParity["probe"]> {
  const file = await SafetensorsFile.open(await folder.open("probe.safetensors"));
  try {
    const [, dim] = file.entry("X").shape, x = await file.f64("X");
    const y = Uint8Array.from(await file.ints("y"));
    const scoresOf = ({ coef, intercept }: LinearModel, rows: Int32Array) =>
      Float64Array.from(rows, (row) => coef.reduce((sum, w, j) => sum + w * x[row * dim + j], intercept));
    const fitOn = (rows: Int32Array) =>
      fitLikeSklearn(
        Float64Array.from({ length: rows.length * dim }, (_, i) =>
          x[rows[Math.floor(i / dim)] * dim + i % dim]),
        dim,
        Uint8Array.from(rows, (row) =>
          y[row]),
        { maxIterations: 5000 },
      );
    const all = Int32Array.from(y, (_, i) => i), { train, test } = splitByImage(y);
    const whole = fitOn(all), part = fitOn(train), theirs = await file.f64("proba");
    const off = Array.from(scoresOf(whole, all), (score, i) => Math.abs(sigmoid(score) - theirs[i]));
    const area = auroc(Uint8Array.from(test, (row) => y[row]), scoresOf(part, test));
    return {
      coef_rel: Math.max(
        relative(whole.coef, await file.f64("coef")),
        relative(part.coef, await file.f64("split_coef")),
      ),
      proba_max_abs: Math.max(...off),
      auroc_abs: Math.abs(area - (await file.f64("auroc"))[0]),
    };
  } finally {
    file.source.close();
  }
}

/** ||ours - theirs|| / ||theirs||. */
function relative(ours: Float64Array, theirs: Float64Array): number {
  return Math.hypot(...ours.map((value, i) => value - theirs[i])) / Math.hypot(...theirs);
}

async function metricsParity(folder: Folder): Promise<InputsParity["metrics"]> {
  let most = 0;
  for (const theirs of await readAs(folder, "metrics.json", metricsSchema)) {
    const { y, score } = theirs, p = score.map(sigmoid);
    const ours = {
      auroc: auroc(y, score),
      tpr_at_1pct_fpr: tprAtFpr(y, score, 0.01),
      tpr_at_5pct_fpr: tprAtFpr(y, score, 0.05),
      brier: brier(y, p),
      log_loss: logLoss(y, p),
      accuracy: accuracy(y, score),
    };
    for (const [name, value] of Object.entries(ours)) {
      most = Math.max(most, Math.abs(value - theirs[name as keyof typeof ours]));
    }
  }
  return { max_abs: most };
}
