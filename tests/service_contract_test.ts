/**
 * The service's contract on Deno: a directory as the store, keys from records, token buckets for rates.
 * The same steps run against workerd with `deno task test:workerd`.
 */
import { chooseEncoder } from "../functions/encoders.ts";
import { keysOf } from "../functions/auth.ts";
import { onnxEncoder } from "../functions/onnx_encoder.ts";
import { tokenBuckets } from "../functions/rate.ts";
import { folderStore } from "../functions/store/folder_store.ts";
import { upstreamEncoder } from "../functions/upstream.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { CONTRACT } from "./service_contract.ts";
import { contractKeys } from "./service_contract_host.ts";
import { renamed, withService } from "./service_probe.ts";

Deno.test("the contract on Deno", async (t) => {
  const path = await Deno.makeTempDir(), { keys, records } = await contractKeys();
  const rate = () => tokenBuckets({ perMinute: 600, burst: 600 });
  try {
    await withService({ store: renamed("edge") }, async (gpu) => {
      const deps = {
        store: folderStore(new DiskFolder(path)),
        encoder: chooseEncoder({ onnx: onnxEncoder(), other: upstreamEncoder(gpu) }),
        keys: keysOf(records),
        rates: { key: rate(), address: rate() },
      };
      await withService(deps, async (url) => {
        for (const [name, run] of CONTRACT) await t.step(name, () => run({ url, keys }));
      });
    });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});
