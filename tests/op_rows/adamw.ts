/**
 * Rows of gpu/ops/adamw.ts: ten steps against the f64 reference and against PyTorch's numbers, clipped and not,
 * and norms over tensors of awkward sizes. States that do not fit are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { adamwReference, gradNormReference } from "../../core/reference/optimizer.ts";
import type { Gpu } from "../../gpu/device.ts";
import { adamw, gradNorm } from "../../gpu/ops/adamw.ts";
import { allclose, FIXTURES } from "../check.ts";
import type { Row } from "./row.ts";

interface TorchCase {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  maxNorm?: number;
  start: number[];
  /** Of every step: the gradient, the parameters afterwards, and where clipped the norm before. */
  gradients: number[][];
  params: number[][];
  norms: number[];
}

/** Runs all steps on the GPU and returns the parameters after each. */
async function train(
  gpu: Gpu,
  { start, gradients, maxNorm, ...options }: Omit<TorchCase, "params" | "norms">,
) {
  const zeros = new Float32Array(start.length);
  const param = gpu.upload(Float32Array.from(start)), m = gpu.upload(zeros), v = gpu.upload(zeros);
  const grad = gpu.empty([start.length]), params: Float32Array[] = [];
  for (const [i, gradient] of gradients.entries()) {
    gpu.write(grad, Float32Array.from(gradient));
    const norm = maxNorm ? gradNorm(gpu, [grad]) : undefined;
    adamw(gpu, { param, grad, m, v }, { ...options, step: i + 1, norm, maxNorm });
    params.push(...await gpu.read(param) as Float32Array[]);
  }
  return params;
}

const steps = [1, 3, 4, 5, 255, 257, 1030, 16389].map((N, i): Row => ({
  op: ["adamw", "gradNorm"],
  name: `ten steps of ${N}${i % 2 ? ", clipped" : ""}`,
  tuned: true,
  check: async (gpu) => {
    const random = new Random(5, `adamw ${N}`);
    const start = Array.from({ length: N }, () => Math.fround(random.normal()));
    const gradients = Array.from(
      { length: 10 },
      (_, s) => start.map(() => Math.fround(random.normal() * 10 ** (s % 3 - 1))),
    );
    const options = { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 * (i % 3) };
    const maxNorm = i % 2 ? 1 : undefined;
    const params = await train(gpu, { ...options, maxNorm, start, gradients });
    const state = { param: Float64Array.from(start), m: new Float64Array(N), v: new Float64Array(N) };
    gradients.forEach((gradient, s) => {
      adamwReference(state, Float64Array.from(gradient), { ...options, maxNorm, step: s + 1 });
      const moved = (now: ArrayLike<number>) => start.map((p, k) => now[k] - p);
      allclose(`update after step ${s + 1}`, moved(params[s]), moved(state.param), 2e-5);
    });
  },
}));

const norms = [[1], [2, 7], [255, 256, 257], [5, 4 * 16384 * 256 / 4 + 3, 64]].map((lengths): Row => ({
  op: "gradNorm",
  name: `of ${lengths}`,
  check: async (gpu) => {
    const grads = lengths.map((n) =>
      Float32Array.from({ length: n }, (_, i) => ((i * 7919) % 1009) / 500 - 1)
    );
    const tensors = grads.map((grad) => gpu.upload(grad));
    const [norm, again] = await gpu.read(gradNorm(gpu, tensors), gradNorm(gpu, tensors));
    allclose("norm", norm, [gradNormReference(grads.map((grad) => Float64Array.from(grad)))], 1e-6);
    assert.deepEqual(norm, again, "two runs differ");
  },
}));

export const rows: Row[] = [
  ...steps,
  ...norms,
  {
    op: ["adamw", "gradNorm"],
    name: "agree with PyTorch",
    check: async (gpu) => {
      const { cases } = JSON.parse(await Deno.readTextFile(`${FIXTURES}/adamw_torch.json`)) as {
        cases: TorchCase[];
      };
      for (const { params, norms, ...rest } of cases) {
        const ours = await train(gpu, rest);
        params.forEach((theirs, s) => allclose(`parameters after step ${s + 1}`, ours[s], theirs, 1e-6));
        const own = rest.gradients.map((gradient) => gradNormReference([Float64Array.from(gradient)]));
        if (rest.maxNorm) allclose("norms", own, norms, 1e-6);
      }
    },
  },
  {
    op: "adamw",
    name: "refuses what does not fit",
    check: (gpu) => {
      const x = gpu.empty([4]), y = gpu.empty([5]), norm = gpu.empty([1]);
      const options = { lr: 1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1 };
      const state = { param: x, grad: x, m: x, v: x };
      assert.throws(() => adamw(gpu, { ...state, m: y }, options), /4 values .* 4, 5, 4/);
      assert.throws(() => adamw(gpu, state, { ...options, step: 0 }), /step 0/);
      assert.throws(() => adamw(gpu, state, { ...options, norm }), /both a norm and a maxNorm/);
      assert.throws(() => adamw(gpu, state, { ...options, maxNorm: 1 }), /both a norm and a maxNorm/);
    },
  },
];
