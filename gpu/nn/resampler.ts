/**
 * Qwen-VL's resampler: learnt queries that attend once to all patches of their own picture, places added to queries
 * and keys and not to values. Refuses widths that its heads do not divide, or whose heads are wider than 128.
 */
import { InputError } from "../../core/errors.ts";
import { ranges } from "../../core/ranges.ts";
import { bicubicTable } from "../../core/resample_table.ts";
import { add } from "../ops/add.ts";
import { attention, uploadRanges } from "../ops/attention.ts";
import { gatherRows } from "../ops/gather.ts";
import { linear } from "../ops/linear.ts";
import { mixRows } from "../ops/sparse_rows.ts";
import type { Tape } from "../tape.ts";
import { rowsOf, type Tensor, viewAs } from "../tensor.ts";
import type { Forward } from "./forward.ts";
import { applyLinear, applyNorm, declareNorm, type Norm } from "./layers.ts";
import type { Linear, Names, Param } from "./params.ts";

export interface ResamplerConfig {
  /** Channels in and out; the square of `side` queries. */
  inner: number;
  C: number;
  side: number;
  eps: number;
}

export interface Resampler {
  config: ResamplerConfig;
  query: Param; // (side^2, C)
  /** A stored table of sines, never computed again: a bf16 checkpoint holds it rounded. */
  places: Param; // (side^2, C)
  /** Missing where both widths are one. */
  kvProj?: Linear;
  normKv: Norm;
  normQ: Norm;
  inWeight: Param; // (3*C, C), queries, keys, values
  inBias: Param; // (3*C)
  out: Linear;
}

/** Heads of 128 channels; a single one below that. */
const headsOf = (C: number) => Math.max(1, Math.floor(C / 128));

/** @throws InputError for a width that cannot be cut into heads */
export function declareResampler(names: Names, config: ResamplerConfig): Resampler {
  const { inner, C, side, eps } = config, width = C / headsOf(C);
  if (C % 16 || width % 4 || width > 128) {
    throw new InputError(
      `Cannot cut ${C} channels into ${
        headsOf(C)
      } heads of the resampler: expected a multiple of 128, or of 16 below it`,
    );
  }
  const attn = names.child("attn");
  return {
    config,
    query: names.param("query", [side * side, C]),
    places: names.param("pos_embed", [side * side, C]),
    kvProj: inner === C ? undefined : names.linear("kv_proj", C, inner),
    normKv: declareNorm(names.child("ln_kv"), C, eps, { bias: true }),
    normQ: declareNorm(names.child("ln_q"), C, eps, { bias: true }),
    inWeight: attn.param("in_proj_weight", [3 * C, C]),
    inBias: attn.param("in_proj_bias", [3 * C]),
    out: attn.linear("out_proj", C, C, { bias: true, bypassed: true }),
  };
}

/** Patches (n * grid^2, inner) of n pictures to their features (n * side^2, C). */
export function runResampler(forward: Forward, resampler: Resampler, x: Tensor, n: number): Tensor {
  const { tape } = forward;
  const { C, side } = resampler.config, Q = side * side, P = x.shape[0] / n;
  const inner = resampler.kvProj ? applyLinear(forward, resampler.kvProj, x) : x;
  const seen = applyNorm(forward, resampler.normKv, inner); // (n*P, C)
  const keyPlaces = resampledTable(tape, resampler.places.tensor, Math.sqrt(P)); // (P, C)
  const asked = applyNorm(forward, resampler.normQ, wholeTable(tape, resampler.query.tensor)); // (Q, C)
  const queries = add(tape, asked, wholeTable(tape, resampler.places.tensor));
  const q = repeated(tape, projected(tape, resampler, 0, queries), n); // (n*Q, C)
  const k = projected(tape, resampler, 1, add(tape, seen, repeated(tape, keyPlaces, n))); // (n*P, C)
  const v = projected(tape, resampler, 2, seen); // (n*P, C)
  const own = uploadRanges(tape.gpu, pictureRanges(n, Q, P));
  const mixed = attention(tape, q, k, v, own, { headDim: C / headsOf(C) }); // (n*Q, C)
  return applyLinear(forward, resampler.out, mixed);
}

/** x (T, C) through one third of the stacked projection, 0 queries, 1 keys, 2 values: (T, C). */
function projected(
  tape: Tape,
  { config: { C }, inWeight, inBias }: Resampler,
  part: number,
  x: Tensor,
): Tensor {
  const whole = inWeight.tensor, weight = rowsOf(whole, part * C, C);
  weight.requiresGrad = whole.requiresGrad;
  weight.grad = whole.grad && rowsOf(whole.grad, part * C, C);
  // The bias goes in by rows: its thirds need not start where a binding may.
  const bias = gatherRows(tape, viewAs(inBias.tensor, [3, C]), new Uint32Array(x.shape[0]).fill(part));
  return add(tape, linear(tape, x, weight), bias);
}

/** The rows of a table in f32, however it is stored. */
function wholeTable(tape: Tape, table: Tensor): Tensor {
  return gatherRows(tape, table, Uint32Array.from({ length: table.shape[0] }, (_, i) => i));
}

/** A table of places (s * s, C) for a grid of another side: (grid * grid, C). */
export function resampledTable(tape: Tape, table: Tensor, grid: number): Tensor {
  const whole = wholeTable(tape, table), side = Math.sqrt(table.shape[0]);
  return side === grid ? whole : mixRows(tape, bicubicTable(side, grid), whole);
}

/** The rows of x (N, C) n times over: (n*N, C). */
export function repeated(tape: Tape, x: Tensor, n: number): Tensor {
  const N = x.shape[0];
  return n === 1 ? x : gatherRows(tape, x, Uint32Array.from({ length: n * N }, (_, i) => i % N));
}

/** Q queries of each of n pictures see its own P patches. */
function pictureRanges(n: number, Q: number, P: number) {
  const spread = (rows: number, per: number, size: number, next: number) =>
    Uint32Array.from({ length: rows }, (_, i) => (Math.floor(i / per) + next) * size);
  return ranges({
    queryLo: spread(n * Q, Q, P, 0),
    queryHi: spread(n * Q, Q, P, 1),
    keyLo: spread(n * P, P, Q, 0),
    keyHi: spread(n * P, P, Q, 1),
  });
}
