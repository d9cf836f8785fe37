/**
 * What `deno task bench` measures of this engine: cases that know their work, and a clock that takes the best of
 * several interleaved turns. Refuses nothing; results of a loaded machine are the machine's.
 */
import { causalRanges, fullRanges, type Ranges } from "../core/ranges.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import type { Gpu } from "./device.ts";
import { nf4Bytes, nf4Over, nf4Writer } from "./nf4.ts";
import { attention, uploadRanges } from "./ops/attention.ts";
import { matmulNN, matmulNT, matmulTN } from "./ops/matmul.ts";
import { rmsnorm } from "./ops/norm.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/** Work that can be timed; `run` does it `times` times and waits until the last result can be read on the host. */
export interface BenchCase {
  name: string;
  /** Cases of one group do the same work and are compared. */
  group?: string;
  /** Who does it: this engine, or a peer by name and version. */
  who: string;
  /** Of one turn, in units of `unit` times a second: 2e9 operations at "GFLOP/s" count 2. */
  amount: number;
  unit: "GFLOP/s" | "GB/s" | "tokens/s";
  run(times: number): Promise<void>;
}

export interface BenchResult extends Omit<BenchCase, "run"> {
  /** Of the best turn. */
  seconds: number;
  rate: number;
}

export const SIDE = 1024;
export const OURS = "afterimage";

/** A matrix with values of [-0.5, 0.5), the same for every peer. */
export function squareMatrix(stream: string): Float32Array<ArrayBuffer> {
  const random = new Random(0, `bench ${stream}`);
  return Float32Array.from({ length: SIDE * SIDE }, () => random.float() - 0.5);
}

/** The group of the products of two square matrices, which peers run as well. */
export const PRODUCT = `matmul ${SIDE}x${SIDE}x${SIDE}`;

/** The cases of this engine; their tensors live in the innermost scope. */
export function benchCases(gpu: Gpu): BenchCase[] {
  return [...products(gpu), ...attentions(gpu), ...norms(gpu)];
}

function products(gpu: Gpu): BenchCase[] {
  const shape = [SIDE, SIDE], amount = 2 * SIDE ** 3 / 1e9;
  const x = gpu.upload(squareMatrix("x"), shape), w = gpu.upload(squareMatrix("w"), shape);
  const packed = gpu.upload(new Uint32Array(SIDE * SIDE / 2).fill(0x3f803f80)); // ones
  const bf16: Tensor = { ...packed, shape, dtype: "bf16" };
  const nf4 = nf4Over(gpu.pool.scoped(nf4Bytes(shape)), shape), writer = nf4Writer(gpu, nf4);
  writer.write(squareMatrix("w"));
  writer.finish();
  const out = gpu.empty(shape);
  const named = (name: string, product: () => void) => ({
    ...ours(gpu, `${PRODUCT} ${name}`, amount, "GFLOP/s", out, product),
    group: PRODUCT,
  });
  return [
    named("x w^T", () => matmulNT(gpu, x, w, out)),
    named("x w", () => matmulNN(gpu, x, w, out)),
    named("x^T w", () => matmulTN(gpu, x, w, out)),
    named("x w^T, bf16 weights", () => matmulNT(gpu, x, bf16, out)),
    named("x w, bf16 weights", () => matmulNN(gpu, x, bf16, out)),
    named("x w^T, nf4 weights", () => matmulNT(gpu, x, nf4, out)),
    named("x w, nf4 weights", () => matmulNN(gpu, x, nf4, out)),
  ];
}

function attentions(gpu: Gpu): BenchCase[] {
  const segments = (count: number, rows: number) => Array.from({ length: count + 1 }, (_, i) => i * rows);
  const shapes: [name: string, ranges: Ranges, H: number, K: number, D: number][] = [
    ["full, 8 x 64 rows, 4/4 heads of 16", fullRanges(segments(8, 64)), 4, 4, 16],
    ["causal, 8 x 60 rows, 4/4 heads of 16", causalRanges(segments(8, 60)), 4, 4, 16],
    ["causal, 2 x 128 rows, 9/3 heads of 64", causalRanges(segments(2, 128)), 9, 3, 64],
  ];
  return shapes.flatMap(([name, ranges, H, K, D]) => {
    const T = ranges.queryLo.length, seen = uploadRanges(gpu, ranges);
    const [q, k, v, dy] = [H, K, K, H].map((heads) => normal(gpu, [T, heads * D]));
    const pairs = ranges.queryHi.reduce((sum, hi, t) => sum + hi - ranges.queryLo[t], 0);
    const forward = 4 * pairs * H * D / 1e9; // q k and p v
    return [
      ours(gpu, `attention ${name}`, forward, "GFLOP/s", dy, () => {
        using _scope = gpu.pool.scope();
        attention(new Tape(gpu, false), q, k, v, seen, { headDim: D });
      }),
      ours(gpu, `attention ${name}, with gradients`, 3.5 * forward, "GFLOP/s", dy, () => { // and five more products
        using _scope = gpu.pool.scope();
        const tape = new Tape(gpu);
        const inputs = [q, k, v].map((x) => ({ ...x, requiresGrad: true }));
        tape.backward(attention(tape, inputs[0], inputs[1], inputs[2], seen, { headDim: D }), dy);
      }),
    ];
  });
}

function norms(gpu: Gpu): BenchCase[] {
  return [[512, 64], [1024, 576]].map((shape) => {
    const x = normal(gpu, shape), w = normal(gpu, shape.slice(1));
    return ours(gpu, `rmsnorm (${shape.join(", ")})`, 2 * x.bytes / 1e9, "GB/s", x, () => {
      using _scope = gpu.pool.scope();
      rmsnorm(new Tape(gpu, false), x, w, { eps: 1e-6 });
    });
  });
}

function ours(
  gpu: Gpu,
  name: string,
  amount: number,
  unit: BenchCase["unit"],
  result: Tensor,
  work: () => void,
): BenchCase {
  const run = async (times: number) => {
    for (let i = 0; i < times; i++) work();
    await gpu.read(result);
  };
  return { name, who: OURS, amount, unit, run };
}

function normal(gpu: Gpu, shape: number[]): Tensor {
  const random = new Random(0, "bench normal");
  return gpu.upload(Float32Array.from({ length: sizeOf(shape) }, () => random.normal()), shape);
}

/** A turn lasts about this long: work shorter than that is repeated. */
const TURN_MS = 150, MOST = 200;

/** The best of `turns` turns of every case, taken in rotation, so that a busy moment hits all of them. */
export async function measureCases(cases: readonly BenchCase[], turns: number): Promise<BenchResult[]> {
  const times: number[] = [], best = cases.map(() => Infinity);
  for (const { run } of cases) {
    await run(1); // compiles
    const once = await clock(() => run(1));
    times.push(Math.max(1, Math.min(MOST, Math.round(TURN_MS / once))));
  }
  for (let turn = 0; turn < turns; turn++) {
    for (const [i, { run }] of cases.entries()) {
      best[i] = Math.min(best[i], await clock(() => run(times[i])) / times[i]);
    }
  }
  return cases.map(({ run: _, ...facts }, i) => {
    const seconds = best[i] / 1000;
    return { ...facts, seconds, rate: facts.amount / seconds };
  });
}

async function clock(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
