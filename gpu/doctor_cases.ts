/**
 * One small case for every kernel, beside the f64 reference that it must agree with: what `checkKernels` runs.
 * Shapes are tiny, yet every code path of this adapter is in them: odd widths, packed weights, ranges beyond a panel.
 */
import { causalRanges } from "../core/ranges.ts";
import {
  activateReference,
  type ActivationKind,
  dropoutReference,
  rotaryReference,
  swigluReference,
} from "../core/reference/activation.ts";
import { attentionReference, cachedAttentionReference } from "../core/reference/attention.ts";
import { innerProductsReference } from "../core/reference/dot.ts";
import { crossEntropyReference } from "../core/reference/loss.ts";
import {
  matmulNNReference,
  matmulNTReference,
  type MatmulShape,
  matmulTNReference,
} from "../core/reference/matmul.ts";
import { layernormReference, rmsnormReference } from "../core/reference/norm.ts";
import { adamwReference } from "../core/reference/optimizer.ts";
import {
  columnSumReference,
  concatRowsReference,
  gatherRowsReference,
  mergeRowsReference,
  poolRowsReference,
} from "../core/reference/rows.ts";
import { activate, swiglu } from "./ops/activation.ts";
import { adamw, gradNorm } from "./ops/adamw.ts";
import { add, scale } from "./ops/add.ts";
import { attention, cachedAttention, uploadPairs, uploadRanges } from "./ops/attention.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { innerProducts } from "./ops/dot.ts";
import { dropout } from "./ops/dropout.ts";
import { gatherRows, mergeRows } from "./ops/gather.ts";
import { linear } from "./ops/linear.ts";
import { matmulNN, matmulNT, matmulTN } from "./ops/matmul.ts";
import { layernorm, rmsnorm } from "./ops/norm.ts";
import { columnSum, concatRows, poolRows } from "./ops/reduce.ts";
import { rotary } from "./ops/rotary.ts";
import { storeRows } from "./ops/store_rows.ts";
import type { Tape } from "./tape.ts";
import { type Tensor, viewAs } from "./tensor.ts";

export interface CaseInput {
  shape: readonly number[];
  /** An activation's gradient comes off the tape, a parameter's is added to its `grad`, a constant has none. */
  kind: "activation" | "parameter" | "constant";
  /** How it lies on the device, f32 by default. */
  type?: "f32" | "bf16" | "nf4";
  /** Squared: second moments. */
  positive?: boolean;
}

/** Inputs are standard normal; the reference gets them as the device holds them. */
export interface KernelCase {
  name: string;
  inputs: readonly CaseInput[];
  gpu(tape: Tape, inputs: Tensor[]): Tensor;
  reference(inputs: Float64Array[]): Float64Array;
  /** The op takes the gradient of its result to be 1. */
  unitDy?: boolean;
}

const x = (...shape: number[]): CaseInput => ({ shape, kind: "activation" });
const w = (...shape: number[]): CaseInput => ({ shape, kind: "parameter" });
const fixed = (...shape: number[]): CaseInput => ({ shape, kind: "constant" });
const packed = (...shape: number[]): CaseInput => ({ shape, kind: "constant", type: "bf16" });
const nf4 = (...shape: number[]): CaseInput => ({ shape, kind: "constant", type: "nf4" });

/** All cases, in the order in which they are printed. */
export function kernelCases(): KernelCase[] {
  return [
    ...[{ T: 19, N: 12, K: 20 }, { T: 5, N: 8, K: 264 }, { T: 5, N: 7, K: 3 }].flatMap(products),
    linearCase(),
    ...norms({ T: 33, C: 68 }, "by panels on a CPU"),
    ...norms({ T: 33, C: 67 }, "odd width"),
    ...(["gelu", "gelu_tanh", "quick_gelu", "silu"] as const).map(activationCase),
    {
      name: "swiglu",
      inputs: [x(67), x(67)],
      gpu: (tape, [gate, up]) => swiglu(tape, gate, up),
      reference: ([gate, up]) => swigluReference(gate, up),
    },
    rotaryCase("rotary", { T: 5, H: 3, D: 8 }),
    rotaryCase("rotary, halves of no four", { T: 5, H: 2, D: 12 }),
    attentionCase("attention, packed segments, grouped heads", [0, 1, 9, 20], { H: 4, K: 2, D: 16 }),
    attentionCase("attention, beyond a panel", [0, 40], { H: 16, K: 16, D: 32 }),
    attentionCase("attention, rows too long for panels", [0, 20], { H: 40, K: 40, D: 32 }),
    attentionCase("attention, beyond a panel, heads of 64", [0, 40], { H: 8, K: 8, D: 64 }),
    attentionCase("attention, wide heads", [0, 9], { H: 2, K: 1, D: 128 }),
    cachedAttentionCase(),
    storeCase(),
    ...moves(),
    dropoutCase(),
    ...losses(),
    adamwCase(),
    {
      name: "inner products of two gradients",
      inputs: [fixed(67), fixed(67)],
      gpu: (tape, [a, b]) => innerProducts(tape.gpu, [[a, b]]).shares, // so few values make one share
      reference: ([a, b]) => innerProductsReference(a, b),
    },
  ];
}

