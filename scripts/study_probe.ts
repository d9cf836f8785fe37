/**
 * Probe cells in workers, as many at once as there are cores, while the device tunes the next arm.
 * The first one that fails is kept until it is asked for.
 */
import { InputError } from "../core/errors.ts";
import type { ProbeAnswer, ProbeJob } from "./study_probe_worker.ts";

export interface ProbePool {
  /** Fits it when a worker is free. @param name of the cell, for messages */
  add(name: string, job: ProbeJob): void;
  /** Throws what has failed so far. */
  check(): void;
  /** Cells done and begun in all, with the shares of those under way. */
  share(): { done: number; total: number };
  /** Resolves when all are done. @throws what the first failing one threw */
  finish(): Promise<void>;
  /** Ends all work at once; what was not finished has no manifest. */
  stop(): void;
}

export function createProbePool(workers = navigator.hardwareConcurrency): ProbePool {
  const waiting: { name: string; job: ProbeJob }[] = [], running = new Map<Worker, { share: number }>();
  let total = 0, done = 0, failure: Error | undefined, stopped = false;
  let wake = () => {};
  const next = () => {
    while (!stopped && !failure && waiting.length && running.size < workers) start(waiting.shift()!);
    if (running.size === 0 || failure) wake();
  };
  const start = ({ name, job }: { name: string; job: ProbeJob }) => {
    const worker = new Worker(import.meta.resolve("./study_probe_worker.ts"), { type: "module" });
    const state = { share: 0 };
    running.set(worker, state);
    const end = (error?: Error) => {
      worker.terminate();
      running.delete(worker);
      if (error) failure ??= error;
      else done++;
      next();
    };
    const failed = (message: string, isInput: boolean) =>
      end(new (isInput ? InputError : Error)(`Cannot finish the cell ${name}: ${message}`));
    worker.onmessage = ({ data }: MessageEvent<ProbeAnswer>) => {
      if ("share" in data) state.share = data.share;
      else if ("failed" in data) failed(data.failed, data.isInput);
      else end();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      failed(event.message, false);
    };
    worker.postMessage(job);
  };
  const check = () => {
    if (failure) throw failure;
  };
  return {
    add(name, job) {
      total++;
      waiting.push({ name, job });
      next();
    },
    check,
    share: () => ({ done: done + [...running.values()].reduce((sum, { share }) => sum + share, 0), total }),
    async finish() {
      while (!failure && !stopped && (running.size || waiting.length)) {
        await new Promise<void>((resolve) => wake = resolve);
      }
      check();
    },
    stop() {
      stopped = true;
      for (const worker of running.keys()) worker.terminate();
      running.clear();
      wake();
    },
  };
}
