/**
 * The logits of a whole micro-batch, for comparisons: training never holds them together. Refuses nothing itself.
 */
import type { PackedBatch } from "../core/data/pack.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { matmulNT } from "./ops/matmul.ts";
import { Tape } from "./tape.ts";

/** Logits (T, V) of a packed micro-batch, without dropout. */
export async function logitsOf(
  { gpu, model }: { gpu: Gpu; model: Model },
  batch: PackedBatch,
): Promise<Float32Array<ArrayBuffer>> {
  using _scope = gpu.pool.scope();
  const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, true); // (T, C)
  const logits = gpu.empty([batch.ids.length, model.decoder.config.V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  const [values] = await gpu.read(logits);
  return values as Float32Array<ArrayBuffer>;
}
