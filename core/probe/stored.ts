/**
 * Stored probes: what was fitted on which model and content, its held-out metrics, and the weights of every layer.
 * Refuses a folder whose facts and tensors disagree, and activations of another width than the probe's.
 */
import { z } from "zod";
import { calibrated, calibrationSchema } from "./calibration.ts";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { MANIFEST, type ManifestInput, readManifest, writeManifest } from "../formats/manifest.ts";
import { encodeSafetensors, SafetensorsFile, type TensorData } from "../formats/safetensors.ts";
import { sigmoid } from "./metrics.ts";

const FACTS = "probe.json", TENSORS = "probe.safetensors";
const share = z.number().min(0).max(1);

/** Held-out performance: means over the partitions that `partitions` counts. */
const metricsShape = {
  auroc: share,
  accuracy: share,
  /** Absent from probes of before it was measured. */
  tpr_at_01pct_fpr: share.optional(),
  tpr_at_1pct_fpr: share,
  tpr_at_5pct_fpr: share,
  partitions: z.number().int().positive(),
};
export const faithfulMetricsSchema = z.object({
  ...metricsShape,
  split: z.enum(["image", "scene"]),
  centred: z.boolean().optional(),
});
export const soundMetricsSchema = z.object({
  ...metricsShape,
  centred: z.boolean(),
  draws: z.number().int().positive(),
  /** The central 95 % of the AUROCs that permuted people gave. */
  null95: z.tuple([share, share]),
  /** 95 % interval for the AUROC with other people of the same kind; absent from probes of before it was measured. */
  interval95: z.tuple([share, share]).optional(),
  /** One-sided, (1 + null draws that reach the observed AUROC) / (1 + draws). */
  p: z.number().gt(0).max(1),
  /** The same, corrected for looking at all of this probe's layers (the largest null value over them). */
  p_family: z.number().gt(0).max(1).optional(),
});

const supportSchema = z.object({
  /** The largest root mean square of a fitted picture's standardised activations. */
  distance: z.number().positive(),
});
export type Support = z.infer<typeof supportSchema>;

const groupSchema = z.object({ set: z.string().min(1), people: z.number().int().positive() });

export const layerSchema = z.object({
  feature: z.string().min(1),
  site: z.string(),
  reduction: z.string(),
  dim: z.number().int().positive(),
  metrics: z.object({
    faithful: faithfulMetricsSchema.optional(),
    sound: soundMetricsSchema.optional(),
    /** Pictures as they are, person and scene left out of the fit: what a score of one picture is worth. */
    single: z.object(metricsShape).optional(),
  }),
  /** Log-odds above which 1 % and 0.1 % of unseen people's pictures lie; null where too few were held out to say. */
  threshold: z.object({ fpr01: z.number().nullable(), fpr001: z.number().nullable() }).nullable(),
  /** From scores of single pictures to probabilities, on people and scenes left out. */
  calibration: calibrationSchema.optional(),
  /** Scores of unseen people's pictures, person and scene left out of the fit: their mean and standard deviation. */
  unseen: z.object({ mean: z.number(), deviation: z.number().positive() }).optional(),
  /** Where the fitted pictures lie; for standardised activations. */
  support: supportSchema.optional(),
});

export const storedProbeSchema = z.object({
  id: z.string().min(1),
  title: z.string(),
  /** Which of the two readings the probe stands for; the metrics of both are kept where both were measured. */
  mode: z.enum(["faithful", "sound"]),
  model: z.object({ name: z.string(), hash: z.string(), adapter: z.string().nullable() }),
  /** What private content it looks for, in words. */
  content: z.string(),
  prompt: z.string(),
  /** The feature named before any result was seen. */
  primary: z.string(),
  seen: groupSchema,
  unseen: groupSchema,
  seed: z.number().int(),
  layers: z.array(layerSchema).min(1),
});
export type Facts = z.infer<typeof storedProbeSchema>;

/** score = coef . (x - mean) / scale + intercept, all (D) but the intercept. */
export interface ProbeTensors {
  coef: Float64Array;
  intercept: number;
  mean?: Float64Array;
  scale?: Float64Array;
}

export type StoredProbe = Facts & { tensors: Record<string, ProbeTensors> };

export interface FeatureScore {
  feature: string;
  /** Log-odds of "seen in training", as fitted. */
  score: number;
  /** Of "seen in training": calibrated where the probe holds a calibration, else the logistic function of the score. */
  probability: number;
  calibrated: boolean;
  /** Whether the score or the activations lie beyond those that calibration or fit have seen: better abstain. */
  beyond: boolean;
}

