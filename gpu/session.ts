/**
 * An opened model: weights on the device, tokenizer and image processor beside them, and whatever is to be trained.
 * Everything that trains, extracts or scores starts here; it refuses a run that belongs to another base model.
 */
import { createSampleEncoder, type SampleEncoder } from "../core/data/encode.ts";
import { InputError } from "../core/errors.ts";
import { openWeights, weightFiles } from "../core/formats/checkpoint.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { readManifest, sha256 } from "../core/formats/manifest.ts";
import {
  type AdapterTensor,
  type LoraConfig,
  loraSchema,
  readAdapter,
  savedKey,
  writeAdapter,
} from "../core/formats/peft.ts";
import { encodeSafetensors, SafetensorsFile } from "../core/formats/safetensors.ts";
import { createProcessor, type Processed, type Processor } from "../core/image/processors.ts";
import { openTextCodec, type TextOptions, textSchema } from "../core/text/codec.ts";
import type { Gpu } from "./device.ts";
import { createModel } from "./models/create.ts";
import type { Model } from "./models/model.ts";
import { loadWeights, type WeightType } from "./models/weights.ts";
import { attachLora, attachSaved, idleLora, initLora, loadLora, loraStart } from "./nn/lora.ts";
import { type Param, placeTrained, type Registry, type Slab } from "./nn/params.ts";

export interface SessionOptions {
  /** How frozen matrices lie on the device. */
  weights?: WeightType;
  /** Adapters to attach; null or missing for none. */
  lora?: LoraConfig | null;
  /** Regular expressions on parameter names: what is trained directly. */
  trainable?: readonly string[];
  /** Of the adapters' first values. */
  seed?: number;
  /** The projector has a learning-rate group of its own, "projector", where it is trained whole. */
  projectorGroup?: boolean;
  /** How conversations are written, and the most tokens of one; 0 for any number, the model's own limit if missing. */
  text?: Partial<TextOptions>;
  /** False sets biases and norms apart, so that decay can spare them; without decay it makes no difference. */
  plainDecay?: boolean;
}
type TrainedOptions = Pick<SessionOptions, "lora" | "trainable" | "projectorGroup" | "plainDecay">;

/** A model on the device and what is trained of it. */
export interface Tuned {
  gpu: Gpu;
  model: Model;
  /** sha256 of what identifies the weights: the manifest of the checkpoint folder, or its config and tensor list. */
  hash: string;
  lora: LoraConfig | null;
  loraParams: Param[];
  /** Parameters of the checkpoint that are trained whole and kept with the adapter: modules_to_save. */
  savedParams: Param[];
  /** Parameters of the checkpoint that are trained directly. */
  fullParams: Param[];
  /** Matrices of the adapter beside layers that never compute, by key, as they stay. */
  idle: ReadonlyMap<string, AdapterTensor>;
  slabs: Slab[];
  /** Gives every buffer back to the pool. */
  close(): void;
}

/** The same with what turns samples into tokens and pixels. */
export interface Session extends Tuned {
  encoder: SampleEncoder;
}

/** Opens a checkpoint folder. @throws InputError when anything in it does not fit */
export async function openSession(gpu: Gpu, folder: Folder, options: SessionOptions = {}): Promise<Session> {
  return await withEncoder(await openTuned(gpu, folder, options), folder, options.text);
}

/** The same without tokenizer and processor, which need not be there. */
export async function openTuned(gpu: Gpu, folder: Folder, options: SessionOptions = {}): Promise<Tuned> {
  const source = await openWeights(folder);
  try {
    const tuned = await declare(gpu, folder, options);
    return await orClose(tuned, async () => {
      await loadWeights(gpu, tuned.model, source, options.weights);
      return tuned;
    });
  } finally {
    source.close();
  }
}

/** With undefined weights, for whoever fills them: pre-training. */
export async function openBare(gpu: Gpu, folder: Folder, options: SessionOptions = {}): Promise<Session> {
  return await withEncoder(await declare(gpu, folder, options), folder, options.text);
}

/** Adds tokenizer and processor. @throws InputError when the folder's do not fit; the model is closed then */
export function withEncoder(
  tuned: Tuned,
  folder: Folder,
  text: SessionOptions["text"] = {},
): Promise<Session> {
  return orClose(tuned, async () => {
    const { model } = tuned, config = await readJson(folder, "config.json");
    const processor = await openProcessor(folder, config);
    const codec = await openTextCodec(folder, model, text);
    const maxLength = (text.maxLength ?? maxPositions(config)) || undefined;
    const featuresOf = (image: Processed) => model.featuresOf(image);
    return { ...tuned, encoder: createSampleEncoder(codec, { processor, featuresOf, maxLength }) };
  });
}

