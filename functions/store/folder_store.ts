/**
 * A probe store over any `Folder`, a disk or a bucket alike: versions that never change below "_versions", named by their
 * manifest's hash, and below "_ids" a small file an id that says which version it stands for. It refuses to half-store.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { checkName, type Folder, readJson } from "../../core/formats/folder.ts";
import { MANIFEST, manifestSchema, sha256 } from "../../core/formats/manifest.ts";
import { loadBundle } from "../../core/probe/bundle.ts";
import { loadProbe } from "../../core/probe/stored.ts";
import { probeIdSchema } from "../schemas.ts";
import type { Moved, ProbeStore, ServedProbe, UploadedFile } from "./types.ts";

const VERSIONS = "_versions", IDS = "_ids"; // no id starts with an underscore
const pointerSchema = z.object({ bundle: z.string().regex(/^[0-9a-f]{64}$/) });
const MOST_FILES = 64, KEPT = 256;

export interface StoreOptions {
  /** How long an answer for an id may be given again without a look at the folder; what is put here shows at once. */
  freshMs?: number;
}

/**
 * The store in `root`: what was put there, and plain folders of probes and bundles directly below it, named by id.
 * A root that is itself such a folder is a store of that one.
 */
export function folderStore(root: Folder, { freshMs = 0 }: StoreOptions = {}): ProbeStore {
  const fresh = new Map<string, { at: number; probe: ServedProbe }>();
  /** Loaded versions by manifest hash, the latest used last. */
  const kept = new Map<string, Promise<ServedProbe>>();

  /** @param version the folder's hash, where it is known: then it cannot change */
  async function load(folder: Folder, version?: string): Promise<ServedProbe> {
    const hash = version ?? await sha256(await folder.read(MANIFEST));
    const key = `${folder.path} ${hash}`, known = kept.get(key);
    const loading = known ?? read(folder, hash);
    kept.delete(key);
    kept.set(key, loading);
    loading.catch(() => kept.delete(key));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
    return await loading;
  }

  const pointerName = (id: string) => `${IDS}/${id}.json`;
  async function pointed(id: string): Promise<string | undefined> {
    if (!await root.exists(pointerName(id))) return undefined;
    return pointerSchema.parse(await readJson(root, pointerName(id))).bundle;
  }

  async function get(id: string): Promise<ServedProbe | undefined> {
    const known = fresh.get(id);
    if (known && performance.now() - known.at < freshMs) return known.probe;
    const at = performance.now(), probe = await find(id);
    if (probe && freshMs > 0) fresh.set(id, { at, probe });
    else fresh.delete(id);
    return probe;
  }

  async function find(id: string): Promise<ServedProbe | undefined> {
    if (!probeIdSchema.safeParse(id).success) return undefined;
    const bundle = await pointed(id);
    if (bundle !== undefined) return { ...await load(root.folder(VERSIONS).folder(bundle), bundle), id };
    const folder = root.folder(id);
    if (await folder.exists(MANIFEST)) return named(await load(folder), id, folder);
    if (!await root.exists(MANIFEST)) return undefined;
    const only = await load(root);
    return only.id === id ? only : undefined;
  }

  async function point(id: string, bundle: string): Promise<Moved> {
    const previous = await pointed(id) ?? null;
    await root.write(pointerName(id), JSON.stringify({ bundle }) + "\n");
    fresh.delete(id);
    return { bundle, previous };
  }

  return {
    get,
    async list() {
      const names = (await root.list()).map((name) => name.split("/"));
      const ids = new Set(
        names.flatMap(([top, file, deeper]) => {
          if (top === IDS) return [file.replace(/\.json$/, "")];
          return file === MANIFEST && deeper === undefined ? [top] : [];
        }).filter((id) => probeIdSchema.safeParse(id).success),
      );
      if (names.some(([top, file]) => top === MANIFEST && file === undefined)) ids.add((await load(root)).id);
      const probes = await Promise.all([...ids].sort().map(get));
      return probes.filter((probe) => probe !== undefined);
    },
    async ready() {
      await root.exists(MANIFEST);
    },
    async put(id, files) {
      return await point(id, await receive(root, files));
    },
    async move(id, bundle) {
      if (!await root.exists(`${VERSIONS}/${bundle}/${MANIFEST}`)) return undefined;
      return await point(id, bundle);
    },
    async remove(id) {
      if (await pointed(id) === undefined) return false;
      await root.remove(pointerName(id));
      fresh.delete(id);
      return true;
    },
  };
}

