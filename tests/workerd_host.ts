/**
 * Starts Cloudflare's own runtime with the Worker and its bindings (tests/workerd/host.ts) and ends it with the test.
 * Keys are those given; the store is empty.
 */
import type { KeyRecord } from "../functions/auth.ts";

/** @param work gets the host's address; @returns what the host printed: its log, a JSON line a request */
export async function withWorkerd(
  { records, upstream }: { records: KeyRecord[]; upstream: string },
  work: (url: string) => Promise<void>,
): Promise<string> {
  const host = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "host.ts", JSON.stringify({ records, upstream })],
    cwd: new URL("./workerd", import.meta.url).pathname,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const started = Promise.withResolvers<string>();
  let printed = "";
  // Read to the end: a host whose output nobody takes stands still.
  const reading = (async () => {
    for await (const text of host.stdout.pipeThrough(new TextDecoderStream())) {
      printed += text;
      const url = /^http\S+(?=\n)/m.exec(printed)?.[0];
      if (url) started.resolve(url);
    }
    started.reject(new Error("the host ended before it said where it listens"));
  })();
  try {
    await work(await started.promise);
  } finally {
    await host.stdin.close();
    await host.status;
    await reading;
  }
  return printed;
}
