/**
 * `deno task serve` in a process of its own on a free port, for what asks it from outside.
 * It refuses to go on where the service ends before it says where it listens.
 */
export interface ServiceProcess {
  /** Without a slash at its end. */
  url: string;
  /** Of the task, which runs the service as its child. */
  child: Deno.ChildProcess;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
}

/** @param args beside the port @param stdout "piped" for whoever reads the log @throws Error with what it said */
export async function startService(
  args: readonly string[] = [],
  stdout: "null" | "piped" = "null",
): Promise<ServiceProcess> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "serve", "--port", "0", ...args],
    cwd: new URL("..", import.meta.url).pathname,
    stdout,
    stderr: "piped",
  }).spawn();
  const started = Promise.withResolvers<string>();
  let said = "";
  // Read to the end: a service whose words nobody takes stands still.
  const reading = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      const url = / at (http\S+),/.exec(said += text)?.[1];
      if (url) started.resolve(url);
    }
    started.reject(new Error(`the service did not start: ${said}`));
  })();
  return {
    url: await started.promise,
    child,
    async stop() {
      child.kill("SIGTERM");
      await child.status;
      await reading;
    },
  };
}
