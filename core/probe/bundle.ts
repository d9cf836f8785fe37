/**
 * A probe bundle: all that a service needs to answer for a probe, the encoder included, named by its manifest's hash.
 * Refuses files that differ from the manifest, and an encoder that does not give the probe's features.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { type Manifest, readManifest, sha256 } from "../formats/manifest.ts";
import { readProbe, type StoredProbe, storedProbeSchema } from "./stored.ts";

export const BUNDLE_FACTS = "bundle.json", BUNDLE_TENSORS = "probe.safetensors";

/** What turns a picture into the probe's activations: a model in the bundle, or a host with a GPU. */
export const encoderSpecSchema = z.discriminatedUnion("kind", [
  z.looseObject({
    kind: z.literal("onnx"),
    file: z.string().min(1),
    input: z.looseObject({ name: z.string(), shape: z.array(z.number().int().positive()) }),
    /** The features, each the name of an output too. */
    outputs: z.array(z.string()).min(1),
  }),
  z.looseObject({ kind: z.literal("upstream") }),
]);
export type EncoderSpec = z.infer<typeof encoderSpecSchema>;

/** `bundle.json`: the probe's facts and its encoder; what else it holds is kept for whoever reads it. */
export const bundleSchema = storedProbeSchema.loose().extend({ encoder: encoderSpecSchema });
export type BundleFacts = z.infer<typeof bundleSchema>;

export interface Bundle {
  probe: StoredProbe;
  encoder: EncoderSpec;
  manifest: Manifest;
  /** The manifest's sha256: the bundle's name. */
  hash: string;
}

/**
 * Reads facts and probe, verified; the encoder's file only if told to, since it can be large.
 * @throws InputError naming the file, field or tensor that is wrong
 */
export async function loadBundle(folder: Folder, { verifyEncoder = false } = {}): Promise<Bundle> {
  const { manifest, hash } = await readManifest(folder, "bundle");
  await verifyFile(folder, manifest, BUNDLE_FACTS);
  await verifyFile(folder, manifest, BUNDLE_TENSORS);
  const parsed = bundleSchema.safeParse(await readJson(folder, BUNDLE_FACTS));
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw new InputError(`Cannot load the bundle "${folder.path}": field "${path.join(".")}": ${message}`);
  }
  const { encoder } = parsed.data;
  const probe = await readProbe(folder, parsed.data);
  if (encoder.kind === "onnx") {
    const missing = probe.layers.find(({ feature }) => !encoder.outputs.includes(feature));
    if (missing) {
      throw new InputError(
        `Cannot load the bundle "${folder.path}": its encoder does not give "${missing.feature}"`,
      );
    }
    if (!Object.hasOwn(manifest.files, encoder.file)) {
      throw new InputError(
        `Cannot load the bundle "${folder.path}": its manifest lacks the encoder "${encoder.file}"`,
      );
    }
    if (verifyEncoder) await verifyFile(folder, manifest, encoder.file);
  }
  return { probe, encoder, manifest, hash };
}

/** One file of an artifact, held to its manifest. @throws InputError when it differs */
export async function verifyFile(folder: Folder, manifest: Manifest, name: string): Promise<void> {
  const expected = manifest.files[name]?.sha256 ?? "none", actual = await sha256(await folder.read(name));
  if (actual !== expected) {
    throw new InputError(
      `Cannot use "${folder.path}/${name}": its sha256 is ${actual}, the manifest says ${expected}`,
    );
  }
}
