/**
 * The body of a PUT: a bundle's files as a multipart form, their names as field or file names, the manifest first;
 * or JSON that names a version which is stored already. It refuses other types and what exceeds the limits.
 */
import { issueOf, messageOf } from "../core/errors.ts";
import { mediaTypeOf, MULTIPART, readBounded } from "./body.ts";
import { expectType, formParts } from "./parts.ts";
import { Problem } from "./problems.ts";
import { aliasSchema } from "./schemas.ts";
import type { UploadedFile } from "./store/types.ts";

const JSON_TYPE = "application/json", JSON_BYTES = 10_000, MOST_PARTS = 65;

export interface BundleLimits {
  bundleBytes: number;
  bodyMs: number;
}

/** The version that a JSON body names; undefined for a form. @throws Problem */
export async function readAlias(request: Request, { bodyMs }: BundleLimits): Promise<string | undefined> {
  expectType(request, [MULTIPART, JSON_TYPE]);
  if (mediaTypeOf(request) === MULTIPART) return undefined;
  const text = new TextDecoder().decode(await readBounded(request, JSON_BYTES, bodyMs));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw new Problem("json-invalid", `The body is no JSON: ${messageOf(thrown)}`);
  }
  const parsed = aliasSchema.safeParse(value);
  if (!parsed.success) throw new Problem("json-invalid", issueOf(parsed.error));
  return parsed.data.bundle;
}

/** The files of a form as they arrive. */
export async function* bundleFiles(request: Request, limits: BundleLimits): AsyncGenerator<UploadedFile> {
  const { bundleBytes: totalBytes, bodyMs: idleMs } = limits;
  const bounds = { totalBytes: totalBytes + 100_000, idleMs, partBytes: totalBytes, parts: MOST_PARTS };
  for await (const { field, bytes } of formParts(request, bounds)) yield { name: field, bytes };
}
