/**
 * A Cloudflare R2 bucket as a `Folder`; names become keys below a prefix. R2 replaces an object at once and reads are
 * consistent, so a reader never sees half of one; it refuses names that leave the prefix.
 */
import { InputError } from "../../core/errors.ts";
import { type ByteSource, checkName, type Folder } from "../../core/formats/folder.ts";

/** The part of R2's binding that is used here. */
export interface Bucket {
  head(key: string): Promise<{ size: number } | null>;
  get(
    key: string,
    options?: { range: { offset: number; length: number } },
  ): Promise<{ arrayBuffer(): Promise<ArrayBuffer> } | null>;
  list(options: { prefix: string; cursor?: string }): Promise<{
    objects: { key: string }[];
    truncated: boolean;
    cursor?: string;
  }>;
  put(key: string, data: Uint8Array<ArrayBuffer> | string): Promise<unknown>;
  delete(key: string): Promise<void>;
}

/** The folder of the keys that start with `prefix` ("" or one that ends in "/"). */
export function bucketFolder(bucket: Bucket, prefix = ""): Folder {
  const path = `bucket/${prefix}`;
  const key = (name: string): string => prefix + checkName(name);
  const missing = (name: string) => new InputError(`Cannot open "${path}${name}": no such object`);
  return {
    path,
    async open(name): Promise<ByteSource> {
      const object = await bucket.head(key(name));
      if (!object) throw missing(name);
      return {
        name: path + name,
        size: object.size,
        async readAt(offset, length) {
          const part = await bucket.get(key(name), { range: { offset, length } });
          if (!part) throw missing(name);
          return new Uint8Array(await part.arrayBuffer());
        },
        close: () => {},
      };
    },
    async read(name) {
      const object = await bucket.get(key(name));
      if (!object) throw missing(name);
      return new Uint8Array(await object.arrayBuffer());
    },
    write: async (name, data) => void await bucket.put(key(name), data),
    remove: async (name) => await bucket.delete(key(name)),
    exists: async (name) => await bucket.head(key(name)) !== null,
    async list() {
      const names: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await bucket.list({ prefix, cursor });
        names.push(...page.objects.map((object) => object.key.slice(prefix.length)));
        cursor = page.truncated ? page.cursor : undefined;
      } while (cursor !== undefined);
      return names.sort();
    },
    folder: (name) => bucketFolder(bucket, `${key(name)}/`),
  };
}
