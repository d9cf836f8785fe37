/**
 * The pictures that `deno task check` is to look at: of a folder, of a pattern, or of a list on standard input.
 * It reads names only, and refuses a selection without any picture, which would make a check clean that checked nothing.
 */
import { glob } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";

const PICTURE = /\.(png|jpe?g|webp)$/i;

/** Paths in order, each once. @throws InputError when there is none */
export async function picturePaths(
  selections: readonly string[],
  stdin: ReadableStream<Uint8Array<ArrayBuffer>> = Deno.stdin.readable,
): Promise<string[]> {
  const found = new Set<string>();
  for (const selection of selections) {
    const paths = selection === "-" ? await listed(stdin) : await selected(selection);
    if (paths.length === 0) {
      throw new InputError(`Cannot check "${selection}": it names no PNG, JPEG or WebP file`);
    }
    for (const path of paths) found.add(path);
  }
  return [...found];
}

/** One path a line. */
async function listed(stdin: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string[]> {
  const text = await new Response(stdin).text();
  return text.split(/\r?\n/).filter((line) => line !== "");
}

async function selected(selection: string): Promise<string[]> {
  const info = await Deno.stat(selection).catch(() => undefined);
  if (!info && !/[*?[\]{}!]/.test(selection)) {
    throw new InputError(`Cannot check "${selection}": there is no such file or folder`);
  }
  if (info?.isFile) return [selection]; // whatever it is called: the service tells by content
  const paths: string[] = [];
  if (info?.isDirectory) { for await (const path of below(selection)) paths.push(path); }
  else for await (const path of glob(selection)) if (PICTURE.test(path)) paths.push(path);
  return paths.sort();
}

async function* below(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) yield* below(path);
    else if (PICTURE.test(name)) yield path;
  }
}
