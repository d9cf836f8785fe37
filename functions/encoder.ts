/**
 * What turns a picture into the activations a probe reads: WebGPU on this host, or another host over HTTP.
 * The service knows only this interface, so it runs where there is no GPU.
 */
import type { ImageFormat } from "../core/image/header.ts";
import type { Picture } from "../core/image/picture.ts";
import type { ServedProbe } from "./store/types.ts";

/** A decoded picture together with the bytes it came in, which an upstream host can have as they are. */
export interface ReceivedImage extends Picture {
  format: ImageFormat;
  bytes: Uint8Array<ArrayBuffer>;
}

export interface Encoder {
  /**
   * The pooled activations of each of the probe's features, `dim` values each.
   * @throws Problem "model-not-served", "encoder-unavailable" or "upstream-failed"
   */
  activations(
    probe: ServedProbe,
    image: ReceivedImage,
    signal: AbortSignal,
  ): Promise<Record<string, Float32Array>>;
}