function products(shape: MatmulShape): KernelCase[] {
  const { T, N, K } = shape, size = `(${T}, ${K}) by (${N}, ${K})`;
  const into = (rows: number, columns: number, run: (out: Tensor) => void, tape: Tape) => {
    const out = tape.empty([rows, columns]);
    run(out);
    return out;
  };
  const weights: [string, CaseInput][] = [["f32", fixed(N, K)], ["nf4", nf4(N, K)]];
  if (N * K % 2 === 0) weights.push(["bf16", packed(N, K)]);
  return [
    ...weights.flatMap(([type, weight]): KernelCase[] => [{
      name: `matmul x w^T, ${type}, ${size}`,
      inputs: [fixed(T, K), weight],
      gpu: (tape, [x, w]) => into(T, N, (out) => matmulNT(tape.gpu, x, w, out), tape),
      reference: ([x, w]) => matmulNTReference(x, w, shape),
    }, {
      name: `matmul dy w, ${type}, ${size}`,
      inputs: [fixed(T, N), weight],
      gpu: (tape, [dy, w]) => into(T, K, (out) => matmulNN(tape.gpu, dy, w, out), tape),
      reference: ([dy, w]) => matmulNNReference(dy, w, shape),
    }]),
    {
      name: `matmul dy^T x, f32, ${size}`,
      inputs: [fixed(T, N), fixed(T, K)],
      gpu: (tape, [dy, x]) => into(N, K, (out) => matmulTN(tape.gpu, dy, x, out), tape),
      reference: ([dy, x]) => matmulTNReference(dy, x, shape),
    },
  ];
}

function linearCase(): KernelCase {
  const T = 9, N = 12, K = 8, R = 4, scaling = 0.5;
  return {
    name: "linear with bias and LoRA",
    inputs: [x(T, K), w(N, K), w(N), w(R, K), w(N, R)],
    gpu: (tape, [x, w, bias, a, b]) => linear(tape, x, w, bias, { a, b, scaling, dropout: 0, seed: 1 }),
    reference: ([x, w, bias, a, b]) => {
      const low = matmulNTReference(x, a, { T, N: R, K });
      const adapted = matmulNTReference(low, b, { T, N, K: R });
      return matmulNTReference(x, w, { T, N, K }).map((y, i) => y + bias[i % N] + scaling * adapted[i]);
    },
  };
}

function rotaryCase(name: string, shape: { T: number; H: number; D: number }): KernelCase {
  const { T, H, D } = shape;
  return {
    name,
    inputs: [x(T, H * D), fixed(T, D / 2), fixed(T, D / 2)],
    gpu: (tape, [x, cos, sin]) => rotary(tape, x, cos, sin),
    reference: ([x, cos, sin]) => rotaryReference(x, cos, sin, shape),
  };
}

function norms({ T, C }: { T: number; C: number }, how: string): KernelCase[] {
  const shape = { T, C, eps: 1e-5 };
  return [{
    name: `rmsnorm, ${how}`,
    inputs: [x(T, C), w(C)],
    gpu: (tape, [x, w]) => rmsnorm(tape, x, w, shape),
    reference: ([x, w]) => rmsnormReference(x, w, shape),
  }, {
    name: `layernorm, ${how}`,
    inputs: [x(T, C), w(C), w(C)],
    gpu: (tape, [x, w, b]) => layernorm(tape, x, w, b, shape),
    reference: ([x, w, b]) => layernormReference(x, w, b, shape),
  }];
}

function activationCase(kind: ActivationKind): KernelCase {
  return {
    name: kind,
    inputs: [x(67)],
    gpu: (tape, [x]) => activate(tape, x, kind),
    reference: ([x]) => activateReference(x, kind),
  };
}

function attentionCase(
  name: string,
  starts: number[],
  shape: { H: number; K: number; D: number },
): KernelCase {
  const T = starts.at(-1)!, { H, K, D } = shape, seen = causalRanges(starts);
  return {
    name,
    inputs: [x(T, H * D), x(T, K * D), x(T, K * D)],
    gpu: (tape, [q, k, v]) => attention(tape, q, k, v, uploadRanges(tape.gpu, seen), { headDim: D }),
    reference: ([q, k, v]) => attentionReference(q, k, v, seen, shape),
  };
}

