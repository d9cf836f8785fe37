/**
 * `deno task test:workerd`: the service's contract against Cloudflare's own runtime, with R2, KV, rate limits and ONNX.
 * It is no part of `deno task test`, for it installs some 200 MB that nothing else needs.
 */
import assert from "node:assert/strict";
import { CONTRACT, contractKeys } from "./service_contract.ts";
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
    const lines = host.stdout.pipeThrough(new TextDecoderStream()).getReader();
    try {
      let printed = "", more;
      do {
        more = await lines.read();
        printed += more.value ?? "";
      } while (!more.done && !/^http\S+\n/m.test(printed));
      const url = /^http\S+(?=\n)/m.exec(printed)?.[0];
      assert(url, "the host did not start");
      for (const [name, run] of CONTRACT) await t.step(name, () => run({ url, keys }));
    } finally {
      await host.stdin.close();
      await lines.cancel();
      await host.status;
    }
  });
});
