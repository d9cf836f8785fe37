/**
 * A folder of files behind one small interface, so that a disk, a bucket and memory look alike.
 * Writers replace whole files at once: a reader never sees half of one.
 */
import { InputError } from "../errors.ts";

/** Random access to bytes: a file, an object in a bucket, a range of HTTP. No caller needs the whole of it. */
export interface ByteSource {
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes from `offset`. @throws InputError past the end */
  readAt(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Gives back what the source holds (a file handle); reading after it fails. */
  close(): void;
}

/** Names are relative, with "/" between parts; a name that leaves the folder is refused. */
export interface Folder {
  /** What to call this folder in messages. */
  readonly path: string;
  /** @throws InputError when there is no such file */
  open(name: string): Promise<ByteSource>;
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Writes the whole file atomically, making parent folders. */
  write(name: string, data: Uint8Array<ArrayBuffer> | string): Promise<void>;
  exists(name: string): Promise<boolean>;
  /** All file names below this folder, sorted. */
  list(): Promise<string[]>;
  remove(name: string): Promise<void>;
  folder(name: string): Folder;
}

/** @throws InputError for a name that is absolute, empty or climbs out of its folder */
export function checkName(name: string): string {
  const parts = name.split("/");
  if (
    name === "" || name.includes("\\") || name.includes("\0") ||
    parts.some((part) => ["", ".", ".."].includes(part))
  ) {
    throw new InputError(
      `Cannot use the file name "${name}": it must be relative and stay inside its folder`,
    );
  }
  return name;
}

/** Bytes in memory as a source. */
export function bytesSource(name: string, bytes: Uint8Array<ArrayBuffer>): ByteSource {
  return {
    name,
    size: bytes.length,
    readAt: (offset, length) => {
      if (offset < 0 || offset + length > bytes.length) {
        return Promise.reject(
          new InputError(
            `Cannot read "${name}": bytes ${offset} to ${offset + length} asked, it has ${bytes.length}`,
          ),
        );
      }
      return Promise.resolve(bytes.slice(offset, offset + length));
    },
    close: () => {},
  };
}

/** A folder in memory: for tests and for artifacts that never touch a disk. */
export class MemoryFolder implements Folder {
  constructor(
    readonly path = "memory",
    readonly files = new Map<string, Uint8Array<ArrayBuffer>>(),
    readonly prefix = "",
  ) {}

  #get(name: string): Uint8Array<ArrayBuffer> {
    const bytes = this.files.get(this.prefix + checkName(name));
    if (!bytes) throw new InputError(`Cannot open "${this.path}/${name}": no such file`);
    return bytes;
  }
  open(name: string): Promise<ByteSource> {
    return Promise.resolve().then(() => bytesSource(`${this.path}/${name}`, this.#get(name)));
  }
  read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return Promise.resolve().then(() => this.#get(name).slice());
  }
  write(name: string, data: Uint8Array<ArrayBuffer> | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data.slice();
    this.files.set(this.prefix + checkName(name), bytes as Uint8Array<ArrayBuffer>);
    return Promise.resolve();
  }
  exists(name: string): Promise<boolean> {
    return Promise.resolve(this.files.has(this.prefix + checkName(name)));
  }
  list(): Promise<string[]> {
    const names = [...this.files.keys()].filter((name) => name.startsWith(this.prefix));
    return Promise.resolve(names.map((name) => name.slice(this.prefix.length)).sort());
  }
  remove(name: string): Promise<void> {
    this.files.delete(this.prefix + checkName(name));
    return Promise.resolve();
  }
  folder(name: string): Folder {
    return new MemoryFolder(`${this.path}/${name}`, this.files, `${this.prefix}${checkName(name)}/`);
  }
}

/** A JSON file, parsed. @throws InputError naming the file when it is missing or no JSON */
export async function readJson(folder: Folder, name: string): Promise<unknown> {
  const text = new TextDecoder().decode(await folder.read(name));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read "${folder.path}/${name}": ${(error as Error).message}`);
  }
}
