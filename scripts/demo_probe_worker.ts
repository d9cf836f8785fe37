/**
 * A worker that fits the probes of one arm while the device already tunes the next: one message in, progress and one
 * result out.
 */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { type Features, probeArm, type ProbeSettings } from "../core/demo/probes.ts";
import { InputError, messageOf } from "../core/errors.ts";
import type { SampleRow } from "../core/probe/activations.ts";
import type { FittedProbe } from "../core/probe/fit.ts";

export interface ProbeJob {
  rows: SampleRow[];
  features: Features;
  settings: Omit<ProbeSettings, "signal" | "onProgress">;
}
export type ProbeAnswer =
  | { done: number; total: number }
  | { fitted: FittedProbe }
  | { failed: string; isInput: boolean };

self.onmessage = async ({ data: { rows, features, settings } }: MessageEvent<ProbeJob>) => {
  const post = (answer: ProbeAnswer) => self.postMessage(answer);
  try {
    const onProgress = (done: number, total: number) => post({ done, total });
    post({ fitted: await probeArm(rows, features, { ...settings, onProgress }) });
  } catch (error) {
    post({ failed: messageOf(error), isInput: error instanceof InputError });
  }
};
