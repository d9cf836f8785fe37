/**
 * The service on Deno's own HTTP server, for `deno task serve`, the demo and the tests.
 * It listens where it is told and ends when the signal fires, after the requests under way have been answered.
 */
import { InputError, messageOf } from "../core/errors.ts";
import { createApp, type Deps } from "./app.ts";

export interface Listening {
  /** Without a slash at its end. */
  url: string;
  /** Settles when the server has stopped, or when the grace is over: then the host should exit. */
  finished: Promise<void>;
  /** Takes no more work, answers the requests under way, but no longer than the grace, and listens no more. */
  stop(): Promise<void>;
}

export interface ServeOptions {
  host?: string;
  /** 0 takes any free one. */
  port?: number;
  signal?: AbortSignal;
  /** A client that never ends its body would hold the service for ever. */
  graceMs?: number;
  /** Resident memory of the process above which no more images are taken; 0 for no bound. */
  memoryBytes?: number;
}

const rss = (): number => Deno.memoryUsage().rss;

/** Whether an address to listen on can be reached from this machine alone. */
export const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|::1)$/.test(host);

/** Starts the service. @throws InputError when it cannot listen there */
export function serveApp(deps: Deps, options: ServeOptions = {}): Listening {
  const { host = "127.0.0.1", port = 0, signal, graceMs = 10_000, memoryBytes = 0 } = options;
  let stopping = false, underWay = 0;
  const answered = Promise.withResolvers<void>();
  const app = createApp({
    ...deps,
    stopping: () => stopping,
    memoryShort: memoryBytes > 0 ? () => rss() > memoryBytes : undefined,
    gauges: [{ name: "process_resident_memory_bytes", help: "Resident memory.", read: rss }],
  });
  const finished = Promise.withResolvers<void>();
  const leave = () => {
    if (--underWay === 0 && stopping) answered.resolve();
  };
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve(
      { hostname: host, port, onListen: () => {} },
      (request, { remoteAddr, completed }) => {
        // What comes after the stop is refused at once: only what came before is waited for.
        if (!stopping) {
          underWay++;
          completed.then(leave, leave);
        }
        return app.fetch(request, deps.rates ? { address: remoteAddr.hostname } : {});
      },
    );
  } catch (error) {
    throw new InputError(`Cannot listen on ${host} port ${port}: ${messageOf(error)}`);
  }

  async function stop(): Promise<void> {
    stopping = true;
    const timer = setTimeout(finished.resolve, graceMs);
    // Deno's shutdown cuts off bodies that are still arriving, so it comes after them.
    if (underWay > 0) await Promise.race([answered.promise, finished.promise]);
    server.shutdown().then(finished.resolve, finished.reject);
    await finished.promise;
    clearTimeout(timer);
  }
  signal?.addEventListener("abort", stop, { once: true });
  const name = host.includes(":") ? `[${host}]` : host;
  return { url: `http://${name}:${server.addr.port}`, finished: finished.promise, stop };
}
