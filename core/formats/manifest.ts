/**
 * The manifest of an artifact folder: what it is, what it came from, the hash of every file in it.
 * It is written last; a folder without one is not an artifact, and a file whose hash differs is refused.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { type Folder, readJson } from "./folder.ts";

export const MANIFEST = "manifest.json";
export const VERSION = "0.2.0";

export const manifestSchema = z.object({
  kind: z.enum(["people", "dataset", "model", "run", "activations", "probe", "bundle", "report", "cell"]),
  version: z.literal(1),
  afterimage: z.string(),
  /** What the artifact was made from: name -> the sha256 of that artifact's manifest, or of the file. */
  parents: z.record(z.string(), z.string()),
  seed: z.number().int().nullable(),
  /** The effective configuration, whole. */
  config: z.record(z.string(), z.unknown()),
  /** Facts about the result that a reader wants without opening the files. */
  facts: z.record(z.string(), z.unknown()),
  files: z.record(z.string(), z.object({ bytes: z.number().int(), sha256: z.string() })),
});
export type Manifest = z.infer<typeof manifestSchema>;
export type ManifestKind = Manifest["kind"];

/** Lower-case hex sha256. */
export async function sha256(data: Uint8Array<ArrayBuffer> | string): Promise<string> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export interface ManifestInput {
  kind: ManifestKind;
  parents?: Record<string, string>;
  seed?: number | null;
  config?: Record<string, unknown>;
  facts?: Record<string, unknown>;
  /** Files whose hash is already known (large ones hashed while written); the others are read and hashed. */
  known?: Manifest["files"];
  /** The files of the artifact; by default every file in the folder. */
  files?: string[];
}

/** Hashes the folder's files and writes `manifest.json` last. Returns it with its own sha256, the artifact's name. */
export async function writeManifest(
  folder: Folder,
  input: ManifestInput,
): Promise<{ manifest: Manifest; hash: string }> {
  const files: Manifest["files"] = {};
  for (const name of (input.files ?? await folder.list()).filter((name) => name !== MANIFEST).sort()) {
    const known = input.known?.[name];
    if (known) files[name] = known;
    else {
      const bytes = await folder.read(name);
      files[name] = { bytes: bytes.length, sha256: await sha256(bytes) };
    }
  }
  const manifest: Manifest = {
    kind: input.kind,
    version: 1,
    afterimage: VERSION,
    parents: input.parents ?? {},
    seed: input.seed ?? null,
    config: input.config ?? {},
    facts: input.facts ?? {},
    files,
  };
  const text = JSON.stringify(manifest, null, 1) + "\n";
  await folder.write(MANIFEST, text);
  return { manifest, hash: await sha256(text) };
}

/**
 * Reads a manifest; with `verify` also hashes every file.
 * @throws InputError when there is none, it is of another kind, or a file differs
 */
export async function readManifest(
  folder: Folder,
  kind?: ManifestKind,
  options: { verify?: boolean } = {},
): Promise<{ manifest: Manifest; hash: string }> {
  if (!await folder.exists(MANIFEST)) {
    throw new InputError(
      `Cannot use "${folder.path}": it has no ${MANIFEST}, so it is not a finished artifact`,
    );
  }
  const parsed = manifestSchema.safeParse(await readJson(folder, MANIFEST));
  if (!parsed.success) {
    throw new InputError(`Cannot use "${folder.path}/${MANIFEST}": ${issueOf(parsed.error)}`);
  }
  if (kind && parsed.data.kind !== kind) {
    throw new InputError(
      `Cannot use "${folder.path}": it is a "${parsed.data.kind}" artifact, expected "${kind}"`,
    );
  }
  if (options.verify) {
    for (const [name, entry] of Object.entries(parsed.data.files)) {
      const actual = await sha256(await folder.read(name));
      if (actual !== entry.sha256) {
        throw new InputError(
          `Cannot use "${folder.path}/${name}": its sha256 is ${actual}, the manifest says ${entry.sha256}`,
        );
      }
    }
  }
  return { manifest: parsed.data, hash: await sha256(await folder.read(MANIFEST)) };
}
