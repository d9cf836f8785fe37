/**
 * Questions to the hub over HTTP: what commit a revision is, which files it has, the bytes of one from an offset on.
 * Refusals (gated, private, missing) come as one line each; the token goes to the endpoint and follows no redirect away.
 */
import { z } from "zod";
import { InputError, messageOf } from "../core/errors.ts";
import type { HubSettings } from "./hub_settings.ts";

/** The hub cannot be reached, or not now: what is cached may do, and another attempt may succeed. */
export class Unreachable extends Error {
  override name = "Unreachable";
}

export interface HubFile {
  path: string;
  size: number;
  /** sha256 of the content where it is a large file, else the sha1 of git's blob. */
  hash: string;
}

const MOST_REDIRECTS = 5, STALL_MS = 60_000;

const commitSchema = z.looseObject({ sha: z.string().regex(/^[0-9a-f]{40}$/) });
const hash = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
const treeSchema = z.array(z.looseObject({
  type: z.string(),
  path: z.string(),
  size: z.int().min(0).optional(),
  oid: hash.optional(),
  lfs: z.looseObject({ oid: hash, size: z.int().min(0) }).nullish(),
}));

/** The commit that a branch, a tag or a commit's hash stands for. @throws InputError, Unreachable */
export async function commitOf(hub: HubSettings, repo: string, revision: string): Promise<string> {
  const url = `${hub.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}`;
  const response = await ask(hub, url, repo, revision);
  return (await jsonOf(response, commitSchema, repo)).sha;
}

/** All files of a commit. @throws InputError, Unreachable */
export async function filesOf(hub: HubSettings, repo: string, commit: string): Promise<HubFile[]> {
  const files: HubFile[] = [];
  let url: string | undefined = `${hub.endpoint}/api/models/${repo}/tree/${commit}?recursive=true`;
  while (url) {
    const response: Response = await ask(hub, url, repo, commit);
    const next = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
    for (const { type, path, size, oid, lfs } of await jsonOf(response, treeSchema, repo)) {
      const hash = lfs?.oid ?? oid, bytes = lfs?.size ?? size;
      if (type === "file" && hash !== undefined && bytes !== undefined) {
        files.push({ path, size: bytes, hash });
      }
    }
    url = next && new URL(next, hub.endpoint).href;
  }
  return files;
}

/** A file's bytes from `start` on, as far as the connection lasts; `start` says where the answer begins. */
export async function bytesFrom(
  hub: HubSettings,
  repo: string,
  commit: string,
  path: string,
  start: number,
): Promise<{ start: number; chunks: AsyncIterable<Uint8Array<ArrayBuffer>> }> {
  const url = `${hub.endpoint}/${repo}/resolve/${commit}/${
    path.split("/").map(encodeURIComponent).join("/")
  }`;
  const headers = { "accept-encoding": "identity", ...(start > 0 && { range: `bytes=${start}-` }) };
  const stall = new AbortController(), timer = setTimeout(() => stall.abort(), STALL_MS);
  const response = await ask(hub, url, repo, commit, headers, stall.signal).finally(() =>
    clearTimeout(timer)
  );
  if (!response.body) throw new Unreachable(`"${path}" came without a body`);
  // A host that knows no ranges sends the file from its beginning.
  const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  const begins = response.status === 206 && range ? Number(range[1]) : 0;
  return { start: begins, chunks: chunksOf(response.body, stall) };
}

async function* chunksOf(body: ReadableStream<Uint8Array<ArrayBuffer>>, stall: AbortController) {
  let timer = setTimeout(() => stall.abort(), STALL_MS);
  try {
    for await (const chunk of body) {
      clearTimeout(timer);
      yield chunk;
      timer = setTimeout(() => stall.abort(), STALL_MS);
    }
  } catch (error) {
    throw new Unreachable(stall.signal.aborted ? "no byte for a minute" : messageOf(error));
  } finally {
    clearTimeout(timer);
  }
}

/** One GET. Redirects are followed here, so that the token stays with the endpoint. */
async function ask(
  hub: HubSettings,
  url: string,
  repo: string,
  revision: string,
  headers: Record<string, string> = {},
  signal: AbortSignal = AbortSignal.timeout(STALL_MS),
): Promise<Response> {
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
    const trusted = new URL(url).origin === new URL(hub.endpoint).origin;
    const own: Record<string, string> = { ...headers, "user-agent": "afterimage" };
    if (trusted && hub.token) own.authorization = `Bearer ${hub.token}`;
    const response = await fetch(url, { headers: own, redirect: "manual", signal }).catch((error) => {
      throw new Unreachable(`"${new URL(url).origin}" does not answer: ${messageOf(error)}`);
    });
    const location = response.headers.get("location");
    if (response.status >= 300 && response.status < 400 && location) {
      await response.body?.cancel();
      url = new URL(location, url).href;
      continue;
    }
    if (response.ok) return response;
    await response.body?.cancel();
    throw refusal(hub, response, repo, revision);
  }
  throw new Unreachable(`more than ${MOST_REDIRECTS} redirects`);
}

/** What an answer other than 2xx means. The hub says it in a header, for 401 and 404 have several causes. */
function refusal(hub: HubSettings, { status, headers }: Response, repo: string, revision: string): Error {
  if (status === 408 || status === 416 || status === 429 || status >= 500) {
    return new Unreachable(`the hub answers ${status}`);
  }
  const code = headers.get("x-error-code");
  const why = () => {
    if (code === "GatedRepo") {
      return hub.token
        ? "it is gated, and the account of HF_TOKEN has not been given access"
        : "it is gated: accept its terms on the hub and set HF_TOKEN to a token of that account";
    }
    if (code === "RevisionNotFound") return `it has no revision "${revision}"`;
    if (code === "EntryNotFound") return "a file of it is missing";
    if (status === 401 || status === 403 || code === "RepoNotFound" || status === 404) {
      return hub.token
        ? "the hub has no such model, or the account of HF_TOKEN may not read it"
        : "the hub has no such model, or it is private and HF_TOKEN is not set";
    }
    return `the hub answers ${status}`;
  };
  return new InputError(`Cannot download "${repo}": ${why()}`);
}

async function jsonOf<T>(response: Response, schema: z.ZodType<T>, repo: string): Promise<T> {
  const text = await response.text().catch((error) => {
    throw new Unreachable(messageOf(error));
  });
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    throw new InputError(`Cannot download "${repo}": the answer of the hub is of another form than expected`);
  }
}
