/**
 * Probes beside the training: each arm's fits run in a worker of their own from the moment its activations are there.
 */
import { InputError } from "../core/errors.ts";
import type { FittedProbe } from "../core/probe/fit.ts";
import type { ProbeAnswer, ProbeJob } from "./demo_probe_worker.ts";

export interface ProbeTask {
  /** Share done, 0 to 1. */
  share(): number;
  result: Promise<FittedProbe>;
  /** Ends the work; the result never settles then. */
  stop(): void;
}

/** Starts fitting at once. The result rejects with what the worker threw. */
export function startProbes(job: ProbeJob): ProbeTask {
  const worker = new Worker(import.meta.resolve("./demo_probe_worker.ts"), { type: "module" });
  let share = 0;
  const result = new Promise<FittedProbe>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<ProbeAnswer>) => {
      if ("done" in data) share = data.done / data.total;
      else if ("fitted" in data) resolve(data.fitted);
      else reject(new (data.isInput ? InputError : Error)(data.failed));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
  }).finally(() => worker.terminate());
  result.catch(() => {}); // awaited when every arm has been tuned
  worker.postMessage(job);
  return { share: () => share, result, stop: () => worker.terminate() };
}
