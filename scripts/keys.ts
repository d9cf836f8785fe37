/**
 * The file of API keys on a Deno host: hashes and scopes, read again when it changes, so that keys rotate without a stop.
 * Refuses a file that is no list of keys or that anybody may write; while it cannot be read, the keys read last stay valid.
 */
import { InputError } from "../core/errors.ts";
import { keyFileSchema, type KeyRecord, type KeySource } from "../functions/auth.ts";
import { writeFile } from "./folder.ts";

/** The file's records; none when there is no file. @throws InputError naming the field that is wrong */
export async function readKeys(path: string): Promise<KeyRecord[]> {
  let text: string, mode: number | null;
  try {
    text = await Deno.readTextFile(path);
    mode = (await Deno.stat(path)).mode;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw new InputError(`Cannot read the keys "${path}": ${(error as Error).message}`);
  }
  if (mode !== null && mode & 0o002) {
    const octal = (mode & 0o777).toString(8);
    throw new InputError(
      `Cannot read the keys "${path}": anybody may write it (mode ${octal}); chmod it to 600`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read the keys "${path}": ${(error as Error).message}`);
  }
  const parsed = keyFileSchema.safeParse(value);
  if (parsed.success) return parsed.data.keys;
  const { path: field, message } = parsed.error.issues[0];
  throw new InputError(`Cannot read the keys "${path}": field "${field.join(".")}": ${message}`);
}

/** Replaces the file at once; only its owner may read it. */
export async function writeKeys(path: string, keys: readonly KeyRecord[]): Promise<void> {
  await writeFile(path, JSON.stringify({ keys }, null, 1) + "\n");
  if (Deno.build.os !== "windows") await Deno.chmod(path, 0o600);
}

/** The file as a source of keys, looked at again at most every `everyMs`. */
export async function keysInFile(path: string, everyMs = 1000): Promise<KeySource> {
  let byId = new Map((await readKeys(path)).map((record) => [record.id, record])), checked = Date.now();
  return async (id) => {
    if (Date.now() - checked >= everyMs) {
      checked = Date.now();
      try {
        byId = new Map((await readKeys(path)).map((record) => [record.id, record]));
      } catch (error) {
        console.error((error as Error).message);
      }
    }
    return byId.get(id);
  };
}