/** What adds, picks and pools whole rows, once four columns at a time and once one by one. */
function moves(): KernelCase[] {
  const index = Uint32Array.of(2, 0, 2, 4), source = Int32Array.of(-1, 1, -1, 0);
  const groups = [Uint32Array.of(0, 3), Uint32Array.of(1, 2, 3)];
  return [
    {
      name: "add and scale",
      inputs: [x(3, 7), x(3, 7)],
      gpu: (tape, [x, y]) => scale(tape, add(tape, x, y), 0.25),
      reference: ([x, y]) => x.map((v, i) => 0.25 * (v + y[i])),
    },
    {
      name: "gather, packed bf16",
      inputs: [packed(5, 6)],
      gpu: (tape, [x]) => gatherRows(tape, x, index),
      reference: ([x]) => gatherRowsReference(x, index, 6),
    },
    ...[3, 8].flatMap((C): KernelCase[] => [
      {
        name: `gather rows of ${C}`,
        inputs: [w(5, C)],
        gpu: (tape, [x]) => gatherRows(tape, x, index),
        reference: ([x]) => gatherRowsReference(x, index, C),
      },
      {
        name: `merge rows of ${C}`,
        inputs: [x(4, C), x(2, C)],
        gpu: (tape, [base, features]) => mergeRows(tape, base, features, source),
        reference: ([base, features]) => mergeRowsReference(base, features, source, C),
      },
      {
        name: `pool rows of ${C}`,
        inputs: [x(4, C)],
        gpu: (tape, [x]) => poolRows(tape, x, groups),
        reference: ([x]) => poolRowsReference(x, groups, C),
      },
      {
        name: `concatenate rows of ${C}`,
        inputs: [x(2, C), w(3, C)],
        gpu: (tape, xs) => concatRows(tape, xs),
        reference: concatRowsReference,
      },
      {
        name: `sum columns, ${C}`,
        inputs: [fixed(70, C)],
        gpu: (tape, [x]) => {
          const sums = tape.empty([C]);
          columnSum(tape.gpu, x, sums);
          return sums;
        },
        reference: ([x]) => columnSumReference(x, C),
      },
    ]),
  ];
}

/** Two tokens of one sequence and one of another behind a cache of seven rows. */
function cachedAttentionCase(): KernelCase {
  const shape = { H: 4, K: 2, D: 8 }, ranges = causalRanges([0, 2, 3]);
  const lo = Uint32Array.of(0, 0, 5), hi = Uint32Array.of(5, 5, 7);
  return {
    name: "attention, with a cache",
    inputs: [fixed(3, 32), fixed(3, 16), fixed(3, 16), fixed(7, 16), fixed(7, 16)],
    gpu: (tape, [q, k, v, pastK, pastV]) => {
      const past = { k: pastK, v: pastV, lo, hi, ranges: uploadPairs(tape.gpu, lo, hi) };
      return cachedAttention(tape, q, k, v, uploadRanges(tape.gpu, ranges), past, { headDim: shape.D });
    },
    reference: ([q, k, v, pastK, pastV]) =>
      cachedAttentionReference(q, [k, v], ranges, [pastK, pastV], { lo, hi }, shape),
  };
}

/** Three rows into five and, by the inverse of the same list, read again. */
function storeCase(): KernelCase {
  const C = 12, places = Uint32Array.of(4, 0, 2);
  return {
    name: "store rows",
    inputs: [fixed(3, C), fixed(3, C)],
    gpu: (tape, [k, v]) => {
      const { gpu } = tape, to = [gpu.empty([5, C]), gpu.empty([5, C])] as const;
      storeRows(gpu, [k, v], to, places, gpu.upload(places));
      return concatRows(tape, to.map((rows) => gatherRows(tape, rows, places)));
    },
    reference: concatRowsReference,
  };
}

function dropoutCase(): KernelCase {
  const options = { p: 0.3, seed: 7 };
  return {
    name: "dropout",
    inputs: [x(131)],
    gpu: (tape, [x]) => dropout(tape, x, options),
    reference: ([x]) => dropoutReference(x, options),
  };
}

function losses(): KernelCase[] {
  const T = 9, C = 8, V = 67, rows = Uint32Array.of(1, 4, 5, 8), targets = Uint32Array.of(66, 0, 12, 33);
  const loss = ([hidden, head]: Float64Array[]) =>
    Float64Array.of(
      crossEntropyReference(hidden, head, { C, rows, targets }).reduce((a, b) => a + b) / rows.length,
    );
  const run = (tape: Tape, [hidden, head]: Tensor[]) =>
    crossEntropy(tape, hidden, head, { rows, targets, scale: 1 / rows.length }).loss;
  return [
    { name: "cross-entropy", inputs: [x(T, C), w(V, C)], gpu: run, reference: loss, unitDy: true },
    {
      name: "cross-entropy, bf16 head",
      inputs: [x(T, C), packed(V, C)],
      gpu: run,
      reference: loss,
      unitDy: true,
    },
  ];
}

/** A step in which the moments already hold something and the gradient is clipped; all three results are compared. */
function adamwCase(): KernelCase {
  const N = 67;
  const options = { lr: 0.05, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, step: 3, maxNorm: 1 };
  return {
    name: "adamw, clipped by the global norm",
    inputs: [fixed(N), fixed(N), fixed(N), { ...fixed(N), positive: true }],
    gpu: (tape, [param, grad, m, v]) => {
      const norm = gradNorm(tape.gpu, [grad]);
      adamw(tape.gpu, { param, grad, m, v }, { ...options, norm });
      return concatRows(tape, [param, m, v].map((state) => viewAs(state, [1, N])));
    },
    reference: ([param, grad, m, v]) => {
      const state = { param: param.slice(), m: m.slice(), v: v.slice() };
      adamwReference(state, grad, options);
      return Float64Array.of(...state.param, ...state.m, ...state.v);
    },
  };
}