const PROCESSOR = "preprocessor_config.json";

/** What describes the processor; the first Qwen-VL has no such file, its transform is fixed in its code. */
export async function processorConfig(folder: Folder, config: unknown): Promise<unknown> {
  if (await folder.exists(PROCESSOR)) return await readJson(folder, PROCESSOR);
  const { model_type, visual } = config as { model_type: string; visual?: { image_size: number } };
  if (model_type !== "qwen") return undefined;
  return { image_processor_type: "QwenVLImageProcessor", size: visual?.image_size };
}

async function openProcessor(folder: Folder, config: unknown): Promise<Processor | undefined> {
  const json = await processorConfig(folder, config);
  return json === undefined ? undefined : createProcessor(json, `${folder.path}/${PROCESSOR}`);
}

/** Positions that a model was made for, from a config.json of either generation. */
function maxPositions(json: unknown): number | undefined {
  type Config = { max_position_embeddings?: number; text_config?: Config };
  const { max_position_embeddings, text_config } = json as Config;
  return text_config?.max_position_embeddings ?? max_position_embeddings;
}

/** Goes on with an opened model and closes it when that fails. */
export async function orClose<T>({ close }: Tuned, next: () => Promise<T>): Promise<T> {
  try {
    return await next();
  } catch (error) {
    close();
    throw error;
  }
}

async function declare(gpu: Gpu, folder: Folder, options: SessionOptions): Promise<Tuned> {
  const trained = declareTrained(gpu, createModel(await readJson(folder, "config.json")), options);
  const { model, lora, slabs } = trained, seed = options.seed ?? 0;
  if (lora) initLora(gpu, trained.loraParams, lora, seed);
  return {
    gpu,
    ...trained,
    idle: idleStart(model, lora, seed),
    hash: await modelHash(folder),
    close() {
      const buffers = new Set(
        slabs.flatMap(({ param, grad, m, v }) => [param, grad, m, v].map(({ buffer }) => buffer)),
      );
      for (const param of model.registry.params.values()) {
        if (param.placed && !param.trainable) buffers.add(param.tensor.buffer);
      }
      for (const buffer of buffers) gpu.pool.release(buffer);
    },
  };
}

/** What is trained of a model, declared and placed with undefined values; frozen parameters have no buffer yet. */
export function declareTrained(
  gpu: Gpu,
  model: Model,
  { lora = null, trainable = [], projectorGroup = false, plainDecay = true }: TrainedOptions,
): Pick<Session, "model" | "lora" | "loraParams" | "savedParams" | "fullParams" | "slabs"> {
  const savedParams = lora ? attachSaved(model, lora) : [];
  const fullParams = chooseTrainable(model, trainable);
  const loraParams = lora ? attachLora(model.registry, lora) : [];
  const whole = [...savedParams, ...fullParams];
  if (projectorGroup) { for (const param of whole) if (isProjector(param)) param.group = "projector"; }
  const slabs = placeTrained(
    gpu,
    [...loraParams, ...whole],
    plainDecay ? undefined : (param) => decays(param, model.registry),
  );
  return { model, lora, loraParams, savedParams, fullParams, slabs };
}

/** Whether a parameter belongs to what turns the tower's features into the decoder's: projector, merger, resampler. */
export function isProjector({ name }: Pick<Param, "name">): boolean {
  return /(^|\.)(multi_modal_projector|connector|merger|visual\.attn_pool|visual\.(ln_post|proj))(\.|$)/.test(
    name,
  );
}

/**
 * Whether AdamW's decay reaches a parameter, as in transformers' Trainer (get_decay_parameter_names): not what is called
 * bias or norm, and not a LayerNorm, whose weight is a vector beside a bias. What has no gradient does not decay either.
 */
export function decays({ name, shape, used }: Param, { params }: Registry): boolean {
  const named = /bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)/.test(name.toLowerCase());
  const isLayerNorm = shape.length === 1 && name.endsWith(".weight") &&
    params.has(name.replace(/\.weight$/, ".bias"));
  return used && !named && !isLayerNorm;
}

function idleStart(model: Model, lora: LoraConfig | null, seed: number): Session["idle"] {
  const params = lora ? idleLora(model.registry, lora) : [];
  return new Map(params.map((param) => [
    param.name,
    { shape: [...param.shape], data: loraStart(param, lora!, seed) },
  ]));
}

