/**
 * Whole bodies of requests and what their headers say of them.
 * Counted while they arrive, whatever Content-Length says; too many bytes, too much time or an encoding are refused.
 */
import { Problem } from "./problems.ts";

export const MULTIPART = "multipart/form-data";

/** The type without its parameters, in lower case. @throws Problem "media-type-unsupported" for an encoded body */
export function mediaTypeOf(request: Request): string {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new Problem("media-type-unsupported", `Content-Encoding is "${encoding}", expected none`);
  }
  return (request.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
}

export function tooLarge(limit: number): Problem {
  return new Problem("body-too-large", `The body has more than ${limit} bytes`, { connection: "close" });
}

function tooManyPieces(): Problem {
  const { pieces, bytes } = CRUMBS, close = { connection: "close" };
  return new Problem(
    "body-too-large",
    `The body comes in more than ${pieces} pieces, of under ${bytes} bytes on average`,
    close,
  );
}

export function tooLate(ms: number): Problem {
  return new Problem("body-timeout", `The body was not complete after ${ms / 1000} s`, {
    connection: "close",
  });
}

/** Each piece of a body costs a turn of the event loop: so many may be crumbs, which no network makes. */
const CRUMBS = { pieces: 10_000, bytes: 64 };

/** @throws Problem for a body that comes in crumbs */
export function refuseCrumbs(pieces: number, length: number): void {
  if (pieces > CRUMBS.pieces && length < pieces * CRUMBS.bytes) throw tooManyPieces();
}

/** A whole body of at most `limit` bytes. @throws Problem "body-too-large", "body-timeout" or "request-cancelled" */
export async function readBounded(
  message: Request | Response,
  limit: number,
  timeoutMs: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const declared = Number(message.headers.get("content-length") ?? 0);
  if (declared > limit) throw tooLarge(limit);
  if (!message.body) return new Uint8Array(0);
  const reader = message.body.getReader();
  // Copied as they come: a piece of one byte may hold a buffer of 64 kB.
  let bytes = new Uint8Array(declared > 0 ? declared : 65_536);
  let length = 0, pieces = 0, late = false;
  const timer = setTimeout(() => {
    late = true;
    reader.cancel().catch(() => {});
  }, timeoutMs);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (late) throw tooLate(timeoutMs);
      if (done) break;
      const end = length + value.length;
      if (end > limit) throw tooLarge(limit);
      refuseCrumbs(++pieces, end);
      if (end > bytes.length) {
        const larger = new Uint8Array(Math.max(end, Math.min(limit, 2 * bytes.length)));
        larger.set(bytes.subarray(0, length));
        bytes = larger;
      }
      bytes.set(value, length);
      length = end;
    }
  } catch (thrown) {
    reader.cancel().catch(() => {});
    if (thrown instanceof Problem) throw thrown;
    throw new Problem("request-cancelled", "The body ended before it was complete", {}, thrown);
  } finally {
    clearTimeout(timer);
  }
  return length === bytes.length ? bytes : bytes.slice(0, length);
}

/** `length` bytes in all, one after another. */
export function joinChunks(chunks: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

const DRAIN = { bytes: 65_536, ms: 1000 };

/**
 * Reads what a refused request still sends, if that is little: some hosts close a connection with unread bytes on it,
 * and the client's next request would meet the closed one.
 */
export async function drain(request: Request): Promise<void> {
  if (!request.body || request.bodyUsed) return;
  const length = Number(request.headers.get("content-length") ?? DRAIN.bytes);
  if (length <= DRAIN.bytes) await readBounded(request, DRAIN.bytes, DRAIN.ms).catch(() => {});
}
