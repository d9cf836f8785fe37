/**
 * Activations of chosen sites, reduced on the device to one row a sample and read back once a pass.
 */
import { InputError } from "../core/errors.ts";
import { type EncodedSample, pack } from "../core/data/pack.ts";
import type { Gpu } from "./device.ts";
import { type Model, runModel } from "./models/model.ts";
import { Forward } from "./nn/forward.ts";
import { Tape } from "./tape.ts";
import { type TapRequest, Taps } from "./taps.ts";

/** Values of one feature ("site@reduction") for all samples, (n, dim). */
export interface FeatureRows {
  dim: number;
  data: Float32Array<ArrayBuffer>;
}

export interface ExtractOptions {
  /** Tokens that one pass packs at most. */
  microTokens?: number;
  signal?: AbortSignal;
  /** Samples done so far. */
  onProgress?: (done: number) => void;
}

/** @throws InputError for a site that does not exist, listing those that do, and for the reduction `all` */
export async function extract(
  gpu: Gpu,
  model: Model,
  count: number,
  sample: (index: number) => EncodedSample | Promise<EncodedSample>,
  requests: readonly TapRequest[],
  { microTokens = 4096, signal, onProgress }: ExtractOptions = {},
): Promise<Map<string, FeatureRows>> {
  if (requests.some(({ reduction }) => reduction === "all")) {
    throw new InputError(
      'Cannot extract with the reduction "all": samples differ in length; take one row a sample',
    );
  }
  const out = new Map<string, FeatureRows>();
  let done = 0;
  let carried: EncodedSample | undefined;
  while (done < count) {
    signal?.throwIfAborted();
    const group: EncodedSample[] = [];
    for (let tokens = 0; done + group.length < count;) {
      const next = carried ?? await sample(done + group.length);
      carried = undefined;
      if (group.length && tokens + next.ids.length > microTokens) {
        carried = next;
        break;
      }
      group.push(next);
      tokens += next.ids.length;
    }
    const batch = pack(group, {
      imageToken: model.imageToken,
      featuresOf: (image) => model.featuresOf(image),
      supervised: false,
    });
    using _scope = gpu.pool.scope();
    const taps = new Taps(requests, batch);
    runModel(new Forward(new Tape(gpu, false), taps), model, batch, true);
    for (const [feature, { shape, data }] of await taps.collect(gpu)) {
      const dim = shape[1];
      let rows = out.get(feature);
      if (!rows) out.set(feature, rows = { dim, data: new Float32Array(count * dim) });
      rows.data.set(data, done * dim);
    }
    done += group.length;
    onProgress?.(done);
  }
  return out;
}
