/**
 * Folders on the disk, as core's `Folder`: written by temporary file and rename, never half.
 * Refuses names that leave the folder.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { InputError } from "../core/errors.ts";
import { type ByteSource, checkName, type Folder } from "../core/formats/folder.ts";

/** Opens one file for reading at offsets. @throws InputError naming the file when it cannot be opened */
export async function openFile(path: string): Promise<ByteSource> {
  const file = await Deno.open(path).catch((error) => {
    throw new InputError(
      `Cannot open "${path}": ${error instanceof Deno.errors.NotFound ? "no such file" : error.message}`,
    );
  });
  const { size, isFile } = await file.stat();
  if (!isFile) {
    file.close();
    throw new InputError(`Cannot open "${path}": it is not a file`);
  }
  return {
    name: path,
    size,
    close: () => file.close(),
    async readAt(offset, length) {
      if (offset < 0 || offset + length > size) {
        throw new InputError(
          `Cannot read "${path}": bytes ${offset} to ${offset + length} asked, it has ${size}`,
        );
      }
      const out = new Uint8Array(length);
      file.seekSync(offset, Deno.SeekMode.Start);
      for (let done = 0; done < length;) {
        const n = file.readSync(out.subarray(done));
        if (n === null) throw new InputError(`Cannot read "${path}": it ended at byte ${offset + done}`);
        done += n;
      }
      return await Promise.resolve(out);
    },
  };
}

/** Writes a whole file through a temporary one beside it, so that a kill leaves the old file or the new. */
export async function writeFile(path: string, data: Uint8Array | string): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const partial = `${path}.${Deno.pid}.partial`;
  const file = await Deno.open(partial, { write: true, create: true, truncate: true });
  try {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(partial, path).catch(async (error) => {
    await Deno.remove(partial);
    throw error;
  });
}

/** Writes a file piece by piece, also through a temporary one, and returns its size and hash. */
export async function writeStream(
  path: string,
  chunks: AsyncIterable<Uint8Array<ArrayBuffer>>,
): Promise<{ bytes: number; sha256: string }> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const partial = `${path}.${Deno.pid}.partial`, hash = createHash("sha256");
  const file = await Deno.open(partial, { write: true, create: true, truncate: true });
  let bytes = 0;
  try {
    for await (const chunk of chunks) {
      for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
      hash.update(chunk);
      bytes += chunk.length;
    }
    await file.sync();
  } catch (error) {
    await Deno.remove(partial);
    throw error;
  } finally {
    file.close();
  }
  await Deno.rename(partial, path);
  return { bytes, sha256: hash.digest("hex") };
}

/** A folder on the disk; it need not exist before the first write. */
export class DiskFolder implements Folder {
  constructor(readonly path: string) {}

  #at = (name: string): string => join(this.path, checkName(name));
  open(name: string): Promise<ByteSource> {
    return openFile(this.#at(name));
  }
  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const path = this.#at(name);
    return await Deno.readFile(path).catch((error) => {
      throw new InputError(
        `Cannot open "${path}": ${error instanceof Deno.errors.NotFound ? "no such file" : error.message}`,
      );
    });
  }
  write(name: string, data: Uint8Array<ArrayBuffer> | string): Promise<void> {
    return writeFile(this.#at(name), data);
  }
  async exists(name: string): Promise<boolean> {
    return await Deno.stat(this.#at(name)).then((stat) => stat.isFile, () => false);
  }
  async list(): Promise<string[]> {
    const names: string[] = [];
    const walk = async (folder: string, prefix: string): Promise<void> => {
      for await (const entry of Deno.readDir(folder)) {
        if (entry.isDirectory) await walk(join(folder, entry.name), `${prefix}${entry.name}/`);
        else if (!entry.name.endsWith(".partial")) names.push(prefix + entry.name);
      }
    };
    await walk(this.path, "").catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    return names.sort();
  }
  async remove(name: string): Promise<void> {
    await Deno.remove(this.#at(name)).catch(() => {});
  }
  folder(name: string): Folder {
    return new DiskFolder(this.#at(name));
  }
}
