/**
 * An encoder on another host: the image goes to an Afterimage service with a GPU, its activations come back.
 * It refuses activations of another model than the probe was fitted on.
 */
import { messageOf } from "../core/errors.ts";
import { bytesSource } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { modelName } from "./activations.ts";
import { readBounded } from "./body.ts";
import type { Encoder } from "./encoder.ts";
import { Problem } from "./problems.ts";

const ANSWER_BYTES = 32_000_000;
const ANSWER_MS = 30_000;

export interface UpstreamOptions {
  /** The host's fetch unless told. */
  send?: typeof fetch;
  /** An API key of the upstream with the scope "score". */
  key?: string;
}

/** An encoder that posts to `<url>/v1/probes/{id}/encode`. */
export function upstreamEncoder(url: string, { send = fetch, key }: UpstreamOptions = {}): Encoder {
  const base = url.replace(/\/+$/, "");
  return {
    async activations(probe, image, signal) {
      const address = `${base}/v1/probes/${probe.id}/encode`;
      const request = new Request(address, {
        method: "POST",
        headers: { "content-type": `image/${image.format}`, ...(key && { authorization: `Bearer ${key}` }) },
        body: image.bytes,
        redirect: "manual",
        signal,
      });
      try {
        const response = await send(request);
        if (!response.ok) throw await refused(response);
        const bytes = await readBounded(response, ANSWER_BYTES, ANSWER_MS);
        const file = await SafetensorsFile.open(bytesSource("the upstream's answer", bytes));
        if (file.metadata.model !== modelName(probe)) {
          throw new Error(`the upstream's model is "${file.metadata.model}", expected "${modelName(probe)}"`);
        }
        const tensors = probe.layers.map(async ({ feature }) => [feature, await file.f32(feature)] as const);
        return Object.fromEntries(await Promise.all(tensors));
      } catch (thrown) {
        if (signal.aborted || (thrown instanceof Problem && thrown.problem === "busy")) throw thrown;
        // Not told to the client: the address, and what the upstream said.
        throw new Problem(
          "upstream-failed",
          "The host with the GPU gave no usable answer",
          {},
          messageOf(thrown),
        );
      }
    },
  };
}

/** A busy upstream makes this host busy; any other refusal is a fault between the two. */
async function refused(response: Response): Promise<Error> {
  await response.body?.cancel();
  const retryAfter = response.headers.get("retry-after");
  if (response.status === 503 && retryAfter !== null) {
    return new Problem("busy", `The host with the GPU is busy; try again in ${retryAfter} s`, {
      "retry-after": retryAfter,
    });
  }
  return new Error(`the upstream answered ${response.status}`);
}
