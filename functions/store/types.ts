/**
 * Where the service finds its probes: a directory, a bucket, memory.
 * A store answers for finished probes only; what has no manifest does not exist.
 */
import type { StoredProbe } from "../../core/probe/stored.ts";

export interface ProbeStore {
  /** All finished probes, by id. */
  list(): Promise<StoredProbe[]>;
  get(id: string): Promise<StoredProbe | undefined>;
  /** Whether the store can be read now. */
  ready?(): Promise<boolean>;
}
