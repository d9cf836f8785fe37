/**
 * One probe cell of a study: everything that the activations of one arm under one prompt say, and the controls of the instrument.
 * Refuses a set without people of both kinds, a primary feature it lacks, and pixels of other pictures.
 */
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import type { ActivationSet, FeatureData } from "../probe/activations.ts";
import { checkCalibration } from "../probe/calibration_check.ts";
import { selectivity } from "../probe/controls.ts";
import { descriptionLength } from "../probe/description.ts";
import type { Design, FeatureMatrix, ProbeOptions } from "../probe/design.ts";
import { fitProbe, type FittedProbe } from "../probe/fit.ts";
import { scoreInterval } from "../probe/interval.ts";
import { powerTable, spreadOf } from "../probe/power.ts";
import {
  defaultPrimary,
  featureRows,
  orderedFeatures,
  type Selection,
  selectRows,
} from "../probe/selection.ts";
import { sound, type SoundResult } from "../probe/sound.ts";
import type { ProbeTensors } from "../probe/stored.ts";
import type { StudyConfig } from "./config.ts";
import type { FeatureResult, ProbeResult } from "./results.ts";

export interface ProbeCellSettings {
  arm: string;
  prompt: { id: string; text: string };
  /** Of the grid. */
  seed: number;
  /** "site@reduction", fixed before any result; `defaultPrimary` unless told. */
  primary?: string;
  probe: Omit<StudyConfig["probe"], "prompts" | "sites" | "reductions" | "scenes" | "primary">;
}

export interface ProbeCellOptions {
  signal?: AbortSignal;
  /** Of the whole cell, in steps of about equal cost. */
  onProgress?: (done: number, total: number, what: string) => void;
}

export interface ProbeCell {
  result: ProbeResult;
  /** Of every feature, fitted on all rows as they are: what a stored probe or a heat map is made from. */
  tensors: Record<string, ProbeTensors>;
  /** What a stored probe says beside them, calibrations included. */
  facts: FittedProbe["facts"];
}

/** The sets that are compared: those whom watermark arms have seen, and those whom none has. */
const SEEN = "U1", UNSEEN = "U2";
const PEOPLE = [4, 8, 16, 32, 64];

/**
 * Measures the cell. Same people, seed and settings give the same permutations in every arm and feature.
 * @param pixels one row a sample of the set, see `blindPixels` @throws InputError naming what is wrong; the signal's reason
 */
export async function probeCell(
  set: ActivationSet,
  pixels: FeatureData,
  settings: ProbeCellSettings,
  { signal, onProgress }: ProbeCellOptions = {},
): Promise<ProbeCell> {
  const start = performance.now(), { probe, seed, arm, prompt } = settings;
  const names = orderedFeatures(set), primary = settings.primary ?? defaultPrimary(names);
  const { rows, seenPeople, unseenPeople, scenes, ...design } = selectRows(set.samples, SEEN, UNSEEN);
  if (pixels.data.length !== set.samples.length * pixels.dim) {
    throw new InputError(
      `Cannot probe the arm "${arm}": there are pixels of ${
        pixels.data.length / pixels.dim
      } pictures, expected ${set.samples.length}`,
    );
  }
  const { c, centerScenes, standardize, partitions, draws } = probe;
  const shared = {
    c,
    standardize,
    partitions,
    draws,
    seed,
    cGrid: probe.cGrid,
    tolerance: probe.tolerance,
    signal,
  };
  // A feature takes three parts: both sound runs, and its controls as one; the pixels' run, calibration and power come last.
  const total = 3 * names.length + 2;
  const step = (done: number, what: string) => onProgress?.(done, total, what);
  const fitted = await fitProbe(set, {
    seen: SEEN,
    unseen: UNSEEN,
    primary,
    ...shared,
    centerScenes,
    faithful: probe.faithful,
    calibrate: true,
    onProgress: (done, of, feature) => step(names.length * done / of, feature),
  });
  const features: FeatureResult[] = [];
  for (const [at, layer] of fitted.facts.layers.entries()) {
    const x = matrixOf(set.features.get(layer.feature)!, rows), found = fitted.permuted[layer.feature];
    const from = names.length + 2 * at;
    const plain = !centerScenes ? found : await sound(x, design, {
      ...shared,
      onProgress: (done, of) => step(from + done / of, layer.feature),
    });
    features.push({
      feature: layer.feature,
      site: layer.site,
      reduction: layer.reduction,
      dim: layer.dim,
      faithful: {
        ...ratesOf(layer.metrics.faithful!),
        split: probe.faithful.split,
        partitions: layer.metrics.faithful!.partitions,
      },
      sound: soundOf(found),
      plain: { auroc: plain.auroc, null95: plain.null95, p: plain.p, null: [...plain.nullDraws] },
      ...controlsOf(x, design, settings),
    });
    signal?.throwIfAborted();
    step(from + 2, layer.feature);
  }
  const blind = await sound(matrixOf(pixels, rows), design, {
    ...shared,
    centerScenes,
    onProgress: (done, of) => step(total - 2 + done / of, "pixels"),
  });
  const x = matrixOf(set.features.get(primary)!, rows);
  const calibration = checkCalibration(
    x,
    design,
    { c, standardize },
    new Random(seed, "calibration"),
    signal,
  );
  const result: ProbeResult = {
    arm,
    prompt,
    people: { seen: seenPeople, unseen: unseenPeople },
    scenes,
    seed,
    plan: fitted.permuted[primary].plan,
    features,
    blind: { auroc: blind.auroc, null95: blind.null95, p: blind.p },
    calibration: { feature: primary, ...calibration },
    power: powerOf(x, design, scenes, fitted.permuted[primary], {
      c,
      centerScenes,
      standardize,
      tolerance: probe.tolerance,
    }, seed),
    seconds: (performance.now() - start) / 1000,
  };
  step(total, "");
  return { result, tensors: fitted.tensors, facts: fitted.facts };
}

