/**
 * Which encoder answers for a probe: the model in its own bundle, or whatever else this host has.
 * It refuses a probe for which there is neither.
 */
import type { Encoder } from "./encoder.ts";
import { Problem } from "./problems.ts";

export interface Encoders {
  /** For bundles that bring their model. */
  onnx: Encoder;
  /** For all others: WebGPU on this host, or an upstream. */
  other?: Encoder;
}

export function chooseEncoder({ onnx, other }: Encoders): Encoder {
  return {
    async activations(probe, image, signal) {
      const encoder = probe.encoder.kind === "onnx" ? onnx : other;
      if (encoder) return await encoder.activations(probe, image, signal);
      throw new Problem(
        "encoder-unavailable",
        `The probe "${probe.id}" needs a host with a GPU, and this one knows none`,
      );
    },
  };
}
