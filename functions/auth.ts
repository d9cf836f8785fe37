/**
 * API keys: made here, kept as hashes, compared in constant time, several of them valid at once so that they can be rotated.
 * A key of the wrong shape, an unknown one, an expired one and one without the scope are refused.
 */
import { z } from "zod";
import { sha256 } from "../core/formats/manifest.ts";
import { Problem } from "./problems.ts";

export const SCOPES = ["score", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** What is kept of a key. */
export const keyRecordSchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9]{8}$/),
  scopes: z.array(z.enum(SCOPES)).min(1),
  /** Of the whole key, which holds 256 random bits: no salt or slow hash would make it harder to guess. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  note: z.string().max(200).default(""),
  expires: z.iso.datetime().optional(),
});
export type KeyRecord = z.infer<typeof keyRecordSchema>;
export const keyFileSchema = z.strictObject({ keys: z.array(keyRecordSchema) });

/** Finds a key's record by its id, which is no secret. */
export type KeySource = (id: string) => Promise<KeyRecord | undefined>;

const KEY = /^afterimage_([a-z0-9]{8})_[A-Za-z0-9_-]{43}$/;

/** A new key, to be shown once, and the record to keep. */
export async function createKey(
  scopes: Scope[],
  note = "",
  expires?: string,
): Promise<{ key: string; record: KeyRecord }> {
  const id = crypto.getRandomValues(new Uint8Array(8)).reduce(
    (text, byte) => text + (byte % 36).toString(36),
    "",
  );
  const secret = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32))))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const key = `afterimage_${id}_${secret}`;
  return { key, record: { id, scopes, sha256: await sha256(key), note, ...(expires && { expires }) } };
}

/** Whether two strings of equal length are equal, in a time that tells nothing about where they differ. */
function equalInConstantTime(a: string, b: string): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i % b.length);
  return difference === 0;
}

const NOBODY = "0".repeat(64);

/**
 * The record of the key in an Authorization header.
 * @throws Problem "key-missing" or "key-invalid" (401), "scope-missing" (403)
 */
export async function authenticate(
  header: string | undefined,
  find: KeySource,
  scope?: Scope,
  now: number = Date.now(),
): Promise<KeyRecord> {
  const challenge = { "www-authenticate": 'Bearer realm="afterimage"' };
  const given = /^Bearer +(\S+) *$/i.exec(header ?? "")?.[1];
  if (given === undefined) {
    throw new Problem("key-missing", "Send an API key: Authorization: Bearer afterimage_…", challenge);
  }
  const id = KEY.exec(given)?.[1], record = id === undefined ? undefined : await find(id);
  const same = equalInConstantTime(await sha256(given), record?.sha256 ?? NOBODY);
  const over = record?.expires !== undefined && Date.parse(record.expires) <= now;
  if (!record || !same || over) {
    throw new Problem("key-invalid", "This API key is not valid here", {
      "www-authenticate": 'Bearer realm="afterimage", error="invalid_token"',
    });
  }
  if (scope && !record.scopes.includes(scope)) {
    throw new Problem("scope-missing", `This API key lacks the scope "${scope}"`);
  }
  return record;
}

/** Records in memory, by id. */
export function keysOf(records: readonly KeyRecord[]): KeySource {
  const byId = new Map(records.map((record) => [record.id, record]));
  return (id) => Promise.resolve(byId.get(id));
}

/** The part of a Workers KV namespace that is used here. */
export interface KeyValues {
  get(name: string, options: { type: "json"; cacheTtl: number }): Promise<unknown>;
}

/** Records in Workers KV, one a name "key:<id>": a key added or taken away counts everywhere within a minute or two. */
export function keysInKv(values: KeyValues): KeySource {
  return async (id) => {
    const parsed = keyRecordSchema.safeParse(await values.get(`key:${id}`, { type: "json", cacheTtl: 60 }));
    return parsed.success && parsed.data.id === id ? parsed.data : undefined;
  };
}
