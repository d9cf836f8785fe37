/**
 * From an image's bytes to the service's answer: guard, turn in the queue, decoder, encoder, probe, decision.
 * It refuses images as the guard does, and activations that are not the probe's.
 */
import { sha256 } from "../core/formats/manifest.ts";
import { decodeGuarded } from "../core/image/codecs.ts";
import { guardImage } from "../core/image/guard.ts";
import { decide, decideLayers, type FalseAlarms } from "../core/probe/decide.ts";
import { scoreProbe, type StoredProbe } from "../core/probe/stored.ts";
import type { Encoder, ReceivedImage } from "./encoder.ts";
import type { Metrics } from "./metrics.ts";
import { Problem } from "./problems.ts";
import type { Place } from "./queue.ts";
import type { ActivationScores, LayerScore, Score } from "./schemas.ts";
import type { ServedProbe } from "./store/types.ts";

export type Activations = Record<string, Float32Array<ArrayBuffer>>;

export interface ImageLimits {
  pixels: number;
  scans: number;
  /** From the request's turn to its activations, the wait in the queue included. */
  encodeMs: number;
}

/** An image on its way: the bytes it came in, the place it holds, and the signal of the client that waits. */
export interface Work {
  bytes: Uint8Array<ArrayBuffer>;
  place: Place;
  signal: AbortSignal;
}

export interface Encoded {
  image: ReceivedImage;
  activations: Activations;
  /** Milliseconds. */
  decode: number;
  encode: number;
}

export interface Scorer {
  /** What the model makes of an image. @throws ImageError or Problem */
  encode(probe: ServedProbe, work: Work): Promise<Encoded>;
  score(probe: ServedProbe, fpr: FalseAlarms, work: Work): Promise<Score>;
  /** The scores of activations that the caller brought, a row each. */
  rows(probe: ServedProbe, fpr: FalseAlarms, rows: readonly Activations[]): ActivationScores;
}

export function createScorer(encoder: Encoder, limits: ImageLimits, metrics: Metrics): Scorer {
  async function encode(probe: ServedProbe, { bytes, place, signal: client }: Work): Promise<Encoded> {
    const bounds = { maxPixels: limits.pixels, maxScans: limits.scans, name: "image" };
    const header = guardImage(bytes, bounds); // before the turn: hostile files wait for nothing
    // A timer of our own: AbortSignal.timeout would keep the image in memory until its time is over.
    const late = new AbortController(), timer = setTimeout(() => late.abort(), limits.encodeMs);
    const signal = AbortSignal.any([client, late.signal]);
    try {
      // Decoded in its turn, so that pictures that wait are held as files.
      return await place.run(async () => {
        const start = performance.now();
        const image: ReceivedImage = { ...await decodeGuarded(bytes, header, bounds.name), bytes };
        const decoded = performance.now();
        const activations = checked(probe, await encoder.activations(probe, image, signal));
        const encode = performance.now() - decoded;
        metrics.encoded(encode / 1000);
        return { image, activations, decode: decoded - start, encode };
      }, signal);
    } catch (thrown) {
      if (late.signal.aborted) {
        throw new Problem("encoder-timeout", `The encoder gave no answer within ${limits.encodeMs / 1000} s`);
      }
      if (client.aborted) throw new Problem("request-cancelled", "The client went away");
      throw thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  function judge(probe: StoredProbe, fpr: FalseAlarms, activations: Activations) {
    const decided = decideLayers(probe, scoreProbe(probe, activations), fpr);
    const decision = decide(probe, decided, fpr), layers: LayerScore[] = decided;
    metrics.answer(decision.answer);
    return { decision, layers, primary: layers.find(({ feature }) => feature === probe.primary)! };
  }

  return {
    encode,
    async score(probe, fpr, work) {
      const hashing = sha256(work.bytes); // beside the encoder
      const { image, activations, decode, encode: encoding } = await encode(probe, work);
      const start = performance.now(), judged = judge(probe, fpr, activations);
      const { width, height, format } = image;
      return {
        probe: probe.id,
        bundle: probe.bundle,
        fpr,
        image: { sha256: await hashing, width, height, format },
        ...judged,
        model: probe.model,
        timings_ms: {
          decode: round(decode),
          encode: round(encoding),
          score: round(performance.now() - start),
        },
      };
    },
    rows(probe, fpr, rows) {
      const { id, bundle, model } = probe;
      return { probe: id, bundle, fpr, model, rows: rows.map((row) => judge(probe, fpr, row)) };
    },
  };
}

/** The encoder's answer, held to the probe's features: one missing or of another width is the host's fault. */
function checked(probe: StoredProbe, activations: Record<string, Float32Array>): Activations {
  return Object.fromEntries(probe.layers.map(({ feature, dim }) => {
    const values = activations[feature];
    if (values?.length !== dim) {
      throw new Error(
        `Cannot score "${feature}": the encoder gave ${values?.length ?? "no"} values, expected ${dim}`,
      );
    }
    return [feature, Float32Array.from(values)];
  }));
}

const round = (ms: number): number => Math.round(ms * 100) / 100;
