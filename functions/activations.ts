/**
 * Activations over the wire as safetensors: what an upstream gives an edge host, and what callers extracted themselves.
 * Refuses files of another model, a feature that is missing, of another width or not finite, and too many rows.
 */
import { InputError } from "../core/errors.ts";
import { bytesSource } from "../core/formats/folder.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import type { StoredProbe } from "../core/probe/stored.ts";
import { Problem } from "./problems.ts";
import type { Activations } from "./scorer.ts";

export const SAFETENSORS_TYPE = "application/vnd.safetensors";

/** The model an activation comes from, as one string: name, hash of its weights, hash of its adapter. */
export function modelName({ model }: StoredProbe): string {
  return [model.name, model.hash, model.adapter ?? "no adapter"].join(" ");
}

/** One picture's activations: one tensor (D) a feature; metadata `probe` and `model`. */
export function writeActivations(probe: StoredProbe, activations: Activations): Uint8Array<ArrayBuffer> {
  const tensors = Object.fromEntries(
    probe.layers.map(({ feature, dim }) => [feature, { shape: [dim], data: activations[feature] }]),
  );
  return encodeSafetensors(tensors, { probe: probe.id, model: modelName(probe) });
}

/**
 * The rows of a caller's file: for each feature of the probe a tensor (D) or (rows, D), all with as many rows.
 * @throws Problem "activations-invalid"
 */
export async function readActivations(
  probe: StoredProbe,
  bytes: Uint8Array<ArrayBuffer>,
  mostRows: number,
): Promise<Activations[]> {
  const refuse = (why: string): never => {
    throw new Problem("activations-invalid", `Cannot score these activations: ${why}`);
  };
  try {
    const file = await SafetensorsFile.open(bytesSource("body", bytes));
    const { model } = file.metadata;
    if (model !== undefined && model !== modelName(probe)) {
      refuse(`they come from the model "${model}", expected "${modelName(probe)}"`);
    }
    let rows = 0;
    const features: Activations = {};
    for (const { feature, dim } of probe.layers) {
      const { shape } = file.entries.get(feature) ?? refuse(`the feature "${feature}" is missing`);
      const n = shape.length === 1 ? 1 : shape[0];
      if (shape.length > 2 || shape.at(-1) !== dim) {
        refuse(`"${feature}" is (${shape}), expected (${dim}) or (rows, ${dim})`);
      }
      if (rows !== 0 && n !== rows) refuse(`"${feature}" has ${n} rows, others have ${rows}`);
      if (n < 1 || n > mostRows) refuse(`"${feature}" has ${n} rows, expected 1 to ${mostRows}`);
      rows = n;
      features[feature] = Float32Array.from(await file.f32(feature));
      if (!features[feature].every(Number.isFinite)) refuse(`"${feature}" is not finite`);
    }
    return Array.from({ length: rows }, (_, row) =>
      Object.fromEntries(
        probe.layers.map((
          { feature, dim },
        ) => [feature, features[feature].slice(row * dim, (row + 1) * dim)]),
      ));
  } catch (thrown) {
    if (thrown instanceof InputError) refuse(thrown.message);
    throw thrown;
  }
}
