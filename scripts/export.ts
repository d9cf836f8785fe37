/**
 * `deno task export`: a probe and the model it reads as one bundle that a service can score pictures with: the tuned model
 * as ONNX in one or more types of weights, each measured. Refuses a model or a run that the probe was not fitted on.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { MANIFEST, readManifest, writeManifest } from "../core/formats/manifest.ts";
import type { Picture } from "../core/image/picture.ts";
import { WEIGHT_DTYPES } from "../core/onnx/graph.ts";
import {
  encodeModel,
  encodeModelBeside,
  externalChunks,
  INLINE_LIMIT,
  weightBytes,
} from "../core/onnx/model.ts";
import { F32_REL, type OnnxSpec, onnxSpecSchema, PROCESSOR_FILE, type Variant } from "../core/onnx/spec.ts";
import { BUNDLE_FACTS, BUNDLE_TENSORS, bundleSchema, type EncoderSpec } from "../core/probe/bundle.ts";
import { loadProbe, type StoredProbe } from "../core/probe/stored.ts";
import { promptSchema } from "../core/text/codec.ts";
import { openOnnx } from "../functions/onnx_encoder.ts";
import { openGpu } from "../gpu/device.ts";
import { type Exported, openExport } from "../gpu/export.ts";
import { INPUT } from "../gpu/onnx_trace.ts";
import { processorConfig } from "../gpu/session.ts";
import { runTask } from "./cli.ts";
import { encodePicture } from "./encoder.ts";
import { type Measured, measureEffect, picturesIn } from "./export_measure.ts";
import { DiskFolder, writeStream } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { formatTable } from "./table.ts";
import { openChosen, tunedFlags, tunedParent } from "./tuned.ts";

export const exportSchema = z.object({
  probe: z.string().describe("folder of the stored probe"),
  ...modelFlags,
  run: tunedFlags.run.describe("folder of the run that the probe was fitted on, if it was one"),
  peft: tunedFlags.peft.describe("folder of the adapter that the probe was fitted on, if peft wrote it"),
  out: z.string().describe("folder of the bundle"),
  dtype: z.array(z.enum(WEIGHT_DTYPES)).min(1).default(["f32"]).describe(
    "types of the encoder's weights, the one that is served first",
  ),
  encoder: z.enum(["onnx", "upstream"]).default("onnx").describe(
    "upstream for a model that fits no host without a GPU: the bundle then holds the probe alone",
  ),
  picture: z.string().regex(/^[1-9]\d*x[1-9]\d*$/, "expected WIDTHxHEIGHT").optional().describe(
    "size of the pictures, for models whose pixels follow it; else that of the first of --images",
  ),
  images: z.string().optional().describe("folder of pictures to measure each type of weights on"),
  pictures: z.number().int().positive().default(64).describe("how many of them, by name"),
  ...promptSchema.shape,
  adapter: z.string().optional().describe("WebGPU adapter to measure with, by name or index"),
});
export type ExportConfig = z.infer<typeof exportSchema>;

/** Writes the bundle and returns its hash and variants. @throws InputError when probe, model and training do not fit */
export async function exportBundle(config: ExportConfig): Promise<{ hash: string; variants: Variant[] }> {
  const source = new DiskFolder(config.probe), probe = await loadProbe(source);
  const out = new DiskFolder(config.out), parent = await tunedParent(config);
  const training = parent.run ?? parent.adapter ?? null;
  if (training !== probe.model.adapter) {
    throw new InputError(
      `Cannot export the probe "${probe.id}": --${config.peft === undefined ? "run" : "peft"} is ${
        training ?? "missing"
      }, expected ${probe.model.adapter ?? "none"}`,
    );
  }
  if (await out.exists(MANIFEST)) await out.remove(MANIFEST); // no bundle until the new one stands
  await out.write(BUNDLE_TENSORS, await source.read(BUNDLE_TENSORS));
  const files = [BUNDLE_FACTS, BUNDLE_TENSORS], variants: Variant[] = [];
  const spec = config.encoder === "upstream"
    ? { kind: "upstream" as const }
    : await writeEncoder(config, probe, out, variants);
  if (spec.kind === "onnx") {
    files.push(
      PROCESSOR_FILE,
      ...variants.flatMap(({ file, external }) => external ? [file, external] : [file]),
    );
  }
  const { tensors: _, ...facts } = probe;
  const checked = bundleSchema.parse({ ...facts, encoder: spec });
  await out.write(BUNDLE_FACTS, JSON.stringify(checked, null, 1) + "\n");
  const { hash } = await writeManifest(out, {
    kind: "bundle",
    files,
    parents: { probe: (await readManifest(source, "probe")).hash, model: probe.model.hash, ...parent },
    seed: probe.seed,
    config: { dtype: config.dtype, encoder: config.encoder, picture: config.picture ?? null },
  });
  return { hash, variants };
}

