/**
 * The demo's probes: every arm at every feature, the faithful and the sound way, with differences to the control arm
 * under the same permutations of people.
 */
import type { Folder } from "../formats/folder.ts";
import type { SampleRow } from "../probe/activations.ts";
import { fitProbe, type FittedProbe } from "../probe/fit.ts";
import { difference } from "../probe/inference.ts";
import { saveProbe } from "../probe/stored.ts";
import type { Result } from "../report/schema.ts";

export interface ProbePlan {
  /** Partitions of the people, and permutations of who counts as seen. */
  partitions: number;
  draws: number;
}

export interface ProbeSettings extends ProbePlan {
  seed: number;
  primary: string;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export type Features = Map<string, { dim: number; data: Float32Array }>;

/**
 * One arm at all its features. The faithful way takes rows as they are, as published; the sound way centres scenes and
 * standardises dimensions first, both blind to labels.
 */
export async function probeArm(
  samples: SampleRow[],
  features: Features,
  settings: ProbeSettings,
): Promise<FittedProbe> {
  return await fitProbe({ samples, features }, {
    ...settings,
    seen: "U1",
    unseen: "U2",
    c: 1,
    centerScenes: true,
    standardize: true,
    faithful: {
      split: "scene",
      partitions: 10,
      seed: settings.seed,
      centerScenes: false,
      standardize: false,
    },
  });
}

/** Rows of the report: arm by arm and feature by feature, each compared with `comparedTo` where that was fitted. */
export function resultsOf(fitted: ReadonlyMap<string, FittedProbe>, comparedTo: string): Result[] {
  const control = fitted.get(comparedTo);
  return [...fitted].flatMap(([arm, { facts, permuted }]) =>
    facts.layers.map(({ feature, metrics: { faithful, sound } }): Result => {
      const against = control && arm !== comparedTo
        ? difference(permuted[feature], control.permuted[feature])
        : undefined;
      return {
        arm,
        feature,
        faithful: { auroc: faithful!.auroc },
        sound: { auroc: sound!.auroc, null95: sound!.null95, p: sound!.p },
        ...(against && { difference: { value: against.difference, null95: against.null95, p: against.p } }),
      };
    })
  );
}

/** Stores an arm's probe so that the service can score single pictures with it. Returns its hash. */
export async function storeProbe(
  folder: Folder,
  id: string,
  { facts, tensors }: FittedProbe,
  model: { name: string; hash: string; adapter: string | null },
  prompt: string,
): Promise<string> {
  const { hash } = await saveProbe(
    folder,
    {
      id,
      title: "People in the training pictures of the demo's positive control",
      mode: "sound",
      model,
      content: "synthetic people's details written into 64 x 64 pictures as watermarks",
      prompt,
      ...facts,
    },
    tensors,
    { parents: { model: model.hash, ...(model.adapter && { run: model.adapter }) } },
  );
  return hash;
}
