/**
 * From an activation set to a stored probe: every feature measured the faithful and the sound way, and fitted for use.
 * Refuses a primary feature that the set does not hold.
 */
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import { type ActivationSet, parseFeature } from "./activations.ts";
import type { HeldOut } from "./design.ts";
import { faithful, type FaithfulOptions } from "./faithful.ts";
import { familywise } from "./inference.ts";
import { scoreInterval } from "./interval.ts";
import { defaultPrimary, featureRows, orderedFeatures, selectRows } from "./selection.ts";
import { fitSingle } from "./single.ts";
import { sound, type SoundResult } from "./sound.ts";
import type { Facts, ProbeTensors } from "./stored.ts";

export interface FitOptions {
  /** Names of the two sets. */
  seen: string;
  unseen: string;
  /** The features to fit; all of the set unless told. */
  features?: readonly string[];
  /** The feature fixed before any result was seen; `defaultPrimary` unless told. */
  primary?: string;
  /** Inverse strength of the L2 penalty. */
  c: number;
  /** Of the sound way: C is chosen of these by people left out within the fitted ones; `c` alone where there is none. */
  cGrid?: readonly number[];
  /** Take each scene's mean away before both measurements; never for the probe that is stored. */
  centerScenes: boolean;
  standardize: boolean;
  /** How the faithful way splits, and where it prepares rows otherwise than the sound way. */
  faithful: FaithfulOptions;
  /** Partitions of the people, and permutations of who counts as seen, of the sound way. */
  partitions: number;
  draws: number;
  /** Where each fit of the sound way stops, see `SoundOptions`. */
  tolerance?: number;
  /** Store what turns a picture's score into a calibrated probability. */
  calibrate?: boolean;
  seed: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number, feature: string) => void;
}

/** What the fit found: the facts that the data decide, the weights, and each feature's null. */
export interface FittedProbe {
  facts: Pick<Facts, "primary" | "seen" | "unseen" | "seed" | "layers">;
  tensors: Record<string, ProbeTensors>;
  permuted: Record<string, SoundResult>;
}

/** Fits every feature. @throws InputError for sets, features or settings that do not fit; the signal's reason */
export async function fitProbe(set: ActivationSet, options: FitOptions): Promise<FittedProbe> {
  const { seen, unseen, c, centerScenes, standardize, partitions, draws, seed, signal } = options;
  const { rows, seenPeople, unseenPeople, ...design } = selectRows(set.samples, seen, unseen);
  const features = chooseFeatures(set, options);
  const primary = options.primary ?? defaultPrimary(features);
  if (!features.includes(primary)) {
    throw new InputError(`Cannot report "${primary}" first: the features are ${features.join(", ")}`);
  }
  const layers: Facts["layers"] = [], tensors: FittedProbe["tensors"] = {};
  const permuted: FittedProbe["permuted"] = {};
  for (const [at, feature] of features.entries()) {
    const { dim } = set.features.get(feature)!;
    const x = { n: rows.length, dim, data: featureRows(set.features.get(feature)!, rows) };
    const shared = { c, centerScenes, standardize };
    const image = faithful(x, design, { ...shared, ...options.faithful });
    const person = await sound(x, design, {
      ...shared,
      cGrid: options.cGrid,
      tolerance: options.tolerance,
      partitions,
      draws,
      seed,
      signal,
      onProgress: (done, total) => options.onProgress?.(at * total + done, features.length * total, feature),
    });
    // The same people are left out together at every feature, so that layers can be compared.
    const single = fitSingle(
      x,
      design,
      { c, standardize, band: options.calibrate },
      new Random(seed, "single"),
      signal,
    );
    tensors[feature] = single.tensors;
    permuted[feature] = person;
    layers.push({
      feature,
      ...parseFeature(feature),
      dim,
      metrics: {
        faithful: {
          ...heldOut(image),
          split: image.split,
          centred: options.faithful.centerScenes ?? centerScenes,
        },
        sound: {
          ...heldOut(person),
          centred: centerScenes,
          draws,
          null95: person.null95,
          ...(draws > 1 && { interval95: scoreInterval(person.observed, person.nullDraws) }),
          p: person.p,
        },
        single: single.heldOut,
      },
      threshold: single.threshold,
      ...(options.calibrate && { calibration: single.calibration }),
      ...(options.calibrate && single.unseen && { unseen: single.unseen }),
      ...(options.calibrate && single.support && { support: single.support }),
    });
  }
  familywise(Object.values(permuted)).forEach((p, i) => layers[i].metrics.sound!.p_family = p);
  return {
    facts: {
      primary,
      seen: { set: seen, people: seenPeople },
      unseen: { set: unseen, people: unseenPeople },
      seed,
      layers,
    },
    tensors,
    permuted,
  };
}

function chooseFeatures(set: ActivationSet, { features }: FitOptions): string[] {
  const all = orderedFeatures(set);
  const absent = features?.find((feature) => !set.features.has(feature));
  if (absent !== undefined) {
    throw new InputError(`Cannot fit "${absent}": the set holds ${all.join(", ")}`);
  }
  return features ? all.filter((feature) => features.includes(feature)) : all;
}

function heldOut(result: HeldOut): HeldOut {
  const { auroc, accuracy, tpr_at_01pct_fpr, tpr_at_1pct_fpr, tpr_at_5pct_fpr, partitions } = result;
  return { auroc, accuracy, tpr_at_01pct_fpr, tpr_at_1pct_fpr, tpr_at_5pct_fpr, partitions };
}
