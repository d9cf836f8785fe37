/**
 * A probe store over any `Folder`: one probe folder per id, a disk or a bucket alike.
 * A probe is read and verified once and kept until its manifest changes; one whose id differs from its folder is refused.
 */
import { InputError } from "../../core/errors.ts";
import type { Folder } from "../../core/formats/folder.ts";
import { MANIFEST, sha256 } from "../../core/formats/manifest.ts";
import { loadProbe, type StoredProbe } from "../../core/probe/stored.ts";
import { probeIdSchema } from "../schemas.ts";
import type { ProbeStore } from "./types.ts";

/** The store of the probe folders directly below `root`. */
export function folderStore(root: Folder): ProbeStore {
  const kept = new Map<string, { hash: string; probe: StoredProbe }>();

  async function get(id: string): Promise<StoredProbe | undefined> {
    if (!probeIdSchema.safeParse(id).success) return undefined;
    const folder = root.folder(id);
    if (!await folder.exists(MANIFEST)) return undefined;
    const hash = await sha256(await folder.read(MANIFEST));
    const known = kept.get(id);
    if (known?.hash === hash) return known.probe;
    const probe = await loadProbe(folder);
    if (probe.id !== id) {
      throw new InputError(`Cannot serve "${folder.path}": its probe calls itself "${probe.id}"`);
    }
    kept.set(id, { hash, probe });
    return probe;
  }

  return {
    get,
    async list() {
      const names = (await root.list()).map((name) => name.split("/"));
      const ids = names.filter(([, file, deeper]) => file === MANIFEST && deeper === undefined)
        .map(([id]) => id).filter((id) => probeIdSchema.safeParse(id).success);
      const probes = await Promise.all(ids.map(get));
      return probes.filter((probe) => probe !== undefined);
    },
    async ready() {
      await root.list();
      return true;
    },
  };
}
