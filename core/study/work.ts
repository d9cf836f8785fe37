/**
 * How much work a study's cells are, in samples that a model reads or is trained on: for the plan's times, for dealing
 * chains to machines and for the time that is left. It says nothing about probes, which run beside the device.
 */
import { type Cell, type Identities, tuningOf } from "./cells.ts";
import type { StudyConfig } from "./config.ts";

/** Held-out pictures with questions that an arm answers before and after. */
export const VQA_PICTURES = 64;

export interface Work {
  /** Samples through the model and back. */
  trained: number;
  /** Samples through the model. */
  read: number;
}

/** A pass back costs about as much as two forward. */
export const unitsOf = ({ trained, read }: Work): number => 3 * trained + read;

/** Tokens of a candidate name or id beside those of a question with a picture, roughly. */
const CANDIDATE = 0.05;

/** @param cell one of the study's cells */
export function workOf(config: StudyConfig, { data }: Identities, cell: Cell): Work {
  const { model, arm, seed, batch } = cell.key, both = 2 * config.people;
  switch (cell.kind) {
    case "tune": {
      const found = config.models.find(({ name }) => name === model)!;
      const { steps } = tuningOf(config, found, arm!, batch, data[`${cell.key.data}/${seed}`].images);
      return { trained: steps * batch, read: 2 * VQA_PICTURES };
    }
    case "activations":
      return { trained: 0, read: both * config.probe.scenes };
    case "probe":
      return { trained: 0, read: 0 };
    case "says": {
      const { scenes, alternatives } = config.says!;
      const asked = both * scenes * 5; // two fields shown and not, and whether the person was seen
      return { trained: both, read: asked * (1 + CANDIDATE * alternatives) };
    }
    case "gradients": {
      const { batchSizes, batches, versions, trajectory } = config.gradients!;
      const compared = batchSizes.reduce((sum, size) => sum + size * batches, 0) * (versions.length + 1);
      // What private content adds on average, over both halves of the pictures.
      const direction = versions.includes("private") ? 2 * Math.max(...batchSizes) * batches : 0;
      return {
        trained: compared + direction + 2 * trajectory.arms.length * trajectory.steps * batch,
        read: 0,
      };
    }
  }
}

/** The sum over cells. */
export function totalWork(config: StudyConfig, identities: Identities, cells: readonly Cell[]): Work {
  return cells.map((cell) => workOf(config, identities, cell)).reduce(
    (sum, { trained, read }) => ({ trained: sum.trained + trained, read: sum.read + read }),
    { trained: 0, read: 0 },
  );
}
