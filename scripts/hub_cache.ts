/**
 * Hugging Face's cache on the disk: blobs by their hash, snapshots of links to them, refs from branches to commits.
 * A blob gets its name once its hash is right, so that no stop, disk or second process leaves a wrong one.
 */
import { createHash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { InputError, messageOf } from "../core/errors.ts";
import { writeFile } from "./folder.ts";
import type { HubFile } from "./hub_api.ts";

export interface RepoCache {
  /** models--org--name */
  readonly root: string;
  readonly locks: string;
}

export function repoCache(cache: string, repo: string): RepoCache {
  const name = `models--${repo.replaceAll("/", "--")}`;
  return { root: join(cache, name), locks: join(cache, ".locks", name) };
}

export const snapshotPath = ({ root }: RepoCache, commit: string): string => join(root, "snapshots", commit);
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);

/** The commit that the cache knows for a revision. */
export async function cachedCommit({ root }: RepoCache, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const text = await Deno.readTextFile(join(root, "refs", revision)).catch(() => "");
  return isCommit(text.trim()) ? text.trim() : undefined;
}

export async function writeRef({ root }: RepoCache, revision: string, commit: string): Promise<void> {
  if (revision !== commit) await writeFile(join(root, "refs", revision), commit);
}

const exists = (path: string): Promise<boolean> => Deno.stat(path).then(() => true, () => false);

/** Which of these files a snapshot has already. */
export async function presentFiles(
  cache: RepoCache,
  commit: string,
  names: readonly string[],
): Promise<Set<string>> {
  const found = new Set<string>();
  for (const name of names) if (await exists(join(snapshotPath(cache, commit), name))) found.add(name);
  return found;
}

/** Appends bytes from an offset to a file: what a download does. It may throw after having written some of them. */
export type Fetch = (start: number, write: (chunk: Uint8Array) => void, restart: () => void) => Promise<void>;

/** Puts one file into a snapshot, fetching what is not there. @throws InputError for a wrong hash or a full disk */
export async function storeFile(
  cache: RepoCache,
  commit: string,
  file: HubFile,
  fetch: Fetch,
): Promise<void> {
  const blob = join(cache.root, "blobs", file.hash), link = join(snapshotPath(cache, commit), file.path);
  await Deno.mkdir(dirname(blob), { recursive: true });
  await Deno.mkdir(cache.locks, { recursive: true });
  // The lock is Python's: both tools wait for each other, and the second finds the blob.
  const lock = await Deno.open(join(cache.locks, `${file.hash}.lock`), { create: true, write: true });
  try {
    await lock.lock(true);
    if (!await exists(blob)) await downloadBlob(blob, file, fetch);
    await linkTo(blob, link);
  } finally {
    lock.close();
  }
}

async function downloadBlob(blob: string, file: HubFile, fetch: Fetch): Promise<void> {
  const partial = `${blob}.incomplete`;
  for (let attempt = 0;; attempt++) {
    const { resumed, hash } = await writeBlob(partial, file, fetch);
    if (hash === file.hash) return await Deno.rename(partial, blob);
    await Deno.remove(partial);
    // The beginning may have been another tool's, or damaged; without one the source itself is wrong.
    if (!resumed || attempt > 0) {
      throw new InputError(`Cannot download "${file.path}": its hash is ${hash}, expected ${file.hash}`);
    }
  }
}

async function writeBlob(
  partial: string,
  file: HubFile,
  fetch: Fetch,
): Promise<{ resumed: boolean; hash: string }> {
  const out = await Deno.open(partial, { create: true, read: true, write: true });
  try {
    if ((await out.stat()).size > file.size) await out.truncate(0);
    let digest = digestOf(file), done = 0;
    const buffer = new Uint8Array(2 ** 20);
    for (let n = out.readSync(buffer); n !== null; n = out.readSync(buffer)) {
      digest.update(buffer.subarray(0, n));
      done += n;
    }
    const resumed = done > 0;
    await checkSpace(partial, file, file.size - done);
    const write = (chunk: Uint8Array) => {
      if (done + chunk.length > file.size) {
        throw new InputError(`Cannot download "${file.path}": it is longer than ${file.size} bytes`);
      }
      writeAll(out, chunk, file);
      digest.update(chunk);
      done += chunk.length;
    };
    const restart = () => {
      out.truncateSync(0);
      out.seekSync(0, Deno.SeekMode.Start);
      digest = digestOf(file);
      done = 0;
    };
    while (done < file.size) await fetch(done, write, restart);
    await out.sync();
    return { resumed, hash: digest.digest("hex") };
  } finally {
    out.close();
  }
}

function writeAll(out: Deno.FsFile, chunk: Uint8Array, file: HubFile): void {
  try {
    for (let done = 0; done < chunk.length;) done += out.writeSync(chunk.subarray(done));
  } catch (error) {
    throw new InputError(
      `Cannot write "${file.path}" into the cache: ${messageOf(error)}; what has arrived is kept`,
    );
  }
}

/** Large files are known by the sha256 of their bytes, others by git's sha1 of a header and the bytes. */
function digestOf({ hash, size }: HubFile) {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

async function checkSpace(path: string, file: HubFile, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  if (needed > bavail * bsize) {
    const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
    throw new InputError(
      `Cannot download "${file.path}": it needs ${mb(needed)}, "${dirname(path)}" has ${
        mb(bavail * bsize)
      } free`,
    );
  }
}

/** A relative link, so that the cache can be moved; a copy where the disk has no links. */
async function linkTo(blob: string, link: string): Promise<void> {
  if (await exists(link)) return;
  await Deno.mkdir(dirname(link), { recursive: true });
  await Deno.remove(link).catch(() => {}); // a link to a blob that is gone
  await Deno.symlink(relative(dirname(link), blob), link).catch(async (error) => {
    if (error instanceof Deno.errors.AlreadyExists) return;
    await Deno.copyFile(blob, link);
  });
}
