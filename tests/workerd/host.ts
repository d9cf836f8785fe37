/**
 * Cloudflare's own runtime on this machine: the Worker as wrangler bundles it, with the bindings of wrangler.toml, empty.
 * It takes { records, upstream } as JSON, prints its address, and stops when its input ends.
 */
import { Miniflare } from "miniflare";
import process from "node:process";
import { unstable_getMiniflareWorkerOptions } from "wrangler";

const ROOT = new URL("../..", import.meta.url).pathname;
const { records, upstream } = JSON.parse(Deno.args[0]);

/** Bundles the Worker as a deployment would, and says how large it is. */
async function bundle(into: string): Promise<void> {
  const wrangler = new URL("./node_modules/wrangler/bin/wrangler.js", import.meta.url).pathname;
  const args = ["run", "-A", wrangler, "deploy", "--dry-run", "--env=", "--outdir", into];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).output();
  const text = new TextDecoder().decode(stdout);
  if (!success) throw new Error(`Cannot bundle the Worker: ${text}${new TextDecoder().decode(stderr)}`);
  console.error(text.split("\n").find((line) => line.startsWith("Total Upload")));
}

function moduleType(name: string): "ESModule" | "CompiledWasm" | "Text" {
  if (name === "worker_entry.js") return "ESModule";
  return name.endsWith(".wasm") ? "CompiledWasm" : "Text";
}

const out = await Deno.makeTempDir();
try {
  await bundle(out);
  const names = [...Deno.readDirSync(out)].map(({ name }) => name)
    .filter((name) => !/\.(map|md)$/.test(name)).sort((a) => a === "worker_entry.js" ? -1 : 1);
  const { workerOptions } = unstable_getMiniflareWorkerOptions(`${ROOT}/wrangler.toml`);
  const { modulesRules: _, ...bound } = workerOptions;
  const miniflare = new Miniflare({
    ...bound,
    bindings: { ...bound.bindings, AFTERIMAGE_UPSTREAM: upstream },
    modulesRoot: out,
    modules: names.map((name) => ({
      type: moduleType(name),
      path: `${out}/${name}`,
      contents: moduleType(name) === "CompiledWasm"
        ? Deno.readFileSync(`${out}/${name}`)
        : Deno.readTextFileSync(`${out}/${name}`),
    })),
    port: 0,
  });
  const url = await miniflare.ready;
  const keys = await miniflare.getKVNamespace("KEYS");
  for (const record of records) await keys.put(`key:${record.id}`, JSON.stringify(record));
  console.log(url.href.replace(/\/$/, ""));
  for await (const _chunk of Deno.stdin.readable);
  await miniflare.dispose();
} finally {
  await Deno.remove(out, { recursive: true });
}
process.exit(0);
