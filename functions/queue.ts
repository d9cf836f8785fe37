/**
 * A bounded queue before the encoder: a few pieces of work run, a few wait, the rest is told to come back later.
 * A place is taken before the body is read, so that memory is bounded too; it refuses work when all places are taken.
 */
import { Problem } from "./problems.ts";

/** A place in the queue, from a request's first byte to its answer. */
export interface Place {
  /** Runs the work when its turn comes; rejects with the signal's reason as soon as that fires. */
  run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T>;
  leave(): void;
}

export interface Queue {
  /**
   * @param bytes what the request may hold in memory
   * @throws Problem "busy" (503, with Retry-After in seconds) when all places or all bytes are taken
   */
  enter(bytes?: number): Place;
  state(): { running: number; waiting: number; places: number };
}

export interface QueueOptions {
  concurrent: number;
  waiting: number;
  /** Of all bodies under way together; one request alone always fits. */
  heldBytes?: number;
  /** Whether the host is short of memory now: then requests are taken one by one. */
  full?: () => boolean;
}

/** A queue in which `concurrent` pieces of work run at once and `waiting` more requests may be under way. */
export function createQueue(options: QueueOptions): Queue {
  const places = options.concurrent + options.waiting;
  const line: (() => void)[] = [];
  const { heldBytes = Infinity, full = () => false } = options;
  let taken = 0, running = 0, held = 0;
  let meanMs = 0; // of recent work, to tell when a place may be free again

  const busy = () => {
    const seconds = Math.max(1, Math.ceil((meanMs * taken) / options.concurrent / 1000));
    return new Problem("busy", `All ${places} places or their memory are taken; try again in ${seconds} s`, {
      "retry-after": String(seconds),
    });
  };

  async function turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (running < options.concurrent) return void running++;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const stop = () => {
      line.splice(line.indexOf(resolve), 1);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    line.push(resolve);
    await promise; // whoever finishes hands its own slot over, so `running` stays as it is
    signal.removeEventListener("abort", stop);
  }

  async function run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await turn(signal);
    const start = performance.now();
    const aborted = Promise.withResolvers<never>();
    const stop = () => aborted.reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    const result = work().finally(() => {
      meanMs = meanMs === 0 ? performance.now() - start : 0.8 * meanMs + 0.2 * (performance.now() - start);
      const next = line.shift();
      if (next) next();
      else running--;
    });
    // Work that does not heed the signal keeps its slot until it ends; its request is answered at once.
    return await Promise.race([result, aborted.promise]).finally(() =>
      signal.removeEventListener("abort", stop)
    );
  }

  return {
    enter(bytes = 0) {
      // One alone always fits: memory that the process keeps from a rush would shut the service for good.
      if (taken >= places || (taken > 0 && (held + bytes > heldBytes || full()))) throw busy();
      taken++;
      held += bytes;
      let left = false;
      return {
        run,
        leave() {
          if (left) return;
          left = true;
          taken--;
          held -= bytes;
        },
      };
    },
    state: () => ({ running, waiting: taken - Math.min(running, taken), places }),
  };
}
