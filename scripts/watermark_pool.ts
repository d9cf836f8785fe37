/**
 * Images spread over workers, or done here when they are few: each free worker takes the next name.
 * The first failure that is not about an image ends all of them.
 */
import { InputError } from "../core/errors.ts";
import { type FileRecord, type FileSettings, openMarkFile, type Outcome } from "./watermark_file.ts";
import type { WorkerAnswer, WorkerJob } from "./watermark_worker.ts";

/** Images below which another worker costs more than it brings: starting one takes about half a second. */
const IMAGES_PER_WORKER = 64;

/** Calls `onOutcome` once for each name, in any order; stops handing out names when the signal fires. */
export async function forEachImage(
  names: readonly string[],
  settings: FileSettings,
  earlier: Map<string, FileRecord>,
  { workers, signal }: { workers: number; signal?: AbortSignal },
  onOutcome: (name: string, outcome: Outcome) => void,
): Promise<void> {
  const automatic = Math.min(navigator.hardwareConcurrency, Math.ceil(names.length / IMAGES_PER_WORKER));
  const count = Math.min(workers || automatic, names.length);
  const queue = names.values();
  const drain = async (markFile: (name: string, done?: FileRecord) => Promise<Outcome>) => {
    // All drains share one iterator, so that every name is taken once.
    for (const name of queue) {
      onOutcome(name, await markFile(name, earlier.get(name)));
      if (signal?.aborted) break;
    }
  };
  if (count <= 1) return await drain(await openMarkFile(settings));
  const pool = Array.from({ length: count }, startWorker);
  try {
    await Promise.all(pool.map(async ({ ask }) => {
      await ask({ settings });
      await drain(async (name, done) => {
        const answer = await ask({ name, done });
        if (!("outcome" in answer)) throw new Error(`A worker gave no outcome for "${name}"`);
        return answer.outcome;
      });
    }));
  } finally {
    for (const { worker } of pool) worker.terminate();
  }
}

function startWorker() {
  const worker = new Worker(import.meta.resolve("./watermark_worker.ts"), { type: "module" });
  const ask = (job: WorkerJob) =>
    new Promise<Exclude<WorkerAnswer, { failed: string; isInput: boolean }>>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<WorkerAnswer>) =>
        "failed" in data ? reject(new (data.isInput ? InputError : Error)(data.failed)) : resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
      worker.postMessage(job);
    });
  return { worker, ask };
}
