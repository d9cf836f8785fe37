/**
 * Rotary scaling: cosines and sines of llama3's and linear scaling as transformers' LlamaRotaryEmbedding gives them
 * (5.18; fixtures/rope_scaling.json), and configs of both generations. What is not known is refused by name.
 */
import assert from "node:assert/strict";
import { ropeTables } from "../core/positions.ts";
import { decoderConfig, llamaSchema } from "../gpu/models/llama.ts";
import { FIXTURES } from "./check.ts";

interface Case {
  D: number;
  theta: number;
  rope: Record<string, number | string>;
  positions: number[];
  cos: number[][];
  sin: number[][];
}

const cases: Case[] = JSON.parse(Deno.readTextFileSync(`${FIXTURES}/rope_scaling.json`));
const sizes = ({ D }: Case) => ({ hidden_size: 2 * D, num_attention_heads: 2, head_dim: D });

for (const known of cases) {
  const { D, theta, rope, positions } = known;
  Deno.test(`${rope.rope_type} by ${rope.factor}, heads of ${D}: tables as transformers'`, () => {
    const config = decoderConfig(
      llamaSchema.parse({ ...sizes(known), rope_parameters: { ...rope, rope_theta: theta } }),
    );
    const ours = ropeTables(positions, { D, ...config.rope });
    for (const table of ["cos", "sin"] as const) {
      const half = D / 2;
      known[table].forEach((row, t) =>
        row.forEach((value, i) => {
          // A frequency is known to half a bit, which the position multiplies.
          const bound = 2 ** -23 * (2 + positions[t]);
          assert(
            Math.abs(ours[table][t * half + i] - value) <= bound,
            `${table} ${i} at ${positions[t]}: ${ours[table][t * half + i]}, expected ${value}`,
          );
        })
      );
    }
  });
}

Deno.test("a config of the older generation gives the same scaling", () => {
  const [llama3] = cases, { D, theta, rope } = llama3;
  const old = llamaSchema.parse({ ...sizes(llama3), rope_theta: theta, rope_scaling: rope });
  const now = llamaSchema.parse({ ...sizes(llama3), rope_parameters: { ...rope, rope_theta: theta } });
  assert.deepEqual(decoderConfig(old).rope, decoderConfig(now).rope);
  const plain = ropeTables([4095], { D, theta });
  assert.notDeepEqual(ropeTables([4095], { D, ...decoderConfig(old).rope }), plain);
  const without = { ...rope, original_max_position_embeddings: undefined };
  const fallback = llamaSchema.parse({
    ...sizes(llama3),
    max_position_embeddings: rope.original_max_position_embeddings,
    rope_theta: theta,
    rope_scaling: without,
  });
  assert.deepEqual(decoderConfig(fallback).rope, decoderConfig(old).rope);
});

Deno.test("refuses scalings it does not know and llama3 without its factors", () => {
  const config = (rope_parameters: Record<string, unknown>) =>
    decoderConfig(llamaSchema.parse({ hidden_size: 16, num_attention_heads: 2, rope_parameters }));
  assert.throws(() => config({ rope_type: "yarn", factor: 4 }), /rotary scaling "yarn": only default/);
  assert.throws(() => config({ rope_type: "llama3", factor: 4 }), /"llama3" without low_freq_factor/);
  assert.throws(() => config({ rope_type: "factors", factors: [1] }), /divide 4 rotary frequencies by 1/);
});
