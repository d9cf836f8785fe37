/**
 * The one error class a caller branches on: the input is wrong, not the program.
 * Scripts print its message alone and exit with 2; the service answers it with a 4xx problem.
 */
export class InputError extends Error {
  override name = "InputError";
}

/** A stop asked for by the user (Ctrl-C) or by a lost device, after what was done has been saved. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** The first thing that a schema finds wrong, in a line: `field "files.a.sha256": Invalid input`. */
export function issueOf({ issues: [{ path, message }] }: {
  issues: readonly { path: readonly PropertyKey[]; message: string }[];
}): string {
  return path.length === 0 ? message : `field "${path.map(String).join(".")}": ${message}`;
}

/** The message of anything thrown, also of the numbers and strings that some wasm decoders throw. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
