/**
 * Gradients of mini-batches, to be compared: one flat array of everything that is trained, before clipping. Or products
 * of two of them on the device, parameter by parameter; it refuses sets of slabs that differ.
 */
import type { EncodedSample } from "../core/data/pack.ts";
import type { Gpu } from "./device.ts";
import { zeroGrad } from "./nn/optimizer.ts";
import type { Slab } from "./nn/params.ts";
import { innerProducts, type PendingProducts } from "./ops/dot.ts";
import type { Session } from "./session.ts";
import { type Tensor, tensorOver } from "./tensor.ts";
import { accumulateGradients, microBatches } from "./train.ts";

/** The gradient of the mean loss of these samples at the present weights, slab after slab. */
export async function batchGradient(
  session: Session,
  samples: readonly EncodedSample[],
  microTokens = 4096,
): Promise<Float32Array[]> {
  const { gpu, model, slabs } = session;
  using _scope = gpu.pool.scope();
  zeroGrad(gpu, slabs);
  accumulateGradients(gpu, model, microBatches(samples, microTokens, model), {
    checkpointed: false,
    dropoutSeed: 0,
  });
  return await gpu.read(...slabs.map(({ grad }) => grad)) as Float32Array[];
}

/** Cosine similarity of two gradients, their slabs taken together; 0 when either is zero. */
export function gradientCosine(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let dot = 0, aa = 0, bb = 0;
  a.forEach((values, s) => {
    const others = b[s];
    for (let i = 0; i < values.length; i++) {
      dot += values[i] * others[i];
      aa += values[i] * values[i];
      bb += others[i] * others[i];
    }
  });
  return aa && bb ? dot / Math.sqrt(aa * bb) : 0;
}

/** One of the four buffers of some slabs: where gradients to be compared lie. */
export type SlabPart = readonly [slabs: readonly Slab[], part: "param" | "grad" | "m" | "v"];

/** Inner products of two gradients, one entry a trained parameter in the order of the slabs, computed where they lie. */
export function gradientProducts(gpu: Gpu, a: SlabPart, b: SlabPart): PendingProducts {
  const others = tensorsOf(b);
  return innerProducts(gpu, tensorsOf(a).map((tensor, i) => [tensor, others[i]]));
}

function tensorsOf([slabs, part]: SlabPart): Tensor[] {
  return slabs.flatMap((slab) =>
    slab.params.map(({ shape }, i) => tensorOver(slab[part].buffer, shape, "f32", 4 * slab.offsets[i]))
  );
}
