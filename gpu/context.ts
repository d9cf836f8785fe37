/**
 * Prompts that a model has read: their keys and values in a cache and the logits of what comes next. Tokens are added
 * to them, or continuations scored behind them, without reading them again; refuses an empty continuation.
 */
import { type EncodedSample, pack, type PackedBatch } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { logSoftmax } from "../core/sampling.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { cachePass, closeCache, type KvCache, openCache, reserve } from "./nn/kv_cache.ts";
import { crossEntropy } from "./ops/cross_entropy.ts";
import { gatherRows } from "./ops/gather.ts";
import { matmulNT } from "./ops/matmul.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

export interface Context {
  gpu: Gpu;
  model: Model;
  cache: KvCache;
  sequences: Sequence[];
}

export interface Sequence {
  /** Prompt and what was added. */
  ids: number[];
  promptTokens: number;
  /** Position of the next token. */
  next: number;
  /** (V) of the next token. */
  logits: Float32Array;
}

export interface ReadOptions {
  /** Tokens to leave room for behind each prompt; more are taken when it is used up. */
  room?: number;
  /** Tokens that one pass packs, if a prompt is not longer. */
  microTokens?: number;
}

/** Reads prompts, pictures and all; labels do not matter. `closeContext` gives the cache back. */
export async function readPrompts(
  gpu: Gpu,
  model: Model,
  samples: readonly EncodedSample[],
  { room = 256, microTokens = 4096 }: ReadOptions = {},
): Promise<Context> {
  const empty = samples.find(({ ids }) => ids.length === 0);
  if (empty) throw new InputError(`Cannot go on from the prompt "${empty.id}": it has no token`);
  const cache = openCache(gpu, model.decoder.config, samples.map(({ ids }) => ids.length + room));
  const context: Context = { gpu, model, cache, sequences: [] };
  try {
    for (let from = 0; from < samples.length;) {
      let tokens = 0;
      const rest = samples.slice(from),
        past = rest.findIndex(({ ids }) => (tokens += ids.length) > microTokens);
      await readPass(context, past < 0 ? rest : rest.slice(0, Math.max(1, past)));
      from = context.sequences.length;
    }
    return context;
  } catch (error) {
    closeContext(context);
    throw error;
  }
}

