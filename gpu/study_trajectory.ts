/**
 * Two trainings in lockstep on one copy of the frozen weights: same seed, same order, one on clean pictures and one on
 * an arm's. Each is to the bit what `train` does alone; their gradients are compared before clipping.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import { measureSets, type ParameterSet, type TrajectoryLine } from "../core/study/gradients.ts";
import type { Gpu } from "./device.ts";
import { gradientProducts } from "./gradients.ts";
import { pointInto, type Slab } from "./nn/params.ts";
import type { Session } from "./session.ts";
import { samplesBySteps, type TrainConfig, trainStep } from "./train.ts";

export interface Trajectories {
  session: Session;
  config: TrainConfig;
  /** Pictures of either training. */
  count: number;
  /** The clean arm's, and the compared one's. */
  arms: readonly [string, string];
  sample(arm: string, index: number): Promise<EncodedSample>;
  sets: readonly ParameterSet[];
  joined: "concatenated" | "per-tensor";
  steps: number;
  /** Gradients are compared at the first step and every so many after it. */
  every: number;
  signal?: AbortSignal;
}

/** Trains both from a session that was just opened, and tells each compared step as it is done. */
export async function compareTrajectories(
  { session, config, count, arms, sample, sets, joined, steps, every, signal }: Trajectories,
  onLine: (line: TrajectoryLine) => Promise<void>,
): Promise<void> {
  const { gpu, model, slabs } = session, twins = twinSlabs(gpu, slabs);
  const samplesAt = samplesBySteps(config, count);
  try {
    for (let step = 0; step < steps; step++) {
      signal?.throwIfAborted();
      using _scope = gpu.pool.scope();
      const done: { loss: readonly number[]; norm: number }[] = [];
      for (const [i, own] of [slabs, twins].entries()) {
        const samples = await Promise.all(samplesAt(step).map((index) => sample(arms[i], index)));
        pointInto(own);
        const { norm, losses } = trainStep({ gpu, model, slabs: own, config }, step, samples);
        const [[value], ...parts] = await gpu.read(norm, ...losses);
        done.push({ norm: value, loss: parts.map(([part]) => part) });
      }
      if (step % every !== 0) continue;
      const { shares, finish } = gradientProducts(gpu, [twins, "grad"], [slabs, "grad"]);
      const { measures, products } = measureSets(finish((await gpu.read(shares))[0]), sets, joined);
      const [loss, other] = done.map(({ loss }) => loss.reduce((a, b) => a + b, 0));
      await onLine({
        ...{ arm: arms[1], step: step + 1, measures },
        losses: [loss, other],
        norms: [done[0].norm, done[1].norm],
        products,
      });
    }
  } finally {
    pointInto(slabs);
    for (const { param, grad, m, v } of twins) {
      for (const { buffer } of [param, grad, m, v]) gpu.pool.release(buffer);
    }
  }
}

/** A second set of slabs, its values copied, to train the same parameters otherwise. */
function twinSlabs(gpu: Gpu, slabs: readonly Slab[]): Slab[] {
  return slabs.map((slab) => {
    const [param, grad, m, v] = Array.from({ length: 4 }, () => gpu.persistent(slab.param.shape));
    gpu.copy(slab.param, param);
    for (const tensor of [grad, m, v]) gpu.zero(tensor);
    return { ...slab, param, grad, m, v };
  });
}
