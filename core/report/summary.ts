/**
 * The demo's `summary.json`: the primary feature's numbers arm by arm, for scripts that follow a run.
 * It holds only what the report shows, so the two cannot disagree.
 */
import { conclude } from "./conclude.ts";
import { type DemoReport, type Interval, resultOf } from "./schema.ts";

export interface Summary {
  arms: Record<string, {
    faithful: { auroc: number };
    sound: { auroc: number; null95: Interval; p: number };
    difference?: { value: number; null95: Interval; p: number };
  }>;
  primary: string;
  seed: number;
  quick: boolean;
  seconds: number;
  adapter: string;
  gradients: { batch: number; private: number; neutral: number; difference: number; ci95: Interval }[];
  scores: { probe: string; seen: boolean; score: number; probability: number }[];
  conclusions: { may: string[]; mayNot: string[] };
}

/** The summary of a report's data, at its primary feature. */
export function summarizeDemo(data: DemoReport): Summary {
  const arms: Summary["arms"] = {};
  for (const { name } of data.design.arms) {
    const result = resultOf(data, name);
    if (!result) continue;
    const { faithful, sound, difference } = result;
    arms[name] = { faithful, sound, ...(difference && { difference }) };
  }
  const keyOf = (role: string) => data.gradients?.perturbations.find((p) => p.role === role)?.key ?? "";
  const [privateKey, neutralKey] = [keyOf("private"), keyOf("neutral")];
  return {
    arms,
    primary: data.primary,
    seed: data.design.seed,
    quick: data.quick,
    seconds: data.provenance.seconds,
    adapter: data.provenance.adapter,
    gradients: (data.gradients?.rows ?? []).map(({ batch, cosines, difference }) => ({
      batch,
      private: cosines[privateKey].mean,
      neutral: cosines[neutralKey].mean,
      difference: difference.mean,
      ci95: difference.ci95,
    })),
    scores: data.scores.map(({ probe, seen, score, probability }) => ({ probe, seen, score, probability })),
    conclusions: conclude(data),
  };
}
