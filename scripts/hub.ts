/**
 * Models by their name on the hub, `org/name[@revision]`: the files that are needed go into Hugging Face's cache, and the
 * snapshot's folder comes back. Refuses a model without weights, and one that is not cached when nothing can be reached.
 */
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { shardsOf } from "../core/formats/checkpoint.ts";
import { checkName } from "../core/formats/folder.ts";
import { DiskFolder } from "./folder.ts";
import { bytesFrom, commitOf, filesOf, type HubFile, Unreachable } from "./hub_api.ts";
import {
  cachedCommit,
  isCommit,
  presentFiles,
  type RepoCache,
  repoCache,
  snapshotPath,
  storeFile,
  writeRef,
} from "./hub_cache.ts";
import { type HubSettings, hubSettings } from "./hub_settings.ts";
import { progress } from "./progress.ts";

export interface HubName {
  repo: string;
  revision: string;
  /** One GGUF file among several: its name, or how it ends, such as Q4_K_M. */
  gguf?: string;
}

const NAME = /^(\w[\w.-]*\/\w[\w.-]*)(?:@(\w[\w./-]*))?(?::(\w[\w.-]*))?$/;

/** `org/name[@revision][:file.gguf]`, or undefined for what cannot be one. */
export function parseHubName(spec: string): HubName | undefined {
  const [, repo, revision = "main", gguf] = NAME.exec(spec) ?? [];
  if (repo === undefined || /\.\.|--|\.git$/.test(repo)) return undefined;
  return { repo, revision: checkName(revision), gguf };
}

const SETTINGS = /^[^/]+\.(json|jinja|model|tiktoken|txt)$/,
  NOT_NEEDED = /^(trainer_state\.json|.*\.index\.json)$/;
const WHOLE = ["model.safetensors", "pytorch_model.bin"];

/**
 * What of a model's files is needed: settings and tokenizer, and its weights, safetensors before bin before GGUF. Where
 * an index tells the shards, it stands for them.
 */
export function chooseFiles(names: readonly string[], { repo, gguf }: HubName): string[] {
  const settings = names.filter((name) => SETTINGS.test(name) && !NOT_NEEDED.test(name));
  const ggufs = names.filter((name) => /^[^/]+\.gguf$/.test(name));
  if (gguf !== undefined) {
    const wanted = ggufs.filter((name) =>
      name === gguf || name.toLowerCase().endsWith(`${gguf.toLowerCase()}.gguf`)
    );
    if (wanted.length === 1) return wanted;
    throw new InputError(
      `Cannot choose "${gguf}" of "${repo}": its GGUF files are ${ggufs.join(", ") || "none"}`,
    );
  }
  const projector = names.filter((name) => name === "mm_projector.bin");
  for (const whole of WHOLE) {
    const found = [whole, `${whole}.index.json`].find((name) => names.includes(name));
    if (found) return [...settings, found, ...projector];
  }
  if (projector.length) return [...settings, ...projector];
  if (ggufs.length === 1) return ggufs;
  throw new InputError(
    ggufs.length
      ? `Cannot choose a file of "${repo}": it has ${ggufs.join(", ")}; write "${repo}:${
        ggufs[0]
      }" for the first`
      : `Cannot use "${repo}": it has no ${WHOLE.join(", no ")} and no GGUF file`,
  );
}

/**
 * The folder of a model's snapshot, or the path of its GGUF file, complete and checked.
 * @throws InputError for what the hub refuses, a wrong hash, a full disk, and what is not cached while offline
 */
export async function hubSnapshot(name: HubName, hub: HubSettings = hubSettings()): Promise<string> {
  const cache = repoCache(hub.cache, name.repo);
  if (hub.offline) return await fromCache(cache, name);
  if (isCommit(name.revision)) { // it never changes, so a complete one needs no question
    const found = await fromCache(cache, name).catch(() => undefined);
    if (found) return found;
  }
  try {
    const commit = await commitOf(hub, name.repo, name.revision);
    const files = new Map((await filesOf(hub, name.repo, commit)).map((file) => [file.path, file]));
    const chosen = chooseFiles([...files.keys()], name);
    await download(hub, cache, name.repo, commit, chosen.map((path) => fileAt(files, name, path)));
    const more = await shardNames(cache, commit, chosen);
    await download(hub, cache, name.repo, commit, more.map((path) => fileAt(files, name, path)));
    await writeRef(cache, name.revision, commit);
    return resultOf(cache, commit, chosen);
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    const path = await fromCache(cache, name).catch(() => {
      throw new InputError(
        `Cannot download "${name.repo}": ${error.message}; the cache does not hold it whole`,
      );
    });
    console.error(`hub: ${error.message}; "${name.repo}" is taken from the cache`);
    return path;
  }
}

