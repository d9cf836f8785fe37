/**
 * Errors as the service tells them: RFC 9457 problem documents with a stable `type`, a status and a sentence.
 * What is not a `Problem` or an input error becomes "/problems/internal", without its message or stack.
 */
import { InputError } from "../core/errors.ts";
import { ImageError } from "../core/image/image_error.ts";
import type { ProblemDocument } from "./schemas.ts";

/** Every problem this service gives, but for the image guard's own codes: those become "/problems/image-<code>". */
export const PROBLEMS = {
  "not-found": [404, "There is nothing at this address"],
  "probe-unknown": [404, "No such probe is stored"],
  "probe-id-invalid": [422, "This is not a probe id"],
  "bundle-unknown": [404, "No such version is stored"],
  "query-invalid": [422, "The query cannot be read"],
  "json-invalid": [422, "The JSON cannot be used"],
  "activations-invalid": [422, "These activations cannot be scored"],
  "bundle-invalid": [422, "This bundle cannot be stored"],
  "batch-too-long": [422, "The batch has too many images"],
  "key-missing": [401, "An API key is needed"],
  "key-invalid": [401, "The API key is not valid"],
  "scope-missing": [403, "The API key does not allow this"],
  "admin-closed": [403, "Stored probes cannot be changed over HTTP here"],
  "rate-limited": [429, "Too many requests"],
  "method-not-allowed": [405, "This address does not take this method"],
  "probe-fixed": [409, "This probe cannot be removed over HTTP"],
  "body-timeout": [408, "The body took too long to arrive"],
  "body-too-large": [413, "The body exceeds the size limit"],
  "media-type-unsupported": [415, "The body is of a type this address does not take"],
  "body-empty": [422, "The body is empty"],
  "multipart-invalid": [422, "The multipart body cannot be read"],
  "request-cancelled": [499, "The client went away"],
  "internal": [500, "The service failed"],
  "upstream-failed": [502, "The upstream host gave no usable answer"],
  "busy": [503, "The service is busy"],
  "not-ready": [503, "The service cannot answer now"],
  "model-not-served": [503, "This host does not serve the probe's model"],
  "encoder-unavailable": [503, "The encoder is not available"],
  "encoder-timeout": [504, "The encoder took too long"],
} as const satisfies Record<string, readonly [number, string]>;
export type ProblemName = keyof typeof PROBLEMS;

/** An answer that is a problem document; thrown anywhere below a route. */
export class Problem extends Error {
  override name = "Problem";
  constructor(
    readonly problem: ProblemName,
    readonly detail: string,
    readonly headers: Record<string, string> = {},
    cause?: unknown,
  ) {
    super(detail, { cause });
  }
}

/** The problem document of anything thrown, with the headers it asks for. */
export function describeProblem(
  thrown: unknown,
  requestId: string,
): { document: ProblemDocument; headers: Record<string, string> } {
  const of = (name: string, status: number, title: string, detail: string) => ({
    type: `/problems/${name}`,
    title,
    status,
    detail,
    request_id: requestId,
  });
  if (thrown instanceof Problem) {
    const [status, title] = PROBLEMS[thrown.problem];
    return { document: of(thrown.problem, status, title, thrown.detail), headers: thrown.headers };
  }
  if (thrown instanceof ImageError) {
    const status = thrown.code === "too-many-pixels" ? 413 : 422;
    const title = "This image is not taken";
    return { document: of(`image-${thrown.code}`, status, title, thrown.message), headers: {} };
  }
  // An InputError that is not about the picture is about what the host stores, which is no business of the client.
  const [status, title] = PROBLEMS.internal;
  const detail = thrown instanceof InputError
    ? "Something this host stores cannot be used; its log says more under this request id"
    : "The log says more under this request id";
  return { document: of("internal", status, title, detail), headers: {} };
}
