/**
 * A run's scalars for TensorBoard under `tensorboard/`: one event file for each time the run was started, rewritten
 * whenever its state is saved. Steps that an earlier file holds are not written again.
 */
import { decodeEvents, encodeEvents, type ScalarEvent } from "../core/formats/tensorboard.ts";
import type { Folder } from "../core/formats/folder.ts";
import type { StepMetrics } from "../gpu/train.ts";

export interface EventLog {
  /** Adds a step. */
  add(metrics: StepMetrics): void;
  /** Adds what was found about held-out samples after a step. */
  addEvaluation(metrics: StepMetrics): void;
  /** Runs work that does not count as training. */
  outside<T>(work: () => Promise<T>): Promise<T>;
  /** Writes everything so far, with the supervised tokens a second since the last time. */
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
  // Single steps cannot be timed: the device is at work on the next one while a step is read.
  let since = 0, learnt = 0, latest = 0;
  const log: EventLog = {
    add({ step, loss, lr, grad_norm, tokens }) {
      push(step, { "train/loss": loss, "train/lr": lr, "train/grad_norm": grad_norm });
      learnt += tokens;
      latest = step;
    },
    addEvaluation({ step, eval_loss, eval_accuracy }) {
      push(step, { "eval/loss": eval_loss!, "eval/accuracy": eval_accuracy! });
    },
    async outside(work) {
      const start = performance.now();
      try {
        return await work();
      } finally {
        since += performance.now() - start;
      }
    },
    async flush() {
      const seconds = (performance.now() - since) / 1000;
      if (learnt > 0) push(latest, { "train/tokens_per_second": learnt / seconds });
      if (events.length) await folder.write(name, encodeEvents(events));
      [since, learnt] = [performance.now(), 0];
    },
  };
  for (const metrics of past.filter(({ step }) => step > written)) {
    log.add(metrics);
    if (metrics.eval_loss !== undefined) log.addEvaluation(metrics);
  }
  [since, learnt] = [performance.now(), 0];
  return log;
}