function fileAt(files: ReadonlyMap<string, HubFile>, { repo }: HubName, path: string): HubFile {
  const file = files.get(path);
  if (!file) throw new InputError(`Cannot download "${repo}": its index names "${path}", which it has not`);
  return file;
}

/** The shards of the index among these files. */
async function shardNames(cache: RepoCache, commit: string, chosen: readonly string[]): Promise<string[]> {
  const index = chosen.find((name) => name.endsWith(".index.json"));
  return index ? await shardsOf(new DiskFolder(snapshotPath(cache, commit)), index) : [];
}

const resultOf = (cache: RepoCache, commit: string, chosen: readonly string[]): string =>
  join(snapshotPath(cache, commit), chosen.length === 1 && chosen[0].endsWith(".gguf") ? chosen[0] : "");

/** The same without the hub. @throws InputError naming what the cache lacks */
async function fromCache(cache: RepoCache, name: HubName): Promise<string> {
  const fail = (what: string): never => {
    throw new InputError(`Cannot use "${name.repo}" offline: ${what}`);
  };
  const commit = await cachedCommit(cache, name.revision);
  if (!commit) return fail(`the cache has no revision "${name.revision}" of it`);
  const names = await new DiskFolder(snapshotPath(cache, commit)).list();
  if (names.length === 0) return fail(`the cache has no files of revision "${name.revision}"`);
  const chosen = chooseFiles(names, name), wanted = [...chosen];
  wanted.push(...await shardNames(cache, commit, chosen));
  const present = await presentFiles(cache, commit, wanted);
  const missing = wanted.find((path) => !present.has(path));
  if (missing) fail(`the cache has no "${missing}" of it`);
  return resultOf(cache, commit, chosen);
}

const MOST_ATTEMPTS = 5;

async function download(
  hub: HubSettings,
  cache: RepoCache,
  repo: string,
  commit: string,
  files: readonly HubFile[],
): Promise<void> {
  const present = await presentFiles(cache, commit, files.map(({ path }) => path));
  const missing = files.filter(({ path }) => !present.has(path));
  if (missing.length === 0) return;
  const total = Math.ceil(missing.reduce((sum, { size }) => sum + size, 0) / 1e6);
  const bar = progress("downloading MB", total);
  let before = 0;
  try {
    for (const file of missing) {
      const advance = (done: number) => bar.update(Math.floor((before + done) / 1e6), file.path);
      await storeFile(cache, commit, file, fetcherOf(hub, repo, commit, file, advance));
      before += file.size;
    }
    bar.update(total, repo);
  } finally {
    bar.stop();
  }
}

/** Fetches with further attempts: each goes on where the last stopped, and only those count that brought nothing. */
function fetcherOf(
  hub: HubSettings,
  repo: string,
  commit: string,
  file: HubFile,
  advance: (done: number) => void,
): Parameters<typeof storeFile>[3] {
  let failures = 0;
  return async (offset, write, restart) => {
    let done = offset;
    try {
      const { start, chunks } = await bytesFrom(hub, repo, commit, file.path, offset);
      if (start !== offset) {
        restart();
        done = 0;
        if (start !== 0) throw new Unreachable(`"${file.path}" begins at byte ${start}, expected ${offset}`);
      }
      for await (const chunk of chunks) {
        write(chunk);
        advance(done += chunk.length);
        failures = 0;
      }
      if (done < file.size) {
        throw new Unreachable(`"${file.path}" ends at byte ${done}, expected ${file.size}`);
      }
    } catch (error) {
      if (!(error instanceof Unreachable) || ++failures >= MOST_ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, hub.retryMs * 2 ** (failures - 1)));
    }
  };
}
