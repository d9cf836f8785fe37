/**
 * The service on Deno's own HTTP server, for `deno task serve`, the demo and the tests.
 * It listens where it is told and ends when the signal fires, after the requests under way have been answered.
 */
import { InputError, messageOf } from "../core/errors.ts";
import { createApp, type Deps } from "./app.ts";

export interface Listening {
  /** Without a slash at its end. */
  url: string;
  /** Settles when the server has stopped. */
  finished: Promise<void>;
  /** Takes no more requests, waits for those under way, but no longer than the grace, and closes all connections. */
  stop(): Promise<void>;
}

export interface ServeOptions {
  host?: string;
  /** 0 takes any free one. */
  port?: number;
  signal?: AbortSignal;
  /** A client that never ends its body would hold the service for ever. */
  graceMs?: number;
}

/** Starts the service. @throws InputError when it cannot listen there */
export function serveApp(deps: Deps, options: ServeOptions = {}): Listening {
  const { host = "127.0.0.1", port = 0, signal, graceMs = 10_000 } = options;
  const app = createApp(deps);
  const connections = new AbortController();
  const underWay = new Set<Promise<void>>();
  let stopping = false;

  const handle = (request: Request, { completed }: Deno.ServeHandlerInfo): Response | Promise<Response> => {
    if (stopping) {
      return new Response(null, { status: 503, headers: { connection: "close", "retry-after": "5" } });
    }
    const delivered: Promise<void> = completed.catch(() => {}).finally(() => underWay.delete(delivered));
    underWay.add(delivered);
    return app.fetch(request);
  };

  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({ hostname: host, port, signal: connections.signal, onListen: () => {} }, handle);
  } catch (error) {
    throw new InputError(`Cannot listen on ${host} port ${port}: ${messageOf(error)}`);
  }

  async function stop(): Promise<void> {
    stopping = true;
    const grace = Promise.withResolvers<void>();
    const timer = setTimeout(grace.resolve, graceMs);
    await Promise.race([Promise.all(underWay), grace.promise]);
    clearTimeout(timer);
    connections.abort();
    await server.finished;
  }
  signal?.addEventListener("abort", stop, { once: true });
  const name = host.includes(":") ? `[${host}]` : host;
  return { url: `http://${name}:${server.addr.port}`, finished: server.finished, stop };
}
