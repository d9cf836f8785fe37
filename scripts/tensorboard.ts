/**
 * A run's scalars for TensorBoard under `tensorboard/`: one event file for each time the run was started, rewritten
 * whenever its state is saved. Steps that an earlier file holds are not written again.
 */
import { decodeEvents, encodeEvents, type ScalarEvent } from "../core/formats/tensorboard.ts";
import type { Folder } from "../core/formats/folder.ts";
import type { StepMetrics } from "../gpu/train.ts";

export interface EventLog {
  /** Adds a step; seconds it took where that is known. */
  add(metrics: StepMetrics, seconds?: number): void;
  /** Adds what was found about held-out samples after a step. */
  addEvaluation(metrics: StepMetrics): void;
  /** Writes everything so far. */
  flush(): Promise<void>;
}

/** Opens the log of a run that has done `past`; what a kill kept from being written comes first. @throws InputError */
export async function openEventLog(run: Folder, past: readonly StepMetrics[]): Promise<EventLog> {
  const folder = run.folder("tensorboard");
  const names = (await folder.list()).filter((name) => name.startsWith("events.out.tfevents."));
  let written = 0;
  for (const name of names) {
    const events = decodeEvents(await folder.read(name), `${folder.path}/${name}`);
    written = events.reduce((last, { step }) => Math.max(last, step), written);
  }
  const start = Date.now() / 1000, events: ScalarEvent[] = [];
  const number = String(names.length + 1).padStart(4, "0");
  const name = `events.out.tfevents.${Math.floor(start)}.afterimage.${number}`;
  const push = (step: number, scalars: Record<string, number>) =>
    events.push({ step, time: Date.now() / 1000, scalars });
  const log: EventLog = {
    add({ step, loss, lr, grad_norm, tokens }, seconds) {
      push(step, {
        "train/loss": loss,
        "train/lr": lr,
        "train/grad_norm": grad_norm,
        ...(seconds && { "train/tokens_per_second": tokens / seconds }),
      });
    },
    addEvaluation({ step, eval_loss, eval_accuracy }) {
      push(step, { "eval/loss": eval_loss!, "eval/accuracy": eval_accuracy! });
    },
    async flush() {
      if (events.length) await folder.write(name, encodeEvents(events));
    },
  };
  for (const metrics of past.filter(({ step }) => step > written)) {
    log.add(metrics);
    if (metrics.eval_loss !== undefined) log.addEvaluation(metrics);
  }
  return log;
}
