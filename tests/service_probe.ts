/**
 * A small stored probe with known weights, for the service's tests: three activations a feature,
 * coefficients 1, -2, 3, and an intercept of a quarter times the feature's number.
 */
import type { Folder } from "../core/formats/folder.ts";
import { type Facts, saveProbe } from "../core/probe/stored.ts";

/** Saves it below `root` as `id`, as fitted on a model of that name. Returns what was stored about it. */
export async function saveTestProbe(
  root: Folder,
  id: string,
  features: string[],
  model = "test-model",
): Promise<Facts> {
  const facts: Facts = {
    id,
    title: "A probe for tests",
    mode: "sound",
    model: { name: model, hash: "ab".repeat(32), adapter: null },
    content: "made up",
    prompt: "what is this",
    primary: features.at(-1)!,
    seen: { set: "U1", people: 8 },
    unseen: { set: "U2", people: 8 },
    seed: 0,
    layers: features.map((feature) => {
      const [site, reduction] = feature.split("@");
      return { feature, site, reduction, dim: 3, metrics: {}, threshold: null };
    }),
  };
  const tensors = Object.fromEntries(
    features.map((feature, i) => [feature, { coef: Float64Array.of(1, -2, 3), intercept: 0.25 * (i + 1) }]),
  );
  await saveProbe(root.folder(id), facts, tensors);
  return facts;
}
