/**
 * A worker that watermarks images: first the settings, then one name a message, one outcome back for each.
 * What is no outcome (a bug, a full disk) goes back as `failed`, for the main thread to throw.
 */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { InputError, messageOf } from "../core/errors.ts";
import {
  type FileRecord,
  type FileSettings,
  type MarkFile,
  openMarkFile,
  type Outcome,
} from "./watermark_file.ts";

export type WorkerJob = { settings: FileSettings } | { name: string; done?: FileRecord };
export type WorkerAnswer = { ready: true } | { outcome: Outcome } | { failed: string; isInput: boolean };

let markFile: MarkFile | undefined;

self.onmessage = async ({ data }: MessageEvent<WorkerJob>) => {
  self.postMessage(
    await answer(data).catch((error): WorkerAnswer => ({
      failed: messageOf(error),
      isInput: error instanceof InputError,
    })),
  );
};

async function answer(job: WorkerJob): Promise<WorkerAnswer> {
  if ("settings" in job) {
    markFile = await openMarkFile(job.settings);
    return { ready: true };
  }
  return { outcome: await markFile!(job.name, job.done) };
}
