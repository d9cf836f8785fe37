/**
 * How fast an adapter is, in a fraction of a second: one product and one sum of the sizes that a model has.
 * It says nothing about an adapter that other work shares.
 */
import type { Gpu } from "./device.ts";
import type { Plan } from "./plan.ts";
import { add } from "./ops/add.ts";
import { matmulNT } from "./ops/matmul.ts";
import { Tape } from "./tape.ts";

export interface Rate {
  /** Operations of products a second, additions and multiplications counted apart. */
  flops: number;
  /** Bytes that an elementwise kernel reads and writes a second. */
  bytes: number;
}

const TURNS = 3, TURN_MS = 60;

/** Measures with `rows` rows of C and F channels; each the best of three turns. */
export async function measureRate(
  gpu: Gpu,
  { rows, C, F }: { rows: number; C: number; F: number },
): Promise<Rate> {
  using _scope = gpu.pool.scope();
  const zeros = (shape: number[]) => {
    const tensor = gpu.empty(shape);
    gpu.zero(tensor);
    return tensor;
  };
  const x = zeros([rows, C]), w = zeros([F, C]), y = zeros([rows, F]);
  const product = await best(gpu, () => matmulNT(gpu, x, w, y));
  const sum = await best(gpu, () => {
    using _scope = gpu.pool.scope();
    add(new Tape(gpu, false), y, y);
  });
  return { flops: 2 * rows * C * F / product, bytes: 3 * y.bytes / sum };
}

/** Seconds of one piece of work. */
async function best(gpu: Gpu, work: () => void): Promise<number> {
  const turn = async (times: number) => {
    const start = performance.now();
    for (let i = 0; i < times; i++) work();
    await gpu.read(gpu.nothing);
    return performance.now() - start;
  };
  await turn(1); // compiles
  const idle = await turn(0), once = Math.max(0.01, await turn(1) - idle);
  const times = Math.max(1, Math.min(2000, Math.round(TURN_MS / once)));
  let least = Infinity;
  for (let i = 0; i < TURNS; i++) least = Math.min(least, Math.max(0.001, await turn(times) - idle) / times);
  return least / 1000;
}

/** Seconds that a planned step takes at a rate: products and attention by operations, everything else by bytes. */
export function secondsOf({ work }: Plan, { flops, bytes }: Rate): number {
  return Object.values(work).reduce((sum, part) => sum + part.flops / flops + part.bytes / bytes, 0);
}