const matrixOf = (feature: FeatureData, rows: Int32Array): FeatureMatrix => ({
  n: rows.length,
  dim: feature.dim,
  data: featureRows(feature, rows),
});

type StudyRates = Pick<FeatureResult["sound"], "auroc" | "accuracy" | "tpr_at_1pct_fpr" | "tpr_at_01pct_fpr">;

function ratesOf({ auroc, accuracy, tpr_at_1pct_fpr, tpr_at_01pct_fpr }: Partial<StudyRates>): StudyRates {
  return {
    auroc: auroc!,
    accuracy: accuracy!,
    tpr_at_1pct_fpr: tpr_at_1pct_fpr!,
    tpr_at_01pct_fpr: tpr_at_01pct_fpr!,
  };
}

function soundOf(result: SoundResult): FeatureResult["sound"] {
  const { partitions, draws, null95, p, nullDraws, chosenC } = result;
  return {
    ...ratesOf(result),
    partitions,
    draws,
    null95,
    p,
    ci95: scoreInterval(result.auroc, nullDraws),
    null: [...nullDraws],
    ...(chosenC && { chosen_c: chosenC }),
  };
}

/** What the probe could have learnt without memory: the same labellings and orders at every feature. */
function controlsOf(
  x: FeatureMatrix,
  design: Pick<Selection, "labels" | "person" | "scene">,
  { probe, seed }: ProbeCellSettings,
): Pick<FeatureResult, "selectivity" | "description"> {
  const { c, faithful } = probe;
  return {
    // By image, prepared as the faithful probe is: that probe's accuracy is what is in question.
    selectivity: selectivity(x, design, {
      c,
      centerScenes: faithful.centerScenes,
      standardize: faithful.standardize,
      testSize: faithful.testSize,
      seed: faithful.seed,
      tasks: probe.controlTasks,
      tolerance: probe.tolerance,
    }, new Random(seed, "control")),
    description: descriptionLength(x, design, {
      c,
      centerScenes: probe.centerScenes,
      standardize: probe.standardize,
      tolerance: probe.tolerance,
    }, new Random(seed, "description")),
  };
}

/** People as in the table, each with a quarter of the scenes, as many, and four times as many. */
function powerOf(
  x: FeatureMatrix,
  design: Design,
  scenes: number,
  { nullDraws }: SoundResult,
  options: ProbeOptions & { tolerance?: number },
  seed: number,
): ProbeResult["power"] {
  const spread = spreadOf(x, design, nullDraws, options, new Random(seed, "power"));
  const counts = [...new Set([Math.ceil(scenes / 4), scenes, 4 * scenes])];
  return powerTable(
    spread,
    PEOPLE.flatMap((people) => counts.map((each) => ({ people, scenes: each }))),
  );
}