/** Writes `probe.json`, `probe.safetensors` and the manifest. @throws InputError when facts and tensors disagree */
export async function saveProbe(
  folder: Folder,
  facts: Facts,
  tensors: Record<string, ProbeTensors>,
  manifest: Omit<ManifestInput, "kind" | "files" | "known"> = {},
): Promise<{ hash: string }> {
  const what = `Cannot save the probe "${facts.id}"`;
  const checked = checkFacts(facts, what);
  const out: Record<string, TensorData> = {};
  for (const { feature, dim } of checked.layers) {
    const { coef, intercept, mean, scale } = tensors[feature] ?? {};
    if (!coef || intercept === undefined) throw new InputError(`${what}: "${feature}" has no coefficients`);
    out[`${feature}.intercept`] = { shape: [1], data: Float64Array.of(intercept) };
    for (const [part, data] of Object.entries({ coef, mean, scale })) {
      if (data) {
        out[`${feature}.${part}`] = {
          shape: [data.length],
          data: checkVector(data, dim, part, feature, what),
        };
      }
    }
    checkVector(Float64Array.of(intercept), 1, "intercept", feature, what);
  }
  if (await folder.exists(MANIFEST)) await folder.remove(MANIFEST);
  await folder.write(FACTS, JSON.stringify(checked, null, 1) + "\n");
  await folder.write(TENSORS, encodeSafetensors(out));
  const { hash } = await writeManifest(folder, {
    seed: facts.seed,
    ...manifest,
    files: [FACTS, TENSORS],
    kind: "probe",
  });
  return { hash };
}

/** Reads a probe after checking its files' hashes. @throws InputError naming the file, field or tensor that is wrong */
export async function loadProbe(folder: Folder): Promise<StoredProbe> {
  await readManifest(folder, "probe", { verify: true });
  return await readProbe(folder, await readJson(folder, FACTS));
}

/** A probe of these facts with its tensors from the folder. @throws InputError naming the field or tensor that is wrong */
export async function readProbe(folder: Folder, value: unknown): Promise<StoredProbe> {
  const what = `Cannot load the probe "${folder.path}"`, facts = checkFacts(value, what);
  const source = await folder.open(TENSORS);
  try {
    const file = await SafetensorsFile.open(source);
    const tensors: Record<string, ProbeTensors> = {};
    for (const { feature, dim } of facts.layers) {
      const vector = async (part: string, length: number) =>
        checkVector(await file.f64(`${feature}.${part}`), length, part, feature, what);
      const optional = (part: string) =>
        file.entries.has(`${feature}.${part}`) ? vector(part, dim) : undefined;
      const [mean, scale] = [await optional("mean"), await optional("scale")];
      const [intercept] = await vector("intercept", 1);
      tensors[feature] = {
        coef: await vector("coef", dim),
        intercept,
        ...(mean && { mean }),
        ...(scale && { scale }),
      };
    }
    return { ...facts, tensors };
  } finally {
    source.close();
  }
}

/**
 * Scores one picture's activations, (D) a feature, with every layer of the probe.
 * @throws InputError for a feature that is missing, of another width or not finite
 */
export function scoreProbe(probe: StoredProbe, activations: Record<string, Float32Array>): FeatureScore[] {
  return probe.layers.map(({ feature, dim, calibration, support }) => {
    const x = activations[feature];
    if (x?.length !== dim) {
      throw new InputError(`Cannot score "${feature}": it has ${x?.length ?? "no"} values, expected ${dim}`);
    }
    const { coef, intercept, mean, scale } = probe.tensors[feature];
    let score = intercept, square = 0;
    for (let j = 0; j < dim; j++) {
      const value = (x[j] - (mean?.[j] ?? 0)) / (scale?.[j] ?? 1);
      score += coef[j] * value;
      square += value ** 2 / dim;
    }
    if (!Number.isFinite(score)) {
      throw new InputError(`Cannot score "${feature}": its activations are not finite`);
    }
    const far = support !== undefined && Math.sqrt(square) > support.distance;
    if (!calibration) return { feature, score, probability: sigmoid(score), calibrated: false, beyond: far };
    const { probability, beyond } = calibrated(calibration, score);
    return { feature, score, probability, calibrated: true, beyond: beyond || far };
  });
}

function checkFacts(value: unknown, what: string): Facts {
  const parsed = storedProbeSchema.safeParse(value);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw new InputError(`${what}: field "${path.join(".")}": ${message}`);
  }
  const names = parsed.data.layers.map(({ feature }) => feature);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InputError(`${what}: the feature "${twice}" occurs twice`);
  if (!names.includes(parsed.data.primary)) {
    throw new InputError(
      `${what}: the primary feature "${parsed.data.primary}" is none of ${names.join(", ")}`,
    );
  }
  return parsed.data;
}

function checkVector(
  data: Float64Array,
  length: number,
  part: string,
  feature: string,
  what: string,
): Float64Array {
  if (data.length !== length) {
    throw new InputError(`${what}: "${feature}.${part}" has ${data.length} values, expected ${length}`);
  }
  if (!data.every(Number.isFinite)) throw new InputError(`${what}: "${feature}.${part}" is not finite`);
  return data;
}
