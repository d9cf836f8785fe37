/**
 * Where the service finds its probes: a directory, a bucket, memory.
 * A store answers for finished probes only; what has no manifest does not exist.
 */
import type { EncoderSpec } from "../../core/probe/bundle.ts";
import type { Folder } from "../../core/formats/folder.ts";
import type { StoredProbe } from "../../core/probe/stored.ts";

/** A probe as it is served: under the id that was asked for, with what its bundle says of the encoder. */
export interface ServedProbe extends StoredProbe {
  /** The sha256 of its manifest: the version. */
  bundle: string;
  encoder: EncoderSpec;
  /** Where the encoder's file lies. */
  folder: Folder;
}

/** A file of an upload, as it arrives. */
export interface UploadedFile {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

export interface ProbeStore {
  /** All finished probes, by id. */
  list(): Promise<ServedProbe[]>;
  get(id: string): Promise<ServedProbe | undefined>;
  /** Throws when the store cannot be read now. */
  ready(): Promise<void>;
  /**
   * Stores a bundle whose manifest comes first, and lets `id` stand for it from then on.
   * @throws InputError for a bundle that is not whole or not what it says; the id then stands for what it did
   */
  put(id: string, files: AsyncIterable<UploadedFile>): Promise<Moved>;
  /** Lets `id` stand for a version that is stored already; undefined when it is not. */
  move(id: string, bundle: string): Promise<Moved | undefined>;
  /** Forgets the id; its version stays. False when there was none. */
  remove(id: string): Promise<boolean>;
}

export interface Moved {
  bundle: string;
  previous: string | null;
}
