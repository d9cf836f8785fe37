/**
 * The image in a request's body: raw, or the field "image" of a multipart form.
 * Refuses an empty one, too many bytes, another type, and a form of many parts, which would take seconds to read.
 */
import { mediaTypeOf, MULTIPART, readBounded, tooLarge } from "./body.ts";
import { formPartsIn, type Part } from "./parts.ts";
import { Problem } from "./problems.ts";

export interface ImageBodyLimits {
  /** Of the image; a multipart body may be `MULTIPART_SLACK` longer. */
  bodyBytes: number;
  /** From the first byte to the last. */
  bodyMs: number;
}

export const IMAGE_TYPES = ["image/png", "image/jpeg", "image/webp"];
const MULTIPART_SLACK = 16_384, MOST_PARTS = 16;

/** The image's bytes, at least one. @throws Problem for every way in which the body is not that */
export async function readImageBody(
  request: Request,
  limits: ImageBodyLimits,
): Promise<Uint8Array<ArrayBuffer>> {
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

/** The first part called "image"; the others are read too, since a form that breaks off is no form. */
async function imageField(
  body: Uint8Array<ArrayBuffer>,
  contentType: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const limits = { totalBytes: body.length, partBytes: body.length, parts: MOST_PARTS };
  let image: Part | undefined;
  for await (const part of formPartsIn(body, contentType, limits)) {
    if (part.field === "image") image ??= part;
  }
  if (image && image.filename !== null) return image.bytes;
  const why = image ? "is text, expected a file" : "is missing";
  throw new Problem("multipart-invalid", `The field "image" ${why}`);
}
