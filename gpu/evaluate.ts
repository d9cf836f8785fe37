/**
 * Held-out loss and answers: every answer is predicted with the true conversation before it, and counts as right when
 * all of its tokens are. Nothing is trained.
 */
import { type EncodedSample } from "../core/data/pack.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { Tape } from "./tape.ts";
import { microBatches } from "./train.ts";

export interface Evaluation {
  /** Mean -log p over all supervised tokens, in nats. */
  loss: number;
  /** Share of answers predicted whole. */
  accuracy: number;
  /** For each sample, in order, whether each of its answers was right. */
  right: boolean[][];
  /** For each sample its mean -log p, and the supervised tokens that it is over. */
  losses: number[];
  tokens: number[];
}

/** @param microTokens tokens that one pass packs at most */
export async function evaluate(
  gpu: Gpu,
  model: Model,
  samples: readonly EncodedSample[],
  microTokens = 4096,
): Promise<Evaluation> {
  const right: boolean[][] = [], losses: number[] = [], tokens: number[] = [];
  let total = 0, all = 0;
  for (const batch of microBatches(samples, microTokens, model)) {
    using _scope = gpu.pool.scope();
    const tape = new Tape(gpu, false);
    const hidden = runModel(new Forward(tape), model, batch, true);
    const { perToken, predicted } = crossEntropy(tape, hidden, model.head.tensor, { ...batch, scale: 1 });
    const [nll, best] = await gpu.read(perToken, predicted);
    const sums = batch.sampleIds.map(() => ({ nll: 0, n: 0, answers: [] as boolean[] }));
    batch.rowSample.forEach((s, i) => {
      const isNew = i === 0 || batch.rowSample[i - 1] !== s || batch.rows[i - 1] !== batch.rows[i] - 1;
      const { answers } = sums[s];
      if (isNew) answers.push(true);
      if (best[i] !== batch.targets[i]) answers[answers.length - 1] = false;
      sums[s].nll += nll[i];
      sums[s].n++;
    });
    for (const { nll, n, answers } of sums) {
      right.push(answers);
      losses.push(nll / n);
      tokens.push(n);
      total += nll;
      all += n;
    }
  }
  const answers = right.flat();
  return {
    loss: total / all,
    accuracy: answers.filter(Boolean).length / answers.length,
    right,
    losses,
    tokens,
  };
}
