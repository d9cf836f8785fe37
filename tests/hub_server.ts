/**
 * A hub in the test's own process: models in memory, large files on a second port as on a content network. It counts
 * what is asked of it, and can break connections, ignore ranges, send wrong bytes and refuse.
 */
import { createHash } from "node:crypto";

export interface Asked {
  /** "hub" or "files". */
  port: string;
  path: string;
  range: string | null;
  authorization: string | null;
}

export interface Trouble {
  /** Bytes after which the next answers with large files break off. */
  breakAfter?: number[];
  ignoreRanges?: boolean;
  /** Milliseconds before an answer with a large file. */
  delay?: number;
  /** The first byte of large files is another one. */
  wrongBytes?: boolean;
  /** What every question gets instead of an answer. */
  refuse?: { status: number; code?: string };
}

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const LARGE = /\.(safetensors|bin|gguf)$/;

export interface FakeHub extends AsyncDisposable {
  endpoint: string;
  asked: Asked[];
  trouble: Trouble;
  /** Entries put into the list of files as they are. */
  forged: unknown[];
}

export function hashOf(name: string, bytes: Uint8Array): string {
  if (LARGE.test(name)) return createHash("sha256").update(bytes).digest("hex");
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** Serves one model, whose `main` is COMMIT, under any name. */
export function fakeHub(files: Record<string, Uint8Array<ArrayBuffer> | string>): FakeHub {
  const contents = new Map(
    Object.entries(files).map(([name, content]) => [
      name,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    ]),
  );
  const asked: Asked[] = [], forged: unknown[] = [], state: { trouble: Trouble } = { trouble: {} };
  const note = (port: string, request: Request) => {
    const { pathname, search } = new URL(request.url);
    const { headers } = request;
    asked.push({
      port,
      path: decodeURIComponent(pathname) + search,
      range: headers.get("range"),
      authorization: headers.get("authorization"),
    });
  };
  const listen = { hostname: "127.0.0.1", port: 0, onListen: () => {} };

  const storage = Deno.serve(listen, async (request) => {
    note("files", request);
    if (state.trouble.delay) await new Promise((resolve) => setTimeout(resolve, state.trouble.delay));
    const name = decodeURIComponent(new URL(request.url).pathname).slice(1);
    return answer(contents.get(name)!, request.headers.get("range"), state.trouble);
  });
  const hub = Deno.serve(listen, (request) => {
    note("hub", request);
    const { refuse } = state.trouble;
    if (refuse) {
      return new Response("no", {
        status: refuse.status,
        headers: refuse.code ? { "x-error-code": refuse.code } : {},
      });
    }
    const { pathname, searchParams } = new URL(request.url);
    const [, revision] = /^\/api\/models\/[^/]+\/[^/]+\/revision\/(.+)$/.exec(pathname) ?? [];
    if (revision) {
      const known = ["main", "v1%2Fa", COMMIT].includes(revision);
      if (known) return Response.json({ id: "org/name", sha: COMMIT });
      return new Response("no", { status: 404, headers: { "x-error-code": "RevisionNotFound" } });
    }
    if (pathname.includes("/tree/")) {
      const entries = [...contents].map(([path, bytes]) => entryOf(path, bytes));
      const half = Math.ceil(entries.length / 2), second = searchParams.has("cursor");
      const next = `<${new URL(request.url).origin}${pathname}?recursive=true&cursor=2>; rel="next"`;
      return Response.json(second ? [...entries.slice(half), ...forged] : entries.slice(0, half), {
        headers: second ? {} : { link: next },
      });
    }
    const name = /^\/[^/]+\/[^/]+\/resolve\/[0-9a-f]+\/(.+)$/.exec(pathname)?.[1] ?? "";
    const bytes = contents.get(decodeURIComponent(name));
    if (!bytes) return new Response("no", { status: 404, headers: { "x-error-code": "EntryNotFound" } });
    const etag = `"${hashOf(name, bytes)}"`, commit = { "x-repo-commit": COMMIT };
    if (!LARGE.test(name)) return new Response(bytes, { headers: { ...commit, etag } });
    const location = `http://127.0.0.1:${storage.addr.port}/${name}`;
    const linked = { "x-linked-etag": etag, "x-linked-size": String(bytes.length) };
    return new Response(null, { status: 302, headers: { location, ...commit, ...linked } });
  });
  return {
    endpoint: `http://127.0.0.1:${hub.addr.port}`,
    asked,
    forged,
    get trouble() {
      return state.trouble;
    },
    set trouble(trouble) {
      state.trouble = trouble;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([hub.shutdown(), storage.shutdown()]);
    },
  };
}

function entryOf(path: string, bytes: Uint8Array) {
  const hash = hashOf(path, bytes), size = bytes.length;
  if (!LARGE.test(path)) return { type: "file", path, size, oid: hash };
  return { type: "file", path, size, oid: "0".repeat(40), lfs: { oid: hash, size, pointerSize: 130 } };
}

function answer(bytes: Uint8Array<ArrayBuffer>, range: string | null, trouble: Trouble): Response {
  const start = trouble.ignoreRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const part = bytes.slice(start);
  if (trouble.wrongBytes && start === 0) part[0] ^= 1;
  const headers: Record<string, string> = start > 0
    ? { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` }
    : {};
  const bytesSent = trouble.breakAfter?.shift();
  if (bytesSent === undefined) return new Response(part, { status: start > 0 ? 206 : 200, headers });
  const body = new ReadableStream({
    async start(controller) {
      controller.enqueue(part.slice(0, bytesSent));
      await new Promise((resolve) => setTimeout(resolve, 50)); // so that they are on their way
      controller.error(new Error("broken on purpose"));
    },
  });
  return new Response(body, { status: start > 0 ? 206 : 200, headers });
}
