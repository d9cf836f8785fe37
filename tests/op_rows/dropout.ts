/**
 * Rows of gpu/ops/dropout.ts: the mask is that of core/random.ts bit for bit, and its rate is p.
 * A probability outside [0, 1) is refused.
 */
import assert from "node:assert/strict";
import { hash32 } from "../../core/random.ts";
import { dropoutReference } from "../../core/reference/activation.ts";
import { dropout } from "../../gpu/ops/dropout.ts";
import { Tape } from "../../gpu/tape.ts";
import { activation, type Row } from "./row.ts";

export const rows: Row[] = [
  ...[[1], [63], [8, 8], [5, 13], [4097], [130, 131]].map((shape, i): Row => ({
    op: "dropout",
    name: `(${shape})`,
    inputs: [activation(shape)],
    gpu: (tape, [x]) => dropout(tape, x, { p: 0.1 + i / 7, seed: 0xdeadbeef + i }),
    reference: ([x]) => dropoutReference(x, { p: 0.1 + i / 7, seed: 0xdeadbeef + i }),
    tuned: true,
  })),
  {
    op: "dropout",
    name: "drops the share p, differently for another seed",
    check: async (gpu) => {
      const n = 100_000, p = 0.3, ones = gpu.upload(new Float32Array(n).fill(1)), tape = new Tape(gpu);
      const outputs = await gpu.read(...[1, 2].map((seed) => dropout(tape, ones, { p, seed })));
      const [first, second] = outputs.map((y) => Array.from(y, (v) => v > 0));
      const share = (of: (i: number) => boolean) => first.filter((_, i) => of(i)).length / n;
      const one = share((i) => first[i]), other = share((i) => second[i]);
      const both = share((i) => first[i] && second[i]);
      for (const [kept, expected] of [[one, 1 - p], [other, 1 - p], [both, (1 - p) ** 2]]) {
        const deviation = Math.sqrt(expected * (1 - expected) / n);
        assert(Math.abs(kept - expected) < 5 * deviation, `kept ${kept}, expected ${expected}`);
      }
      first.forEach((keeps, i) => assert.equal(keeps, hash32(1, i) >= p * 2 ** 32, `element ${i}`));
    },
  },
  {
    op: "dropout",
    name: "keeps an element whose hash is exactly the threshold",
    inputs: [activation([70])],
    gpu: (tape, [x]) => dropout(tape, x, { p: hash32(9, 66) / 2 ** 32, seed: 9 }),
    reference: ([x]) => dropoutReference(x, { p: hash32(9, 66) / 2 ** 32, seed: 9 }),
  },
  {
    op: "dropout",
    name: "is x itself at p 0, and refuses p outside [0, 1)",
    check: (gpu) => {
      const tape = new Tape(gpu), x = gpu.empty([4]);
      assert.equal(dropout(tape, x, { p: 0, seed: 1 }), x);
      for (const p of [1, -0.1, NaN]) {
        assert.throws(() => dropout(tape, x, { p, seed: 1 }), /expected 0 <= p < 1/);
      }
    },
  },
];