async function read(folder: Folder, hash: string): Promise<ServedProbe> {
  const { kind } = manifestSchema.pick({ kind: true }).parse(await readJson(folder, MANIFEST));
  if (kind !== "bundle") {
    return { ...await loadProbe(folder), bundle: hash, encoder: { kind: "upstream" }, folder };
  }
  const { probe, encoder } = await loadBundle(folder);
  return { ...probe, bundle: hash, encoder, folder };
}

/** A plain folder is its probe's name; what was put under an id may be called otherwise inside. */
function named(probe: ServedProbe, id: string, folder: Folder): ServedProbe {
  if (probe.id === id) return probe;
  throw new InputError(`Cannot serve "${folder.path}": its probe calls itself "${probe.id}"`);
}

/** Stores a bundle's files as they arrive, checks the whole, and writes its manifest last. Returns its hash. */
async function receive(root: Folder, files: AsyncIterable<UploadedFile>): Promise<string> {
  const fail = (why: string): never => {
    throw new InputError(`Cannot store the bundle: ${why}`);
  };
  const written = new Set<string>();
  let folder: Folder | undefined, manifest = "", hash = "", stored = false;
  let expected: z.infer<typeof manifestSchema>["files"] = {};
  for await (const { name, bytes } of files) {
    if (!folder) {
      if (name !== MANIFEST) fail(`its first file is "${name}", expected "${MANIFEST}"`);
      manifest = new TextDecoder().decode(bytes);
      expected = readExpected(manifest, fail);
      hash = await sha256(bytes);
      folder = root.folder(VERSIONS).folder(hash);
      stored = await folder.exists(MANIFEST);
      continue;
    }
    const entry = Object.hasOwn(expected, name)
      ? expected[name]
      : fail(`its manifest names no file "${name}"`);
    if (written.has(name)) fail(`the file "${name}" comes twice`);
    if (await sha256(bytes) !== entry.sha256) fail(`the sha256 of "${name}" is not the manifest's`);
    if (!stored) await folder.write(name, bytes);
    written.add(name);
  }
  if (!folder) return fail("it has no files");
  // Whoever has the manifest of a stored version need not send its files again.
  if (stored) return hash;
  const missing = Object.keys(expected).find((name) => !written.has(name));
  if (missing !== undefined) fail(`the file "${missing}" is missing`);
  await read(withManifest(folder, manifest), hash);
  await folder.write(MANIFEST, manifest);
  return hash;
}

/** The folder as if it held its manifest already, to check what is not an artifact yet. */
function withManifest(folder: Folder, manifest: string): Folder {
  const bytes = new TextEncoder().encode(manifest);
  return {
    path: folder.path,
    open: (name) => folder.open(name),
    read: (name) => name === MANIFEST ? Promise.resolve(bytes.slice()) : folder.read(name),
    exists: (name) => name === MANIFEST ? Promise.resolve(true) : folder.exists(name),
    list: () => folder.list(),
    folder: (name) => folder.folder(name),
    write: (name, data) => folder.write(name, data),
    remove: (name) => folder.remove(name),
  };
}

function readExpected(text: string, fail: (why: string) => never): z.infer<typeof manifestSchema>["files"] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return fail(`its ${MANIFEST} is no JSON`);
  }
  const parsed = manifestSchema.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    return fail(`its ${MANIFEST}: field "${path.join(".")}": ${message}`);
  }
  const { kind, files } = parsed.data, names = Object.keys(files);
  if (kind !== "bundle" && kind !== "probe") fail(`it is a "${kind}", expected "bundle" or "probe"`);
  if (names.length > MOST_FILES) fail(`it has ${names.length} files, at most ${MOST_FILES} are taken`);
  names.forEach(checkName);
  if (names.includes(MANIFEST)) fail(`its ${MANIFEST} names itself`);
  return files;
}