async function readPass({ gpu, model, cache, sequences }: Context, samples: readonly EncodedSample[]) {
  using _scope = gpu.pool.scope();
  const batch = pack(samples, {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
  const chosen = samples.map((_, s) => sequences.length + s), counts = samples.map(({ ids }) => ids.length);
  const tape = new Tape(gpu, false), pass = cachePass(gpu, cache, chosen, counts, true);
  const hidden = runModel(new Forward(tape), model, batch, true, pass);
  const logits = await lastLogits(model, tape, hidden, batch);
  const next = model.nextPositions?.(batch) ?? counts;
  samples.forEach(({ ids }, s) =>
    sequences.push({ ids: [...ids], promptTokens: ids.length, next: next[s], logits: logits[s] })
  );
}

/** Logits (V) of the last row of each sample. */
async function lastLogits(
  model: Model,
  tape: Tape,
  hidden: Tensor,
  { starts }: PackedBatch,
): Promise<Float32Array[]> {
  const { gpu } = tape, { V } = model.decoder.config, n = starts.length - 1;
  const rows = gatherRows(tape, hidden, Uint32Array.from(starts.slice(1), (end) => end - 1));
  const logits = gpu.empty([n, V]);
  matmulNT(gpu, rows, model.head.tensor, logits);
  const [values] = await gpu.read(logits);
  return Array.from({ length: n }, (_, s) => (values as Float32Array).subarray(s * V, (s + 1) * V));
}

/** Adds one token to each chosen sequence, whose `logits` are then those of the token after it. */
export async function addTokens(
  context: Context,
  chosen: readonly number[],
  ids: readonly number[],
): Promise<void> {
  const { gpu, model, cache } = context, sequences = chosen.map((s) => context.sequences[s]);
  reserve(gpu, cache, chosen, 1);
  using _scope = gpu.pool.scope();
  const batch = goOn(sequences, ids.map((id) => [id]));
  const tape = new Tape(gpu, false), pass = cachePass(gpu, cache, chosen, ids.map(() => 1), true);
  const hidden = runModel(new Forward(tape), model, batch, true, pass);
  const logits = await lastLogits(model, tape, hidden, batch);
  sequences.forEach((sequence, i) => {
    sequence.ids.push(ids[i]);
    sequence.next++;
    sequence.logits = logits[i];
  });
}

/** A micro-batch of tokens that follow sequences: tokens[i] goes on from sequences[i]. */
function goOn(sequences: readonly Sequence[], tokens: readonly (readonly number[])[]): PackedBatch {
  const ids = Uint32Array.from(tokens.flat()), starts = [0];
  tokens.forEach(({ length }, i) => starts.push(starts[i] + length));
  return {
    sampleIds: sequences.map((_, i) => String(i)),
    ids,
    starts,
    positions: tokens.flatMap((part, i) => part.map((_, t) => sequences[i].next + t)),
    promptTokens: sequences.map(({ promptTokens }) => promptTokens),
    source: new Int32Array(ids.length).fill(-1),
    isImage: new Uint8Array(ids.length),
    images: [],
    rows: new Uint32Array(0),
    targets: new Uint32Array(0),
    rowSample: [],
  };
}

/**
 * log p of every token of each continuation of one sequence, which is left as it is: its cache is read by all of them
 * at once, `microTokens` a pass. @throws InputError for an empty continuation or a token outside the vocabulary
 */
export async function scoreContinuations(
  context: Context,
  continuations: readonly (readonly number[])[],
  { sequence: s = 0, microTokens = 4096 }: { sequence?: number; microTokens?: number } = {},
): Promise<Float64Array[]> {
  const { V } = context.model.decoder.config, sequence = context.sequences[s];
  continuations.forEach((ids, i) => {
    const wrong = ids.find((id) => !(id >= 0 && id < V));
    if (ids.length === 0) throw new InputError(`Cannot score continuation ${i}: it has no token`);
    if (wrong !== undefined) {
      throw new InputError(`Cannot score continuation ${i}: token ${wrong}, the vocabulary has ${V}`);
    }
  });
  const first = logSoftmax(sequence.logits);
  const scores = continuations.map((ids) => new Float64Array(ids.length).fill(first[ids[0]], 0, 1));
  const longer = [...continuations.keys()].filter((i) => continuations[i].length > 1);
  for (let from = 0; from < longer.length;) {
    let tokens = 0;
    const rest = longer.slice(from),
      past = rest.findIndex((i) => (tokens += continuations[i].length - 1) > microTokens);
    const group = past < 0 ? rest : rest.slice(0, Math.max(1, past));
    await scorePass(context, s, group.map((i) => continuations[i]), group.map((i) => scores[i].subarray(1)));
    from += group.length;
  }
  return scores;
}

/** Fills in log p of all tokens but the first. */
async function scorePass(
  { gpu, model, cache, sequences }: Context,
  s: number,
  continuations: readonly (readonly number[])[],
  scores: readonly Float64Array[],
): Promise<void> {
  using _scope = gpu.pool.scope();
  const inputs = continuations.map((ids) => ids.slice(0, -1));
  const batch = goOn(inputs.map(() => sequences[s]), inputs);
  const tape = new Tape(gpu, false);
  const pass = cachePass(gpu, cache, inputs.map(() => s), inputs.map(({ length }) => length), false);
  const hidden = runModel(new Forward(tape), model, batch, true, pass);
  const { perToken } = crossEntropy(tape, hidden, model.head.tensor, {
    rows: Uint32Array.from(batch.ids.keys()),
    targets: Uint32Array.from(continuations.flatMap((ids) => ids.slice(1))),
    scale: 1,
  });
  const [losses] = await gpu.read(perToken);
  scores.forEach((part, i) =>
    part.set(Array.from(losses.subarray(batch.starts[i], batch.starts[i + 1]), (x) => -x))
  );
}

/** Gives the cache back to the pool. */
export function closeContext({ gpu, cache }: Context): void {
  closeCache(gpu, cache);
}
