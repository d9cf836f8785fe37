/**
 * Questions on held-out pictures answered by generation, and judged: what tuning does to the task itself. Each question
 * is asked alone, greedily; the loss is that of the true conversation. Refuses an empty list.
 */
import { InputError } from "../core/errors.ts";
import type { SourceItem } from "../core/study/arms.ts";
import type { Round } from "../core/study/evidence.ts";
import type { Vqa } from "../core/study/results.ts";
import { scoreAnswers } from "../core/study/text_match.ts";
import { evaluate } from "./evaluate.ts";
import { type Ask, askAll } from "./study_ask.ts";
import type { Session } from "./session.ts";

export interface VqaOptions {
  /** Most tokens of an answer. */
  maxTokens?: number;
  /** Tokens that one pass packs at most. */
  microTokens?: number;
  signal?: AbortSignal;
}

/** A picture's questions; `references` has several right answers a turn where there are, else the turn's own counts. */
export type VqaItem = SourceItem & { references?: readonly (readonly string[])[] };

export interface Judgement {
  vqa: Vqa;
  /** What it was judged by. */
  round: Round;
}

/** Answers to every turn of every item, judged. @throws InputError without items */
export async function vqaOf(
  session: Session,
  items: readonly VqaItem[],
  { maxTokens = 16, microTokens = 4096, signal }: VqaOptions = {},
): Promise<Judgement> {
  if (!items.length) throw new InputError("Cannot judge answers: there is no held-out picture");
  const { encoder } = session;
  const asks = items.flatMap(({ id, turns, pictures }): Ask[] =>
    turns.map(({ question }) => ({ id, question, pictures }))
  );
  const said = await askAll(session, asks, { maxTokens, microTokens, signal });
  const references = items.flatMap(({ turns, references }) =>
    turns.map(({ answer }, t) => references?.[t] ?? [answer])
  );
  const scores = scoreAnswers(said.map((text, i) => ({ said: text, references: references[i] })));
  const { loss, losses, tokens } = await evaluate(
    session.gpu,
    session.model,
    items.map(({ id, turns, pictures }) => encoder.judge(id, turns, pictures)),
    microTokens,
  );
  return {
    vqa: { samples: items.length, answers: said.length, loss, ...scores },
    round: {
      answers: asks.map(({ id, question }, i) => ({
        ...{ id, question, said: said[i], references: [...references[i]] },
      })),
      losses: items.map(({ id }, i) => ({ id, loss: losses[i], tokens: tokens[i] })),
    },
  };
}
