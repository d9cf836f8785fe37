/**
 * What can be wrong with an image file, as codes that callers branch on and that never change.
 * Every refusal of the guard and the decoders is one of these, and none comes without the image's name.
 */
import { InputError } from "../errors.ts";

export type ImageErrorCode =
  | "unknown-format"
  | "truncated"
  | "malformed"
  | "too-many-pixels"
  | "too-many-scans"
  | "animated"
  | "cmyk"
  | "unsupported"
  | "undecodable";

/** An image file that is refused; `code` is stable, `reason` is the message without the image's name. */
export class ImageError extends InputError {
  override name = "ImageError";
  constructor(readonly code: ImageErrorCode, readonly reason: string, image = "image") {
    super(`Cannot read "${image}": ${reason}`);
  }
}