function chooseTrainable(model: Model, patterns: readonly string[]): Param[] {
  const chosen = new Set<Param>();
  for (const pattern of patterns) {
    const expression = new RegExp(pattern);
    const matches = [...model.registry.params.values()].filter(({ name, used }) =>
      used && expression.test(name)
    );
    if (matches.length === 0) throw new InputError(`Cannot train "${pattern}": it matches no parameter`);
    const saved = matches.find(({ trainable }) => trainable);
    if (saved) throw new InputError(`Cannot train "${saved.name}" twice: modules_to_save holds it as well`);
    for (const param of matches) chosen.add(param);
  }
  for (const param of chosen) param.group = "full";
  return [...chosen];
}

/** sha256 of what identifies the weights of a checkpoint folder. */
export async function modelHash(folder: Folder): Promise<string> {
  if (await folder.exists("manifest.json")) return (await readManifest(folder, "model")).hash;
  const parts = [await sha256(await folder.read("config.json"))];
  for (const name of await weightFiles(folder)) {
    const source = await folder.open(name);
    const length = Math.min(source.size, 1 << 20);
    parts.push(name, String(source.size), await sha256(await source.readAt(0, length)));
    // A GGUF file begins with megabytes of vocabulary, which two models may share; its end is weights.
    if (name.endsWith(".gguf")) parts.push(await sha256(await source.readAt(source.size - length, length)));
    source.close();
  }
  return await sha256(parts.join("\n"));
}

/** Writes what training changed: `adapter/` in peft's form, modules_to_save in it, and `trained.safetensors` for parameters trained directly. */
export async function writeTrained(session: Tuned, folder: Folder, baseName: string): Promise<void> {
  const { gpu, lora, loraParams, savedParams, fullParams, idle } = session;
  const read = async (params: Param[]) => {
    const values = params.length ? await gpu.read(...params.map(({ tensor }) => tensor)) : [];
    return Object.fromEntries(
      params.map((
        { name, shape },
        i,
      ) => [name, { shape: [...shape], data: values[i] as Float32Array<ArrayBuffer> }]),
    );
  };
  if (lora) {
    const saved = Object.entries(await read(savedParams)).map(([name, tensor]) => [savedKey(name), tensor]);
    const tensors = { ...await read(loraParams), ...Object.fromEntries(idle), ...Object.fromEntries(saved) };
    await writeAdapter(folder.folder("adapter"), lora, tensors, baseName);
  }
  if (fullParams.length) await folder.write("trained.safetensors", encodeSafetensors(await read(fullParams)));
}

/** Puts a read adapter into a session that was opened with its configuration. @throws InputError unless it fits */
export function loadAdapter(session: Tuned, tensors: ReadonlyMap<string, AdapterTensor>): void {
  const { gpu, lora, model: { registry }, loraParams, savedParams } = session;
  const idle = lora ? idleLora(registry, lora) : [];
  const kept = loadLora(gpu, [...loraParams, ...savedParams], tensors, idle);
  session.idle = new Map([...session.idle, ...kept]);
}

/**
 * Opens a base model as a finished run left it, with its chat template unless another one is given. Nothing is
 * trained any more: adapters stay beside the weights.
 * @throws InputError when the run was made from another base model
 */
export async function openRun(
  gpu: Gpu,
  base: Folder,
  run: Folder,
  weights?: WeightType,
  { template, system }: Partial<TextOptions> = {},
): Promise<Session> {
  const { manifest } = await readManifest(run, "run");
  const text = textSchema.partial().parse(manifest.config);
  if (template !== undefined) text.template = template;
  if (system !== undefined) text.system = system;
  return await withEncoder(await openTunedRun(gpu, base, run, weights), base, text);
}

/** The same without tokenizer and processor. */
export async function openTunedRun(
  gpu: Gpu,
  base: Folder,
  run: Folder,
  weights?: WeightType,
): Promise<Tuned> {
  const { manifest } = await readManifest(run, "run");
  const lora = manifest.config.lora ? loraSchema.parse(manifest.config.lora) : null;
  const trainable = manifest.config.trainable as string[] ?? [];
  const tuned = await openTuned(gpu, base, { lora, trainable, weights });
  return await orClose(tuned, async () => {
    if (manifest.parents.model !== tuned.hash) {
      throw new InputError(
        `Cannot use "${run.path}": it was trained from the model ${manifest.parents.model}, "${base.path}" is ${tuned.hash}`,
      );
    }
    if (lora) loadAdapter(tuned, await readAdapter(run.folder("adapter")));
    if (tuned.fullParams.length) {
      const file = await SafetensorsFile.open(await run.open("trained.safetensors"));
      for (const { name, tensor } of tuned.fullParams) gpu.write(tensor, await file.f32(name));
      file.source.close();
    }
    return tuned;
  });
}
