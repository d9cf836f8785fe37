/**
 * Trying again, politely: waits with full jitter, a server's Retry-After obeyed, and a bound on what is under way at once.
 * It retries only what may pass by itself; a refusal that would be repeated is given back at once.
 */

export interface RetryOptions {
  /** Further tries after the first. */
  retries: number;
  /** The wait before further try n (from 0) is drawn from 0 to `baseMs` * 2^n, at most `maxMs`. */
  baseMs: number;
  maxMs: number;
  /** From 0 to 1, for the jitter. */
  random: () => number;
}

/** Statuses that another try may change; 500 is a fault, and 501 and the rest of 4xx are answers. */
const PASSING = new Set([408, 425, 429, 502, 503, 504]);
export const mayPass = (status: number): boolean => PASSING.has(status);

/**
 * Milliseconds before further try `n` (from 0): full jitter over an exponential bound, but never less than the server asked.
 * Source: M. Brooker, "Exponential Backoff And Jitter", 2015
 */
export function waitMs(n: number, askedMs: number, { baseMs, maxMs, random }: RetryOptions): number {
  const jitter = random() * Math.min(maxMs, baseMs * 2 ** n);
  return askedMs + jitter;
}

/** What a Retry-After header asks for in milliseconds, as seconds or as a date (RFC 9110, 10.2.3); 0 without one. */
export function retryAfterMs(header: string | null, now: number = Date.now()): number {
  if (header === null || header.trim() === "") return 0;
  const text = header.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

/** Waits; rejects with the signal's reason as soon as that fires. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A function that runs at most `width` pieces of work at once, the others in the order in which they came. */
export function limiter(width: number): <T>(work: () => Promise<T>, signal?: AbortSignal) => Promise<T> {
  const line: (() => void)[] = [];
  let running = 0;
  return async (work, signal) => {
    signal?.throwIfAborted();
    if (running < width) running++;
    else {
      // Whoever finishes hands its own place over, so `running` stays as it is.
      await new Promise<void>((resolve, reject) => {
        const stop = () => {
          line.splice(line.indexOf(enter), 1);
          reject(signal!.reason);
        };
        const enter = () => {
          signal?.removeEventListener("abort", stop);
          resolve();
        };
        signal?.addEventListener("abort", stop, { once: true });
        line.push(enter);
      });
    }
    try {
      return await work();
    } finally {
      const next = line.shift();
      if (next) next();
      else running--;
    }
  };
}
