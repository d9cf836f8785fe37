/**
 * The llama-style decoder: RMSNorm, rotary attention with grouped heads, SwiGLU; one block is checkpointed as a whole.
 * Vicuna, TinyLlama, SmolLM2 and the text part of LLaVA are this module with different sizes.
 */
import type { RopeConfig } from "../../core/positions.ts";
import { add } from "../ops/add.ts";
import { swiglu } from "../ops/activation.ts";
import { attention, type DeviceRanges } from "../ops/attention.ts";
import { rotary } from "../ops/rotary.ts";
import type { Tensor } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { splitQkv } from "./fused_qkv.ts";
import { attendBesideCache, type CachePass } from "./kv_cache.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";

export interface DecoderConfig {
  /** Channels, MLP width, vocabulary, layers. */
  C: number;
  F: number;
  V: number;
  layers: number;
  /** Query heads, key-value heads, head width. */
  H: number;
  K: number;
  D: number;
  eps: number;
  rope: Omit<RopeConfig, "D">;
  attentionBias: boolean;
  /** Of the output projection; `attentionBias` where it is not given. */
  outputBias?: boolean;
  mlpBias: boolean;
}

export interface DecoderBlock {
  inputNorm: Norm;
  /** Queries, keys and values: three layers, or one whose rows are those of the three in turn. */
  qkv: readonly [Linear, Linear, Linear] | Linear;
  o: Linear;
  postNorm: Norm;
  gate: Linear;
  up: Linear;
  down: Linear;
}

export interface Decoder {
  config: DecoderConfig;
  embedTokens: Param; // (V, C)
  blocks: DecoderBlock[];
  norm: Norm;
}

/** What every block of a micro-batch shares. */
export interface DecoderInputs {
  /** (T, D/2) each. */
  cos: Tensor;
  sin: Tensor;
  /** Tables of the queries where they are not those of the keys. */
  query?: { cos: Tensor; sin: Tensor };
  ranges: DeviceRanges;
  /** Blocks are computed again in backward instead of being kept. */
  checkpointed: boolean;
  /** Generation only: keys and values of earlier tokens. */
  cache?: CachePass;
}

/** Declares the tree under `names`, with Hugging Face's names. */
export function declareDecoder(names: Names, config: DecoderConfig): Decoder {
  const { C, F, V, H, K, D, eps, attentionBias, outputBias = attentionBias, mlpBias } = config;
  const embedTokens = names.child("embed_tokens").param("weight", [V, C]);
  const blocks = Array.from({ length: config.layers }, (_, i): DecoderBlock => {
    const block = names.child("layers").child(i), attn = block.child("self_attn"), mlp = block.child("mlp");
    return {
      qkv: [
        attn.linear("q_proj", H * D, C, { bias: attentionBias }),
        attn.linear("k_proj", K * D, C, { bias: attentionBias }),
        attn.linear("v_proj", K * D, C, { bias: attentionBias }),
      ],
      o: attn.linear("o_proj", C, H * D, { bias: outputBias }),
      gate: mlp.linear("gate_proj", F, C, { bias: mlpBias }),
      up: mlp.linear("up_proj", F, C, { bias: mlpBias }),
      down: mlp.linear("down_proj", C, F, { bias: mlpBias }),
      inputNorm: declareNorm(block.child("input_layernorm"), C, eps),
      postNorm: declareNorm(block.child("post_attention_layernorm"), C, eps),
    };
  });
  return { config, embedTokens, blocks, norm: declareNorm(names.child("norm"), C, eps) };
}

/** Embedded tokens (T, C) through all blocks and the last norm: (T, C). Sites: embed, layers.N.resid_post, norm. */
export function runDecoder(
  forward: Forward,
  decoder: Decoder,
  embedded: Tensor,
  inputs: DecoderInputs,
): Tensor {
  let x = forward.tap("embed", embedded); // (T, C)
  decoder.blocks.forEach((block, i) => {
    x = forward.at(`layers.${i}`).checkpoint(
      x,
      inputs.checkpointed,
      (forward, x) => runBlock(forward, block, i, decoder.config, x, inputs),
    );
  });
  return forward.tap("norm", applyNorm(forward, decoder.norm, x)); // (T, C)
}

function runBlock(
  forward: Forward,
  block: DecoderBlock,
  layer: number,
  { D }: DecoderConfig,
  x: Tensor,
  inputs: DecoderInputs,
): Tensor {
  const { tape } = forward;
  const h = applyNorm(forward, block.inputNorm, x); // (T, C)
  const [q0, k0, v] = project(forward, block.qkv, h); // (T, H*D), (T, K*D), (T, K*D)
  const turn = inputs.query ?? inputs;
  const q = rotary(tape, q0, turn.cos, turn.sin); // (T, H*D)
  const k = rotary(tape, k0, inputs.cos, inputs.sin); // (T, K*D)
  const { ranges, cache } = inputs;
  const mixed = cache
    ? attendBesideCache(tape, [q, k, v], ranges, cache, layer, { headDim: D })
    : attention(tape, q, k, v, ranges, { headDim: D }); // (T, H*D)
  const attended = forward.tap("attn_out", applyLinear(forward, block.o, mixed)); // (T, C)
  const middle = forward.tap("resid_mid", add(tape, x, attended)); // (T, C)
  const n = applyNorm(forward, block.postNorm, middle); // (T, C)
  const inner = swiglu(tape, applyLinear(forward, block.gate, n), applyLinear(forward, block.up, n)); // (T, F)
  const fed = forward.tap("mlp_out", applyLinear(forward, block.down, inner)); // (T, C)
  return forward.tap("resid_post", add(tape, middle, fed)); // (T, C)
}

function project(forward: Forward, qkv: DecoderBlock["qkv"], h: Tensor): [Tensor, Tensor, Tensor] {
  if ("weight" in qkv) return splitQkv(forward.tape, applyLinear(forward, qkv, h));
  const [q, k, v] = qkv.map((layer) => applyLinear(forward, layer, h));
  return [q, k, v];
}
