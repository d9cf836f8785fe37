/**
 * The image in a request's body: raw, or the field "image" of a multipart form.
 * Counted while it arrives, whatever Content-Length says; too many bytes, too much time or another type are refused.
 */
import { messageOf } from "../core/errors.ts";
import { Problem } from "./problems.ts";

export interface BodyLimits {
  /** Of the image; a multipart body may be `MULTIPART_SLACK` longer. */
  bodyBytes: number;
  /** From the first byte to the last. */
  bodyMs: number;
}

export const IMAGE_TYPES = ["image/png", "image/jpeg", "image/webp"];
export const MULTIPART = "multipart/form-data";
const MULTIPART_SLACK = 16_384;

/** The image's bytes, at least one. @throws Problem for every way in which the body is not that */
export async function readImageBody(request: Request, limits: BodyLimits): Promise<Uint8Array<ArrayBuffer>> {
  const contentType = request.headers.get("content-type") ?? "";
  const mediaType = mediaTypeOf(request);
  if (mediaType !== MULTIPART && !IMAGE_TYPES.includes(mediaType)) {
    const expected = [...IMAGE_TYPES, MULTIPART].join(", ");
    throw new Problem(
      "media-type-unsupported",
      `Content-Type is "${mediaType}", expected one of ${expected}`,
      {
        "accept-post": expected,
      },
    );
  }
  const slack = mediaType === MULTIPART ? MULTIPART_SLACK : 0;
  const body = await readBounded(request, limits.bodyBytes + slack, limits.bodyMs);
  const image = mediaType === MULTIPART ? await imageField(body, contentType) : body;
  if (image.length === 0) throw new Problem("body-empty", "The body has no bytes, expected an image");
  if (image.length > limits.bodyBytes) throw tooLarge(limits.bodyBytes);
  return image;
}

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

export function tooLate(ms: number): Problem {
  return new Problem("body-timeout", `The body was not complete after ${ms / 1000} s`, {
    connection: "close",
  });
}

/** A whole body of at most `limit` bytes. @throws Problem "body-too-large", "body-timeout" or "request-cancelled" */
export async function readBounded(
  message: Request | Response,
  limit: number,
  timeoutMs: number,
): Promise<Uint8Array<ArrayBuffer>> {
  if (Number(message.headers.get("content-length") ?? 0) > limit) throw tooLarge(limit);
  if (!message.body) return new Uint8Array(0);
  const reader = message.body.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0, late = false;
  const timer = setTimeout(() => {
    late = true;
    reader.cancel().catch(() => {});
  }, timeoutMs);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (late) throw tooLate(timeoutMs);
      if (done) break;
      length += value.length;
      if (length > limit) {
        reader.cancel().catch(() => {});
        throw tooLarge(limit);
      }
      chunks.push(value);
    }
  } catch (thrown) {
    if (thrown instanceof Problem) throw thrown;
    throw new Problem("request-cancelled", "The body ended before it was complete", {}, thrown);
  } finally {
    clearTimeout(timer);
  }
  return joinChunks(chunks, length);
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

async function imageField(
  body: Uint8Array<ArrayBuffer>,
  contentType: string,
): Promise<Uint8Array<ArrayBuffer>> {
  let form: FormData;
  try {
    form = await new Response(body, { headers: { "content-type": contentType } }).formData();
  } catch (thrown) {
    throw new Problem("multipart-invalid", `The form cannot be read: ${messageOf(thrown)}`);
  }
  const field = form.get("image");
  if (!(field instanceof Blob)) {
    const why = field === null ? "is missing" : "is text, expected a file";
    throw new Problem("multipart-invalid", `The field "image" ${why}`);
  }
  return new Uint8Array(await field.arrayBuffer());
}