async function writeEncoder(
  config: ExportConfig,
  probe: StoredProbe,
  out: DiskFolder,
  variants: Variant[],
): Promise<EncoderSpec> {
  const base = await modelFolder(config.model, config), text = promptSchema.parse(config);
  const pictures = config.images === undefined ? [] : await picturesIn(config.images, config.pictures);
  const processor = await processorConfig(base, await readJson(base, "config.json"));
  if (processor === undefined) throw new InputError(`Cannot export "${config.model}": it sees no pictures`);
  await out.write(PROCESSOR_FILE, JSON.stringify(processor, null, 1) + "\n");
  const exported = await openExport(
    base,
    {
      run: config.run === undefined ? undefined : new DiskFolder(config.run),
      peft: config.peft === undefined ? undefined : new DiskFolder(config.peft),
    },
    probe,
    { size: sizeOfPictures(config, pictures), text },
  );
  try {
    for (const dtype of config.dtype) variants.push(await writeVariant(exported, dtype, out));
  } finally {
    exported.close();
  }
  const [{ dtype, file, external }] = variants, { shape, fixed, tokens } = exported;
  const input: OnnxSpec["input"] = { name: INPUT, shape: [...shape], processor: PROCESSOR_FILE, fixed };
  if (pictures.length) {
    const measured = await runOwn(config, probe, pictures);
    for (const variant of variants) {
      const model = await openOnnx((name) => out.read(name), { ...variant, input });
      const { effect, leftOut } = await measureEffect(model, probe, measured);
      await model.release();
      variant.effect = effect;
      if (variant.dtype === "f32" && !(effect.activations_rel <= F32_REL)) {
        throw new Error(
          `Cannot export "${config.model}": activations of the encoder with f32 weights differ from the model's by ${effect.activations_rel}, expected at most ${F32_REL}`,
        );
      }
      if (leftOut) {
        console.error(`${variant.dtype}: ${leftOut} of ${measured.length} pictures are of another shape`);
      }
    }
  }
  const outputs = probe.layers.map(({ feature }) => feature);
  return onnxSpecSchema.parse({ kind: "onnx", dtype, file, external, input, outputs, tokens, variants });
}

function sizeOfPictures(
  { picture }: ExportConfig,
  [first]: readonly Picture[],
): [number, number] | undefined {
  if (picture === undefined) return first && [first.width, first.height];
  const [width, height] = picture.split("x").map(Number);
  return [width, height];
}

async function writeVariant(
  exported: Exported,
  dtype: Variant["dtype"],
  out: DiskFolder,
): Promise<Variant> {
  const graph = exported.graph(dtype), file = `encoder.${dtype}.onnx`, bytes = weightBytes(graph);
  if (bytes <= INLINE_LIMIT) {
    const whole = await encodeModel(graph);
    await out.write(file, whole);
    return { dtype, file, bytes: whole.length, effect: null };
  }
  const external = `${file}.data`;
  await writeStream(`${out.path}/${external}`, externalChunks(graph));
  await out.write(file, await encodeModelBeside(graph, external));
  return { dtype, file, external, bytes, effect: null };
}

/** The model's own activations, on the GPU, in f32. */
async function runOwn(
  config: ExportConfig,
  probe: StoredProbe,
  pictures: readonly Picture[],
): Promise<Measured[]> {
  const base = await modelFolder(config.model, config), gpu = await openGpu(config.adapter);
  const session = await openChosen(gpu, base, config, { weights: "f32", text: promptSchema.parse(config) });
  try {
    const measured: Measured[] = [];
    for (const picture of pictures) {
      measured.push({ picture, own: await encodePicture(session, probe, picture) });
    }
    return measured;
  } finally {
    session.close();
    gpu.close();
  }
}

/** One row a type of weights. */
function variantTable(variants: readonly Variant[]): string {
  const header = ["weights", "MB", "pictures", "activations", "log-odds max", "mean", "flips at 1 % FPR"];
  return formatTable(
    header,
    variants.map(({ dtype, bytes, effect }) => [
      dtype,
      (bytes / 1e6).toFixed(2),
      String(effect?.pictures ?? "not measured"),
      effect?.activations_rel.toExponential(1) ?? "",
      effect?.log_odds.max.toExponential(1) ?? "",
      effect?.log_odds.mean.toExponential(1) ?? "",
      effect ? String(effect.flips.fpr01 ?? "no threshold") : "",
    ]),
  );
}

if (import.meta.main) {
  await runTask({
    name: "export",
    summary: "Write a probe and its model as a bundle for the service: probes, encoder as ONNX, hashes",
    schema: exportSchema,
    examples: [
      "deno task export --probe runs/store/names --run runs/first --dtype f16,f32 --images photos --out bundle",
      "deno task export --probe runs/store/names --model org/large --peft adapter --encoder upstream --out bundle",
    ],
    async run(config) {
      const { hash, variants } = await exportBundle(config);
      if (variants.length) console.log(variantTable(variants));
      console.log(`${config.out} is the bundle ${hash}`);
    },
  });
}
