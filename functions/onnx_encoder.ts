/**
 * The encoder that a bundle brings along, on onnxruntime-web: the same WebAssembly on Deno and on Workers, one thread.
 * Refuses a file that differs from the bundle's manifest, and a picture of another shape than the graph was written for.
 */
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { type Manifest, readManifest, sha256 } from "../core/formats/manifest.ts";
import { ImageError } from "../core/image/image_error.ts";
import { createProcessor, type Processor } from "../core/image/processors.ts";
import { PROCESSOR_FILE } from "../core/onnx/spec.ts";
import type { OnnxSpec } from "../core/onnx/spec.ts";
import type { Encoder } from "./encoder.ts";
import { Problem } from "./problems.ts";
import type { ServedProbe } from "./store/types.ts";

export interface OnnxOptions {
  /** The runtime as its host compiled it, where nothing may be compiled from bytes: Workers. */
  wasm?: WebAssembly.Module;
  /** Models in memory at once; the one unused for longest goes first. */
  kept?: number;
}

interface OpenModel {
  session: InferenceSession;
  processor: Processor;
}

/** An encoder for bundles of the kind "onnx". @throws InputError or Problem when asked for what it cannot encode */
export function onnxEncoder({ wasm, kept = 2 }: OnnxOptions = {}): Encoder {
  /** By bundle, the latest used last. A model that failed to open is tried again: its promise is not kept. */
  const models = new Map<string, Promise<OpenModel>>();

  function modelOf({ bundle, encoder, folder }: ServedProbe): Promise<OpenModel> {
    const opening = models.get(bundle) ?? openModel(folder, encoder as OnnxSpec, wasm);
    models.delete(bundle);
    models.set(bundle, opening);
    opening.catch(() => models.delete(bundle));
    if (models.size > kept) {
      const [oldest, model] = models.entries().next().value!;
      models.delete(oldest);
      model.then(({ session }) => session.release(), () => {});
    }
    return opening;
  }

  return {
    async activations(probe, picture, signal) {
      const served = probe as ServedProbe, { encoder } = served;
      if (encoder?.kind !== "onnx") {
        throw new Problem("model-not-served", `The probe "${probe.id}" has no encoder in its bundle`);
      }
      const { session, processor } = await modelOf(served);
      signal.throwIfAborted();
      const { pixelValues, shape } = processor.process(picture), { input } = encoder;
      if (shape.join() !== input.shape.join()) {
        throw new ImageError(
          "unsupported",
          `its pixels become (${shape.join(", ")}), this probe's encoder takes (${input.shape.join(", ")})`,
        );
      }
      const features = probe.layers.map(({ feature }) => feature);
      const found = await session.run({ [input.name]: new Tensor("float32", pixelValues, shape) }, features);
      return Object.fromEntries(features.map((feature) => [feature, found[feature].data as Float32Array]));
    },
  };
}

async function openModel(
  folder: ServedProbe["folder"],
  spec: OnnxSpec,
  wasm?: WebAssembly.Module,
): Promise<OpenModel> {
  const { manifest } = await readManifest(folder, "bundle");
  const where = `${folder.path}/${PROCESSOR_FILE}`;
  const processor = createProcessor(await readJson(folder, PROCESSOR_FILE), where);
  const file = await readVerified(folder, manifest, spec.file);
  const external = spec.external === undefined ? [] : [{
    path: spec.external,
    data: await readVerified(folder, manifest, spec.external),
  }];
  env.wasm.numThreads = 1;
  env.wasm.proxy = false;
  const open = () => InferenceSession.create(file, { externalData: external });
  return { processor, session: await (wasm ? withRuntime(wasm, open) : open()) };
}

/** A file of a bundle, read once. @throws InputError when it differs from the manifest */
async function readVerified(
  folder: ServedProbe["folder"],
  { files }: Manifest,
  name: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await folder.read(name),
    actual = await sha256(bytes),
    expected = files[name]?.sha256 ?? "none";
  if (actual === expected) return bytes;
  throw new InputError(
    `Cannot use "${folder.path}/${name}": its sha256 is ${actual}, the manifest says ${expected}`,
  );
}

/** Stands for the runtime's bytes, which a Worker cannot compile: the head of any WebAssembly file. */
const STAND_IN = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/** Runs what starts the runtime; its request to compile the stand-in gets the module that is compiled already. */
async function withRuntime<T>(module: WebAssembly.Module, start: () => Promise<T>): Promise<T> {
  const { instantiate } = WebAssembly;
  type Instantiate = (source: unknown, imports?: WebAssembly.Imports) => Promise<unknown>;
  const ours: Instantiate = async (source, imports) =>
    source instanceof WebAssembly.Module || (source as ArrayBuffer).byteLength !== STAND_IN.length
      ? await (instantiate as Instantiate)(source, imports)
      : { module, instance: await instantiate(module, imports) };
  env.wasm.wasmBinary = STAND_IN;
  WebAssembly.instantiate = ours as typeof instantiate;
  try {
    return await start();
  } finally {
    WebAssembly.instantiate = instantiate;
  }
}
