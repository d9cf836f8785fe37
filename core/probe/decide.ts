/**
 * From the scores of a picture's layers to one answer at a chosen share of false alarms, or to an abstention with its reason.
 * Refuses to flag by a layer without a threshold, beyond what the probe has seen, or without evidence that the probe works.
 */
import type { FeatureScore, StoredProbe } from "./stored.ts";

/** Shares of unseen people's pictures that may be flagged. */
export type FalseAlarms = 0.01 | 0.001;

export type Answer = "flagged" | "not-flagged" | "abstain";
export type AbstainReason = "no-threshold" | "beyond-support" | "no-evidence";

export interface LayerDecision extends FeatureScore {
  site: string;
  reduction: string;
  /** The score above which a picture is flagged, in log-odds; null where too few were held out to set one. */
  threshold: number | null;
  flagged: boolean | null;
  /** How far the score lies above the mean of held-out unseen people's pictures, in their standard deviations. */
  z: number | null;
  /** 95 % for the calibrated probability, over the people that calibration happened to meet. */
  interval: { low: number; high: number; level: 0.95 } | null;
}

export interface Decision {
  answer: Answer;
  /** The layer that decides: the one named before any result was seen. */
  feature: string;
  /** Of all layers that can answer, the share that gives the same answer; null for an abstention. */
  agreement: number | null;
  reason: AbstainReason | null;
  /** The same in a sentence. */
  detail: string;
}

/** Each layer's score beside its threshold, in the probe's order. */
export function decideLayers(
  probe: StoredProbe,
  scores: readonly FeatureScore[],
  fpr: FalseAlarms,
): LayerDecision[] {
  return probe.layers.map(({ site, reduction, threshold: thresholds, unseen, calibration }, i) => {
    const score = scores[i], threshold = thresholds?.[fpr === 0.01 ? "fpr01" : "fpr001"] ?? null;
    return {
      ...score,
      site,
      reduction,
      threshold,
      flagged: threshold === null ? null : score.score > threshold,
      z: unseen ? (score.score - unseen.mean) / unseen.deviation : null,
      interval: calibration?.band ? bandAt(calibration.band, score.score) : null,
    };
  });
}

/** A band of [score, low, high], ascending, read between its points and level beyond them. */
function bandAt(
  band: readonly (readonly [number, number, number])[],
  score: number,
): LayerDecision["interval"] {
  const next = band.findIndex(([at]) => at >= score);
  if (next <= 0) {
    const [, low, high] = band[next === 0 ? 0 : band.length - 1];
    return { low, high, level: 0.95 };
  }
  const [from, low0, high0] = band[next - 1], [to, low1, high1] = band[next];
  const share = (score - from) / (to - from);
  return { low: low0 + (low1 - low0) * share, high: high0 + (high1 - high0) * share, level: 0.95 };
}

/** The answer of the primary layer, or why there is none. */
export function decide(probe: StoredProbe, layers: readonly LayerDecision[], fpr: FalseAlarms): Decision {
  const at = layers.findIndex(({ feature }) => feature === probe.primary), primary = layers[at];
  const abstain = (reason: AbstainReason, detail: string): Decision => ({
    answer: "abstain",
    feature: primary.feature,
    agreement: null,
    reason,
    detail,
  });
  if (primary.flagged === null) {
    return abstain(
      "no-threshold",
      `too few unseen people's pictures were held out to set a threshold at ${fpr}`,
    );
  }
  const sound = probe.layers[at].metrics.sound;
  const p = sound?.p;
  if (p !== undefined && p > 0.05) {
    return abstain("no-evidence", `the probe tells seen from unseen people no better than chance (p = ${p})`);
  }
  if (primary.beyond) {
    return abstain(
      "beyond-support",
      "the picture lies beyond those that the probe was fitted or calibrated on",
    );
  }
  const able = layers.filter(({ flagged, beyond }) => flagged !== null && !beyond);
  const agreeing = able.filter(({ flagged }) => flagged === primary.flagged);
  return {
    answer: primary.flagged ? "flagged" : "not-flagged",
    feature: primary.feature,
    agreement: agreeing.length / able.length,
    reason: null,
    detail: `its score ${
      primary.flagged ? "exceeds" : "does not exceed"
    } the threshold at ${fpr} false alarms`,
  };
}
