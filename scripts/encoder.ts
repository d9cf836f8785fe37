/**
 * The service's encoder on WebGPU: opened models by hash, one pass a picture, the pooled activations read back.
 * A probe of a model that is not open here is refused.
 */
import { parseFeature } from "../core/probe/activations.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import type { Picture } from "../core/image/picture.ts";
import type { Encoder } from "../functions/encoder.ts";
import { Problem } from "../functions/problems.ts";
import { DeviceLost } from "../gpu/device.ts";
import { extract } from "../gpu/extract.ts";
import type { Session } from "../gpu/session.ts";

export interface OpenModel {
  session: Session;
  /** The hash of the run's manifest, or null for the model as it is. */
  adapter: string | null;
}

/** Activations of the probe's features on one picture, under the probe's prompt. */
export async function encodePicture(
  session: Session,
  probe: StoredProbe,
  picture: Picture,
  signal?: AbortSignal,
): Promise<Record<string, Float32Array>> {
  const requests = probe.layers.map(({ feature }) => parseFeature(feature));
  const sample = session.encoder.ask("picture", probe.prompt, [picture]);
  const features = await extract(session.gpu, session.model, 1, () => sample, requests, { signal });
  return Object.fromEntries([...features].map(([feature, { data }]) => [feature, data]));
}

/** @param models what this host serves */
export function createGpuEncoder(models: readonly OpenModel[]): Encoder {
  return {
    async activations(probe, image, signal) {
      const open = models.find(({ session, adapter }) =>
        session.hash === probe.model.hash && adapter === probe.model.adapter
      );
      if (!open) {
        throw new Problem(
          "model-not-served",
          `This host does not serve the model "${probe.model.name}" with the adapter ${probe.model.adapter}`,
        );
      }
      try {
        return await encodePicture(open.session, probe, image, signal);
      } catch (thrown) {
        if (!(thrown instanceof DeviceLost)) throw thrown;
        throw new Problem(
          "encoder-unavailable",
          "The device is gone; this host must be restarted",
          {},
          thrown,
        );
      }
    },
  };
}
