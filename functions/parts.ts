/**
 * Long bodies as they arrive, piece by piece: the files of a multipart form, the lines of NDJSON.
 * Counted while they arrive; a body that stands still, is too long or does not parse ends with a problem.
 */
import {
  MultipartParseError,
  type MultipartPart,
  parseMultipart,
  type ParseMultipartOptions,
  parseMultipartStream,
} from "@remix-run/multipart-parser";
import { messageOf } from "../core/errors.ts";
import { joinChunks, mediaTypeOf, refuseCrumbs, tooLarge, tooLate } from "./body.ts";
import { Problem } from "./problems.ts";

export interface StreamLimits {
  /** Of the whole body. */
  totalBytes: number;
  /** Between one piece and the next. */
  idleMs: number;
}

/** The body's bytes. @throws Problem "body-too-large", "body-timeout" or "request-cancelled" */
export function boundedBody(
  request: Request,
  { totalBytes, idleMs }: StreamLimits,
): ReadableStream<Uint8Array> {
  if (Number(request.headers.get("content-length") ?? 0) > totalBytes) throw tooLarge(totalBytes);
  const reader = request.body?.getReader();
  let length = 0, pieces = 0;
  return new ReadableStream({
    async pull(controller) {
      if (!reader) return controller.close();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(tooLate(idleMs)), idleMs);
      });
      try {
        const { done, value } = await Promise.race([reader.read(), late]);
        if (done) return controller.close();
        length += value.length;
        if (length > totalBytes) throw tooLarge(totalBytes);
        refuseCrumbs(++pieces, length);
        // A copy: a piece of one byte may hold a buffer of 64 kB, and somebody may hold the piece.
        controller.enqueue(value.slice());
      } catch (thrown) {
        reader.cancel().catch(() => {});
        throw thrown instanceof Problem
          ? thrown
          : new Problem("request-cancelled", "The body ended before it was complete", {}, thrown);
      } finally {
        clearTimeout(timer);
      }
    },
    cancel: (reason) => reader?.cancel(reason),
  });
}

export interface Part {
  field: string;
  filename: string | null;
  bytes: Uint8Array<ArrayBuffer>;
}

export interface PartLimits {
  /** Of the whole form. */
  totalBytes: number;
  /** Of one part. */
  partBytes: number;
  parts: number;
}

/** The parts of a multipart form, each whole, in order. @throws Problem also "multipart-invalid" */
export async function* formParts(
  request: Request,
  limits: StreamLimits & PartLimits,
): AsyncGenerator<Part> {
  const options = optionsOf(request.headers.get("content-type") ?? "", limits);
  yield* plainParts(parseMultipartStream(boundedBody(request, limits), options));
}

/** The same of a form that has arrived already. @throws Problem "multipart-invalid" */
export async function* formPartsIn(
  body: Uint8Array,
  contentType: string,
  limits: PartLimits,
): AsyncGenerator<Part> {
  yield* plainParts(parseMultipart(body, optionsOf(contentType, limits)));
}

function optionsOf(contentType: string, { partBytes, parts, totalBytes }: PartLimits): ParseMultipartOptions {
  const boundary = /boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType);
  if (!boundary) throw new Problem("multipart-invalid", "Its Content-Type names no boundary");
  return {
    boundary: boundary[1] ?? boundary[2],
    maxFileSize: partBytes,
    maxParts: parts,
    maxTotalSize: totalBytes,
  };
}

async function* plainParts(
  parts: Iterable<MultipartPart> | AsyncIterable<MultipartPart>,
): AsyncGenerator<Part> {
  try {
    for await (const part of parts) {
      yield {
        field: part.name ?? "",
        filename: part.filename ?? null,
        bytes: part.bytes as Uint8Array<ArrayBuffer>,
      };
    }
  } catch (thrown) {
    if (!(thrown instanceof MultipartParseError)) throw thrown;
    // What follows the last boundary means nothing (RFC 2046, 5.1.1).
    if (thrown.message.startsWith("Unexpected data after end")) return;
    throw new Problem("multipart-invalid", `The form cannot be read: ${messageOf(thrown)}`);
  }
}

/** The lines of a body; one longer than `lineBytes` is given as undefined, and the next ones are still read. */
export async function* bodyLines(
  request: Request,
  limits: StreamLimits & { lineBytes: number },
): AsyncGenerator<Uint8Array | undefined> {
  const NEWLINE = 10;
  let held: Uint8Array[] = [], length = 0, long = false;
  const take = () => {
    const line = long ? undefined : joinChunks(held, length);
    [held, length, long] = [[], 0, false];
    return line;
  };
  for await (const chunk of boundedBody(request, limits)) {
    for (let at = 0; at < chunk.length;) {
      const end = chunk.indexOf(NEWLINE, at), to = end < 0 ? chunk.length : end;
      length += to - at;
      if (length > limits.lineBytes) [held, long] = [[], true];
      else held.push(chunk.subarray(at, to));
      if (end < 0) break;
      yield take();
      at = end + 1;
    }
  }
  if (length > 0) yield take();
}

/** @throws Problem "media-type-unsupported" for another type than these, or a body with a content encoding */
export function expectType(request: Request, types: readonly string[]): string {
  const type = mediaTypeOf(request), expected = types.join(", ");
  if (types.includes(type)) return type;
  throw new Problem("media-type-unsupported", `Content-Type is "${type}", expected one of ${expected}`, {
    "accept-post": expected,
  });
}
