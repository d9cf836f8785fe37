/**
 * The encoder on this machine: a base model and fine-tuning runs of it on WebGPU, each opened when a probe first asks.
 * It refuses probes that were fitted on another model or on a run that it was not given.
 */
import { InputError, messageOf } from "../core/errors.ts";
import type { Folder } from "../core/formats/folder.ts";
import { readManifest } from "../core/formats/manifest.ts";
import type { Picture } from "../core/image/picture.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import type { Encoder } from "../functions/encoder.ts";
import { Problem } from "../functions/problems.ts";
import { DeviceLost, type Gpu } from "../gpu/device.ts";
import { extract } from "../gpu/extract.ts";
import { openRun, openSession, type Session } from "../gpu/session.ts";

/** The activations that a probe reads, of one picture under the probe's prompt: feature -> (dim). */
export async function encodePicture(
  session: Session,
  probe: Pick<StoredProbe, "prompt" | "layers">,
  picture: Picture,
  signal?: AbortSignal,
): Promise<Record<string, Float32Array>> {
  const sample = session.encoder.ask("image", probe.prompt, picture);
  const requests = probe.layers.map(({ site, reduction }) => ({ site, reduction }));
  const rows = await extract(session.gpu, session.model, 1, () => sample, requests, { signal });
  return Object.fromEntries(Array.from(rows, ([feature, { data }]) => [feature, data]));
}

/**
 * An encoder over a base model and any number of its runs. A probe's `model.adapter` is the sha256 of its run's
 * manifest, or null for the base model.
 * @throws InputError for a folder that is no finished run
 */
export async function gpuEncoder(gpu: Gpu, base: Folder, runs: Folder[]): Promise<Encoder> {
  const byHash = new Map<string | null, Folder>();
  for (const run of runs) byHash.set((await readManifest(run, "run")).hash, run);
  const open = new Map<string | null, Promise<Session>>();
  const session = (adapter: string | null): Promise<Session> => {
    const run = byHash.get(adapter);
    if (adapter !== null && !run) {
      throw new Problem(
        "model-not-served",
        `This host was not given the run ${adapter} that the probe was fitted on`,
      );
    }
    const known = open.get(adapter) ?? (run ? openRun(gpu, base, run) : openSession(gpu, base));
    open.set(adapter, known);
    known.catch(() => open.delete(adapter)); // the next request tries again
    return known;
  };
  return {
    async activations(probe, image, signal) {
      try {
        const opened = await session(probe.model.adapter);
        if (opened.hash !== probe.model.hash) {
          const detail =
            `This host serves the model ${opened.hash}, the probe was fitted on ${probe.model.hash}`;
          throw new Problem("model-not-served", detail);
        }
        return await encodePicture(opened, probe, image, signal);
      } catch (thrown) {
        if (thrown instanceof DeviceLost) {
          throw new Problem(
            "encoder-unavailable",
            "The device is gone; this host must be restarted",
            {},
            thrown,
          );
        }
        if (thrown instanceof InputError) {
          throw new Problem("encoder-unavailable", "The model cannot be used here", {}, messageOf(thrown));
        }
        throw thrown;
      }
    },
  };
}
