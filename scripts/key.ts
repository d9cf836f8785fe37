/**
 * `deno task key`: makes an API key for the service, shows it once and keeps its hash in a file; lists and revokes keys.
 * It refuses to revoke a key that is not in the file.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { createKey, SCOPES } from "../functions/auth.ts";
import { runTask } from "./cli.ts";
import { readKeys, writeKeys } from "./keys.ts";
import { formatTable } from "./table.ts";

await runTask({
  name: "key",
  summary: "Make, list or revoke API keys of the service; a key is shown once, only its hash is kept",
  schema: z.object({
    keys: z.string().describe("the file of keys, for deno task serve --keys"),
    scopes: z.array(z.enum(SCOPES)).min(1).default(["score"]).describe("what the key allows"),
    note: z.string().max(200).default("").describe("whose key it is"),
    days: z.number().positive().optional().describe("days until it expires (default never)"),
    list: z.boolean().default(false).describe("show what is in the file instead"),
    revoke: z.string().optional().describe("take the key of this id out of the file instead"),
    kv: z.boolean().default(false).describe("also print the command that puts the hash into Workers KV"),
  }),
  examples: [
    "deno task key --keys keys.json --scopes score --note pipeline",
    "deno task key --keys keys.json --list",
    "deno task key --keys keys.json --revoke a1b2c3d4",
  ],
  async run({ keys: path, scopes, note, days, list, revoke, kv }) {
    const keys = await readKeys(path);
    if (list) {
      const rows = keys.map(({ id, scopes, note, expires = "" }) => [id, scopes.join(" "), expires, note]);
      return console.log(formatTable(["id", "scopes", "expires", "note"], rows));
    }
    if (revoke !== undefined) {
      const left = keys.filter(({ id }) => id !== revoke);
      if (left.length === keys.length) {
        throw new InputError(`Cannot revoke "${revoke}": "${path}" has no such key`);
      }
      return await writeKeys(path, left);
    }
    const expires = days === undefined ? undefined : new Date(Date.now() + days * 86_400_000).toISOString();
    const { key, record } = await createKey(scopes, note, expires);
    await writeKeys(path, [...keys, record]);
    console.error(`Key ${record.id}, for ${scopes.join(" and ")}; it is shown this once:`);
    console.log(key);
    if (kv) {
      console.error(
        `wrangler kv key put --binding KEYS --remote 'key:${record.id}' '${JSON.stringify(record)}'`,
      );
    }
  },
});
