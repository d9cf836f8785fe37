/**
 * The optimiser over slabs: gradients cleared, clipped by their global norm and applied by AdamW, one dispatch a slab.
 */
import type { Gpu } from "../device.ts";
import { adamw, gradNorm } from "../ops/adamw.ts";
import type { Tensor } from "../tensor.ts";
import type { Slab } from "./params.ts";

export interface StepOptions {
  /** Learning rate of each group. */
  lr: (group: string) => number;
  beta1: number;
  beta2: number;
  eps: number;
  /** Of the slabs that decay. */
  weightDecay: number;
  /** Counts from 1. */
  step: number;
  /** 0 does not clip. */
  maxNorm: number;
}

/** Clears every gradient. */
export function zeroGrad(gpu: Gpu, slabs: readonly Slab[]): void {
  for (const { grad } of slabs) gpu.zero(grad);
}

/** One update of every slab; returns the gradients' global norm (1) before clipping. */
export function optimizerStep(
  gpu: Gpu,
  slabs: readonly Slab[],
  { lr, maxNorm, ...options }: StepOptions,
): Tensor {
  const norm = gradNorm(gpu, slabs.map(({ grad }) => grad));
  const clip = maxNorm > 0 ? { norm, maxNorm } : {};
  for (const slab of slabs) {
    const weightDecay = slab.decays ? options.weightDecay : 0;
    adamw(gpu, slab, { ...options, ...clip, weightDecay, lr: lr(slab.group) });
  }
  return norm;
}
