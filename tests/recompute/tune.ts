/**
 * An arm's training and the task before and after, made again from the lines that training left and from answers with their
 * references. The rules are those of docs/study_says.md and of the VQA challenge (Antol et al. 2015).
 */
import type { Cell } from "../../core/study/cells.ts";
import { ANSWERS, type Answers, type Round } from "../../core/study/evidence.ts";
import { mean, overSeeds, range, share, shareOverSeeds, sum } from "./numbers.ts";
import { readJsonOf, readLinesOf, readTensorsOf, type StudyFiles } from "./read.ts";

const WORDS = "zero one two three four five six seven eight nine ten".split(" ");

const spaced = (text: string) => text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");

/** Without marks, articles and number words: enough for answers without contractions, of which a small study has none. */
function vqaForm(text: string): string {
  return spaced(text).replace(/[?!,;:"()]|\.(?!\d)/g, "").split(" ")
    .map((word) => WORDS.includes(word) ? String(WORDS.indexOf(word)) : word === "none" ? "0" : word)
    .filter((word) => !["a", "an", "the", ""].includes(word)).join(" ");
}

/** min(1, matches / 3), mean over the ways to leave one reference out; of one reference whether it matches. */
function soft(said: string, references: readonly string[]): number {
  const right = references.map((text) => vqaForm(text) === vqaForm(said));
  if (right.length === 1) return Number(right[0]);
  return mean(
    range(right.length).map((out) => {
      const others = right.filter((_, i) => i !== out);
      return Math.min(1, others.filter(Boolean).length / Math.min(3, others.length));
    }),
  );
}

function judged({ answers, losses }: Round) {
  const closed = answers.filter(({ references }) =>
    references.every((text) => /^(yes|no)$/.test(vqaForm(text)))
  );
  const tokens = sum(losses.map((one) => one.tokens));
  return {
    loss: sum(losses.map(({ loss, tokens }) => loss * tokens)) / tokens,
    exact: share(answers.map(({ said, references }) => spaced(said) === spaced(references[0]))),
    vqa_soft: mean(answers.map(({ said, references }) => soft(said, references))),
    yes_no: closed.length
      ? share(
        closed.map(({ said, references }) =>
          /^[^a-z]*(yes|no)(?![a-z])/.exec(spaced(said))?.[1] === vqaForm(references[0])
        ),
      )
      : null,
  };
}

/** Mean losses of stretches of steps, sixty at most, each under its last step. */
function curve(metrics: { step: number; loss: number }[]): { step: number; loss: number }[] {
  const width = Math.max(1, Math.ceil(metrics.length / 60));
  return range(Math.ceil(metrics.length / width)).map((i) => {
    const part = metrics.slice(i * width, (i + 1) * width);
    return { step: part[part.length - 1].step, loss: mean(part.map(({ loss }) => loss)) };
  });
}

/** The report's facts about one arm. @param tunes its cells by seed @param available pictures of the data */
export async function armFacts(study: StudyFiles, tunes: Cell[], batch: number, available: number) {
  const [first] = tunes, arm = first.key.arm!, { config } = study;
  const model = config.models.find(({ name }) => name === first.key.model)!, own = config.tuning[arm];
  const setting = <K extends "images" | "steps" | "epochs" | "lr">(key: K) => own?.[key] ?? model.train[key];
  const images = arm === "base" ? 0 : setting("images") ?? available;
  const steps = setting("steps") ?? Math.max(1, Math.ceil(images * (setting("epochs") ?? 1) / batch));
  const rounds: Answers[] = [];
  for (const cell of tunes) rounds.push(await readJsonOf<Answers>(study, cell, ANSWERS));
  const over = (when: "before" | "after") => {
    const all = rounds.map((round) => judged(round[when])),
      closed = all.flatMap(({ yes_no }) => yes_no ?? []);
    return {
      loss: overSeeds(all.map(({ loss }) => loss)),
      exact: shareOverSeeds(all.map(({ exact }) => exact)),
      vqa_soft: shareOverSeeds(all.map(({ vqa_soft }) => vqa_soft)),
      yes_no: closed.length ? shareOverSeeds(closed) : null,
    };
  };
  const marks = await readLinesOf<{ person: string | null }>(study, first, "marks.jsonl");
  let trained = 0;
  for (const file of ["trained.safetensors", "adapter/adapter_model.safetensors"]) {
    for (const { shape } of (await readTensorsOf(study, first, file)).values()) {
      trained += shape.reduce((a, b) => a * b, 1);
    }
  }
  return {
    name: arm,
    images,
    steps: arm === "base" ? 0 : steps,
    lr: arm === "base" ? 0 : setting("lr") ?? 2e-4,
    marked: marks.filter(({ person }) => person !== null).length,
    // How many parameters a model has is told by the model, which lies in no cell.
    parameters: (await readJsonOf<{ parameters: number }>(study, first, "tune.json")).parameters,
    trained,
    runs: tunes.map(({ key }) => ({ seed: key.seed })),
    losses: curve(await readLinesOf(study, first, "metrics.jsonl")),
    vqa: { before: over("before"), after: over("after") },
  };
}
