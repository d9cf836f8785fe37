/**
 * `deno task test:workerd`: the service's contract against Cloudflare's own runtime, with R2, KV, rate limits and ONNX.
 * It is no part of `deno task test`, for it installs some 200 MB that nothing else needs.
 */
import assert from "node:assert/strict";
import { CONTRACT } from "./service_contract.ts";
import { contractKeys } from "./service_contract_host.ts";
import { renamed, withService } from "./service_probe.ts";

Deno.test("the contract on workerd", async (t) => {
  const { keys, records } = await contractKeys();
  await withService({ store: renamed("edge") }, async (upstream) => {
    const folder = new URL("./workerd", import.meta.url).pathname;
    const host = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "host.ts", JSON.stringify({ records, upstream })],
      cwd: folder,
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
      const url = await started.promise;
      for (const [name, run] of CONTRACT) await t.step(name, () => run({ url, keys }));
    } finally {
      await host.stdin.close();
      await host.status;
      await reading;
    }
    const log = printed.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
    assert(log.length > 100, `${log.length} lines`);
    for (const key of Object.values(keys)) assert(!printed.includes(key.slice(-43)), "a key is in the log");
  });
});
