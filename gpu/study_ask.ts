/**
 * Questions put to a model, answered greedily or weighed against candidate answers, and what membership attacks read off
 * the way: entropies of the next token. Refuses a candidate that a template writes no token of.
 */
import { type EncodedSample, pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import type { Picture } from "../core/image/picture.ts";
import { renyiEntropies } from "../core/study/attacks.ts";
import { IGNORE } from "../core/text/tiny.ts";
import { closeContext, readPrompts, scoreContinuations } from "./context.ts";
import { generate } from "./generate.ts";
import { runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { gatherRows } from "./ops/gather.ts";
import { matmulNT } from "./ops/matmul.ts";
import type { Session } from "./session.ts";
import { Tape } from "./tape.ts";

export interface Ask {
  id: string;
  question: string;
  pictures: readonly Picture[];
}

export interface AskOptions {
  maxTokens: number;
  microTokens: number;
  signal?: AbortSignal;
}

/** Greedy answers in order, a pass over as many prompts as `microTokens` holds. */
export async function askAll(
  session: Session,
  asks: readonly Ask[],
  { maxTokens, microTokens, signal }: AskOptions,
): Promise<string[]> {
  const { gpu, model, encoder } = session, answers: string[] = [];
  while (answers.length < asks.length) {
    const group: EncodedSample[] = [];
    for (let tokens = 0; answers.length + group.length < asks.length;) {
      const { id, question, pictures } = asks[answers.length + group.length];
      const sample = encoder.ask(id, question, pictures);
      tokens += sample.ids.length + maxTokens;
      if (group.length && tokens > microTokens) break;
      group.push(sample);
    }
    const { tokenizer: { stops: eos }, decode } = encoder.text;
    const results = await generate(gpu, model, group, { maxTokens, eos, decode, microTokens, signal });
    answers.push(...results.map(({ text }) => text.trim()));
  }
  return answers;
}

/** The tokens that an answer adds to a question, the one that ends it included where the template teaches it. */
function answerTokens({ encoder }: Session, question: string, answer: string): number[] {
  const { ids, labels } = encoder.text.conversation([{ question, answer }], [], { markers: false });
  const from = labels.findIndex((label) => label !== IGNORE);
  if (from < 0) {
    throw new InputError(`Cannot weigh the answer "${answer}": the template writes no token of it`);
  }
  return ids.slice(from, labels.findLastIndex((label) => label !== IGNORE) + 1);
}

export interface Weighed {
  /** Of each token, in nats. */
  logProbs: Float64Array;
  /** log p of the whole answer, in nats. */
  total: number;
  /** The same a token. */
  mean: number;
}

/** How likely a model finds each candidate as the whole answer to a question. @throws InputError without candidates */
export async function weighAnswers(
  session: Session,
  { id, question, pictures }: Ask,
  candidates: readonly string[],
  { microTokens }: { microTokens: number },
): Promise<Weighed[]> {
  const { gpu, model, encoder } = session;
  if (!candidates.length) {
    throw new InputError(`Cannot weigh answers to "${question}": there is no candidate`);
  }
  // The prompt as a conversation has it: what a template writes between question and answer is not weighed.
  const whole = encoder.judge(id, [{ question, answer: candidates[0] }], pictures);
  const end = whole.labels.findIndex((label) => label !== IGNORE);
  const prompt = { ...whole, ids: whole.ids.slice(0, end), labels: whole.labels.slice(0, end) };
  const context = await readPrompts(gpu, model, [prompt], { room: 0, microTokens });
  try {
    const tokens = candidates.map((candidate) => answerTokens(session, question, candidate));
    const scores = await scoreContinuations(context, tokens, { microTokens });
    return scores.map((logProbs) => {
      const total = logProbs.reduce((sum, x) => sum + x, 0);
      return { logProbs, total, mean: total / logProbs.length };
    });
  } finally {
    closeContext(context);
  }
}

/** Rows of logits that are held at once, in bytes. */
const LOGIT_BYTES = 32 << 20;

/**
 * Rényi entropies of the distributions that each token of a sample's answers was drawn from, its end included where the
 * template teaches it; of the first token's alone where there is none. One list an order in `orders`.
 */
export async function answerEntropies(
  { gpu, model }: Session,
  sample: EncodedSample,
  orders: readonly number[],
): Promise<number[][]> {
  using _scope = gpu.pool.scope();
  const batch = pack([sample], {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
  const tape = new Tape(gpu, false), { V } = model.decoder.config;
  const hidden = runModel(new Forward(tape), model, batch, true); // (T, C)
  const predicting = batch.rows.length ? batch.rows : Uint32Array.of(batch.ids.length - 1);
  const out: number[][] = orders.map(() => []), step = Math.max(1, Math.floor(LOGIT_BYTES / (4 * V)));
  for (let from = 0; from < predicting.length; from += step) {
    using _rows = gpu.pool.scope();
    const rows = gatherRows(tape, hidden, predicting.slice(from, from + step)), [n] = rows.shape;
    const logits = gpu.empty([n, V]);
    matmulNT(gpu, rows, model.head.tensor, logits);
    const [values] = await gpu.read(logits);
    for (let i = 0; i < n; i++) {
      renyiEntropies(values.subarray(i * V, (i + 1) * V), orders).forEach((entropy, k) =>
        out[k].push(entropy)
      );
    }
  }
  return out;
}
