/**
 * Rows of gpu/ops/cross_entropy.ts: vocabularies around a block of 4 and a workgroup of 64, one chunk and several,
 * frozen, trained and packed heads, logits far from zero. Rows and targets that do not fit are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { crossEntropyReference, logitsReference } from "../../core/reference/loss.ts";
import { crossEntropy } from "../../gpu/ops/cross_entropy.ts";
import { Tape } from "../../gpu/tape.ts";
import { allclose } from "../check.ts";
import { activation, constant, type Input, parameter, type Row } from "./row.ts";

const random = new Random(6, "cross entropy rows");

/** M distinct rows in random order, each with a target. */
function labels(T: number, V: number, M: number) {
  const rows = Uint32Array.from(random.shuffle(Array.from({ length: T }, (_, t) => t)).slice(0, M));
  return { rows, targets: rows.map(() => random.int(V)) };
}

interface Case {
  shape: [T: number, C: number, V: number, M: number];
  /** Rows of a chunk; all when absent. */
  chunk?: number;
  head?: (shape: number[]) => Input;
  hidden?: Partial<Input>;
}

const cases: Case[] = [
  { shape: [1, 1, 1, 1] },
  { shape: [2, 3, 2, 1] },
  { shape: [9, 8, 63, 9] },
  { shape: [70, 64, 64, 65] },
  { shape: [5, 20, 257, 4] },
  { shape: [40, 64, 65, 33], chunk: 5 },
  { shape: [40, 16, 130, 37], chunk: 8 },
  { shape: [150, 3, 5, 140], chunk: 64 },
  { shape: [12, 32, 1000, 7], chunk: 2, head: activation },
  { shape: [12, 32, 100, 7], head: (shape) => constant(shape, { dtype: "bf16" }) },
  { shape: [6, 64, 100, 6], hidden: { value: (random) => 20 * random.normal() } },
];

const products = cases.map(({ shape: [T, C, V, M], chunk, head = parameter, hidden }): Row => {
  const label = labels(T, V, M);
  const weights = head([V, C]);
  const scale = 1 / M;
  return {
    op: "crossEntropy",
    name: `${M} of (${T}, ${C}) over ${weights.kind} (${V}, ${C})${chunk ? ` in chunks of ${chunk}` : ""}`,
    inputs: [activation([T, C], { ...hidden }), weights],
    gpu: (tape, [hidden, head]) =>
      crossEntropy(tape, hidden, head, { ...label, scale, chunk: chunk && chunk * 4 * V }).loss,
    reference: ([hidden, head]) => {
      const losses = crossEntropyReference(hidden, head, { C, ...label });
      return Float64Array.of(scale * losses.reduce((a, b) => a + b));
    },
    tolerance: 2e-6,
    tuned: true,
    unitDy: true,
  };
});

export const rows: Row[] = [
  ...products,
  {
    op: "crossEntropy",
    name: "of each token, and the likeliest one",
    tuned: true,
    check: async (gpu) => {
      const [T, C, V, M] = [80, 12, 301, 77], label = labels(T, V, M);
      const hidden = Float32Array.from({ length: T * C }, () => random.normal());
      const head = Float32Array.from({ length: V * C }, () => random.normal());
      head.copyWithin(0, 200 * C, 250 * C); // tokens 0 to 49 tie with 200 to 249: the lower one is meant
      const tensors = [gpu.upload(hidden, [T, C]), gpu.upload(head, [V, C])];
      const tape = new Tape(gpu, false);
      const options = { ...label, scale: 1, chunk: 4 * V * 16 };
      const { loss, perToken, predicted } = crossEntropy(tape, tensors[0], tensors[1], options);
      const [sum, losses, tokens] = await gpu.read(loss, perToken, predicted);
      const [h, w] = [hidden, head].map((values) => Float64Array.from(values));
      const expected = crossEntropyReference(h, w, { C, ...label });
      allclose("losses", losses, expected, 2e-6);
      allclose("loss", sum, [expected.reduce((a, b) => a + b)], 2e-6);
      const likeliest = Array.from(label.rows, (row) => {
        const logits = logitsReference(h, w, C, row);
        return logits.indexOf(Math.max(...logits));
      });
      assert.deepEqual([...tokens], likeliest);
      assert(likeliest.some((token) => token < 50), "no tie was tried");
    },
  },
  {
    op: "crossEntropy",
    name: "computes no gradient where nothing is recorded",
    check: (gpu) => {
      const hidden = gpu.empty([3, 4]), head = gpu.empty([7, 4]);
      const count = (recording: boolean) => {
        const before = gpu.dispatches;
        const label = { rows: Uint32Array.of(2), targets: Uint32Array.of(6), scale: 1 };
        crossEntropy(new Tape(gpu, recording), hidden, head, label);
        return gpu.dispatches - before;
      };
      hidden.requiresGrad = true;
      const [recorded, silent] = [count(true), count(false)];
      assert(silent < recorded, `${silent} dispatches, with gradients ${recorded}`);
    },
  },
  {
    op: "crossEntropy",
    name: "refuses rows and targets that do not fit",
    check: (gpu) => {
      const hidden = gpu.empty([3, 4]), head = gpu.empty([7, 4]);
      const run = (rows: number[], targets: number[]) => () =>
        crossEntropy(new Tape(gpu), hidden, head, {
          rows: Uint32Array.from(rows),
          targets: Uint32Array.from(targets),
          scale: 1,
        });
      assert.throws(run([], []), /0 rows and 0 targets/);
      assert.throws(run([1, 2], [1]), /2 rows and 1 targets/);
      assert.throws(run([3], [1]), /row 3 \(index 0\)/);
      assert.throws(run([1, 1], [1, 2]), /row 1 is supervised twice/);
      assert.throws(run([1, 0], [1, 7]), /target 7 of row 0 is outside a vocabulary of 7/);
    },
  },
];
