/**
 * Progress for long work: a bar on a terminal, a plain line now and then elsewhere. It writes to stderr only,
 * so that what a script prints on stdout stays clean for pipes.
 */
import process from "node:process";
import cliProgress from "cli-progress";
import { Interrupted } from "../core/errors.ts";

export interface Progress {
  /** `done` counts from 0 to the total; `note` is a few words such as "loss 1.234". */
  update(done: number, note?: string): void;
  stop(): void;
}

const LINE_EVERY_MS = 10_000;

/** Starts a stage of `total` units. */
export function progress(label: string, total: number): Progress {
  if (Deno.stderr.isTerminal()) {
    const bar = new cliProgress.SingleBar({
      format: `${label.padEnd(24)} {bar} {value}/{total} {eta_formatted} {note}`,
      hideCursor: true,
      stream: process.stderr,
    }, cliProgress.Presets.shades_classic);
    bar.start(total, 0, { note: "" });
    return { update: (done, note = "") => bar.update(done, { note }), stop: () => bar.stop() };
  }
  const start = performance.now();
  let last = start, latest = 0;
  const line = (done: number, note: string) => {
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.error(`${label}: ${done}/${total} ${seconds}s ${note}`.trimEnd());
  };
  return {
    update(done, note = "") {
      latest = done;
      if (performance.now() - last < LINE_EVERY_MS && done < total) return;
      last = performance.now();
      line(done, note);
    },
    stop() {
      if (latest < total) line(latest, "stopped");
    },
  };
}

/** Progress of bytes that are written, in MB; it stops with `Interrupted` where the signal fires. */
export interface ByteProgress {
  /** The same chunks, counted as they pass; `note` as in `update`. @throws Interrupted */
  through(
    chunks: AsyncIterable<Uint8Array<ArrayBuffer>>,
    note?: string,
  ): AsyncGenerator<Uint8Array<ArrayBuffer>>;
  /** Counts bytes that lie there already. */
  skip(bytes: number): void;
  stop(): void;
}

/** @param stopped what to tell whoever interrupts */
export function byteProgress(
  label: string,
  totalBytes: number,
  { signal, stopped }: { signal?: AbortSignal; stopped: string },
): ByteProgress {
  const bar = progress(`${label} MB`, Math.floor(totalBytes / 1e6));
  let done = 0;
  return {
    async *through(chunks, note) {
      for await (const chunk of chunks) {
        if (signal?.aborted) throw new Interrupted(stopped);
        yield chunk;
        const before = Math.floor(done / 1e6), after = Math.floor((done += chunk.length) / 1e6);
        if (after > before) bar.update(after, note);
      }
    },
    skip: (bytes) => void (done += bytes),
    stop: bar.stop,
  };
}
