/**
 * Adapters that peft wrote, beside a base model: whatever generation of module names they were saved under, they are
 * read as this project's tree spells them. Refuses keys that are no part of the model and files that lack some.
 */
import { InputError } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { sha256 } from "../core/formats/manifest.ts";
import {
  adapterFile,
  adapterKey,
  type AdapterTensor,
  type LoraConfig,
  parseKey,
  readAdapter,
  readAdapterConfig,
  savedKey,
} from "../core/formats/peft.ts";
import { rankOf } from "../core/formats/peft_rules.ts";
import type { Gpu } from "./device.ts";
import { createModel } from "./models/create.ts";
import type { Model } from "./models/model.ts";
import {
  loadAdapter,
  openTuned,
  orClose,
  type Session,
  type SessionOptions,
  type Tuned,
  withEncoder,
} from "./session.ts";

/** Names of an adapter file's keys in the model's own tree: key in the file -> key as this project writes it. */
export function translateKeys(model: Pick<Model, "rename">, keys: Iterable<string>): Map<string, string> {
  const names = new Map<string, string>();
  for (const key of keys) {
    const parsed = parseKey(key);
    const param = parsed && model.rename("param" in parsed ? parsed.param : `${parsed.module}.weight`);
    if (!param) throw new InputError(`Cannot load the adapter: unexpected "${key}"`);
    names.set(key, "param" in parsed! ? savedKey(param) : adapterKey(moduleOf(param), parsed!.matrix));
  }
  return names;
}

/** The configuration with every adapter named in full, for files whose names are those of another module tree. */
export function translateConfig(
  model: Pick<Model, "rename">,
  config: LoraConfig,
  names: ReadonlyMap<string, string>,
): LoraConfig {
  if ([...names].every(([key, name]) => key === name)) return config;
  const modules: string[] = [], ranks: Record<string, number> = {}, alphas: Record<string, number> = {};
  for (const [key, name] of names) {
    const parsed = parseKey(key)!;
    if (!("matrix" in parsed) || parsed.matrix !== "A") continue;
    const module = (parseKey(name) as typeof parsed).module, { r, alpha } = rankOf(parsed.module, config);
    const pattern = `^${module.replaceAll(".", "\\.")}`;
    modules.push(module);
    if (r !== config.r) ranks[pattern] = r;
    if (alpha !== config.lora_alpha) alphas[pattern] = alpha;
  }
  return {
    ...config,
    target_modules: modules,
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
    rank_pattern: ranks,
    alpha_pattern: alphas,
    modules_to_save: config.modules_to_save?.map((name) => moduleOf(model.rename(`${name}.weight`) ?? name)),
  };
}

const moduleOf = (param: string) => param.replace(/\.weight$/, "");

/** An adapter folder as this model's tree spells it. @throws InputError for a file or a field that cannot be used */
export async function readPeft(
  model: Pick<Model, "rename">,
  folder: Folder,
): Promise<{ config: LoraConfig; tensors: Map<string, AdapterTensor> }> {
  // How its matrices started, by data perhaps, is of no use beside their values.
  const { init_lora_weights: _, ...config } = await readAdapterConfig(folder);
  const found = await readAdapter(folder);
  const names = translateKeys(model, found.keys());
  return {
    config: translateConfig(model, config, names),
    tensors: new Map([...found].map(([key, tensor]) => [names.get(key)!, tensor])),
  };
}

/** Opens a base model with an adapter that peft wrote, to be used or trained on. @throws InputError unless they fit */
export async function openPeft(
  gpu: Gpu,
  base: Folder,
  adapter: Folder,
  options: Omit<SessionOptions, "lora"> = {},
): Promise<Session> {
  return await withEncoder(await openTunedPeft(gpu, base, adapter, options), base, options.text);
}

/** The same without tokenizer and processor. */
export async function openTunedPeft(
  gpu: Gpu,
  base: Folder,
  adapter: Folder,
  options: Omit<SessionOptions, "lora"> = {},
): Promise<Tuned> {
  const { config, tensors } = await readPeft(createModel(await readJson(base, "config.json")), adapter);
  const tuned = await openTuned(gpu, base, { ...options, lora: config });
  return await orClose(tuned, () => {
    loadAdapter(tuned, tensors);
    return Promise.resolve(tuned);
  });
}

/** What names an adapter that has no manifest: the sha256 of its two files' hashes. */
export async function peftHash(folder: Folder): Promise<string> {
  const files = ["adapter_config.json", await adapterFile(folder)];
  const hashes = await Promise.all(files.map(async (name) => await sha256(await folder.read(name))));
  return await sha256(hashes.join("\n"));
}
