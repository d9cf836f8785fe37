/**
 * The encoder that a bundle brings along, on onnxruntime-web: the same WebAssembly on Deno and on Workers, one thread.
 * Refuses a file that differs from the bundle's manifest, and a picture of another shape than the graph was written for.
 */
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { InputError } from "../core/errors.ts";
import { type Manifest, readManifest, sha256 } from "../core/formats/manifest.ts";
import { ImageError } from "../core/image/image_error.ts";
import type { Picture } from "../core/image/picture.ts";
import { createProcessor } from "../core/image/processors.ts";
import { type OnnxSpec, PROCESSOR_FILE } from "../core/onnx/spec.ts";
import type { Encoder } from "./encoder.ts";
import { Problem } from "./problems.ts";
import type { ServedProbe } from "./store/types.ts";

export interface OnnxOptions {
  /** The runtime as its host compiled it, where nothing may be compiled from bytes: Workers. */
  wasm?: WebAssembly.Module;
  /** Models in memory at once; the one unused for longest goes first. */
  kept?: number;
}

/** A bundle's model in memory. */
export interface OnnxModel {
  /** (D) each. @throws ImageError for a picture whose pixels are of another shape than the graph's */
  encode(picture: Picture, features: readonly string[]): Promise<Record<string, Float32Array>>;
  release(): Promise<void>;
}

/** An encoder for bundles of the kind "onnx". */
export function onnxEncoder({ wasm, kept = 2 }: OnnxOptions = {}): Encoder {
  /** By bundle, the latest used last. A model that failed to open is tried again: its promise is not kept. */
  const models = new Map<string, Promise<OnnxModel>>();

  function modelOf({ bundle, encoder, folder }: ServedProbe): Promise<OnnxModel> {
    const opening = models.get(bundle) ?? openVerified(folder, encoder as OnnxSpec, wasm);
    models.delete(bundle);
    models.set(bundle, opening);
    opening.catch(() => models.delete(bundle));
    if (models.size > kept) {
      const [oldest, model] = models.entries().next().value!;
      models.delete(oldest);
      model.then(({ release }) => release(), () => {});
    }
    return opening;
  }

  return {
    async activations(probe, picture, signal) {
      const served = probe as ServedProbe;
      if (served.encoder?.kind !== "onnx") {
        throw new Problem("model-not-served", `The probe "${probe.id}" has no encoder in its bundle`);
      }
      const model = await modelOf(served);
      signal.throwIfAborted();
      return await model.encode(picture, probe.layers.map(({ feature }) => feature));
    },
  };
}

/** Holds the files of a bundle's model to its manifest; one without has none. @throws InputError naming the file */
export async function verifyModel({ encoder, folder }: ServedProbe): Promise<void> {
  if (encoder.kind !== "onnx") return;
  const { manifest } = await readManifest(folder, "bundle"), { file, external } = encoder as OnnxSpec;
  for (const name of [PROCESSOR_FILE, file, external]) {
    if (name !== undefined) await readVerified(folder, manifest, name);
  }
}

async function openVerified(
  folder: ServedProbe["folder"],
  spec: OnnxSpec,
  wasm?: WebAssembly.Module,
): Promise<OnnxModel> {
  const { manifest } = await readManifest(folder, "bundle");
  return await openOnnx((name) => readVerified(folder, manifest, name), spec, wasm);
}

/** Opens a model whose files `read` gives. @throws InputError for a processor that does not exist */
export async function openOnnx(
  read: (name: string) => Promise<Uint8Array<ArrayBuffer>>,
  { file, external, input }: Pick<OnnxSpec, "file" | "external" | "input">,
  wasm?: WebAssembly.Module,
): Promise<OnnxModel> {
  const json = JSON.parse(new TextDecoder().decode(await read(PROCESSOR_FILE)));
  const processor = createProcessor(json, PROCESSOR_FILE), model = await read(file);
  const externalData = external === undefined ? [] : [{ path: external, data: await read(external) }];
  env.wasm.numThreads = 1;
  env.wasm.proxy = false;
  const open = () => InferenceSession.create(model, { externalData });
  const session = await (wasm ? withRuntime(wasm, open) : open());
  return {
    async encode(picture, features) {
      const { pixelValues, shape } = processor.process(picture);
      if (shape.join() !== input.shape.join()) {
        throw new ImageError(
          "unsupported",
          `its pixels become (${shape.join(", ")}), this probe's encoder takes (${input.shape.join(", ")})`,
        );
      }
      const found = await session.run({ [input.name]: new Tensor("float32", pixelValues, shape) }, features);
      return Object.fromEntries(features.map((feature) => [feature, found[feature].data as Float32Array]));
    },
    release: () => session.release(),
  };
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
