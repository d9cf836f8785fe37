/**
 * LoRA adapters as peft writes and reads them: adapter_config.json beside adapter_model.safetensors or .bin.
 * Refuses variants that change the mathematics (DoRA, trained biases, PiSSA) instead of ignoring them.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import type { WeightSource } from "./checkpoint.ts";
import { type Folder, readJson } from "./folder.ts";
import { checkRules } from "./peft_rules.ts";
import { openPytorch } from "./pytorch.ts";
import { encodeSafetensors, openSafetensors } from "./safetensors.ts";

/** One name or several, as peft's configuration has them. */
const names = z.union([z.string(), z.array(z.string())]);

export const loraSchema = z.object({
  r: z.number().int().positive().default(8).describe("rank of the adapters"),
  lora_alpha: z.number().positive().default(16).describe("scaling is lora_alpha / r"),
  lora_dropout: z.number().min(0).lt(1).default(0).describe("dropout in front of the adapters"),
  target_modules: names.default("all-linear").describe("module names, a regular expression, or all-linear"),
  use_rslora: z.boolean().default(false).describe("scale by lora_alpha / sqrt(r)"),
  exclude_modules: names.nullish().describe("module names or a regular expression: what gets no adapter"),
  layers_to_transform: z.union([z.number().int(), z.array(z.number().int())]).nullish()
    .describe("indices of the layers that get adapters"),
  layers_pattern: names.nullish().describe("names of the lists that the indices count in"),
  modules_to_save: z.array(z.string()).nullish().describe("modules that are trained whole"),
  rank_pattern: z.record(z.string(), z.number().int().positive()).optional()
    .describe("ranks of modules that a name or a regular expression chooses"),
  alpha_pattern: z.record(z.string(), z.number().positive()).optional().describe("the same for lora_alpha"),
  init_lora_weights: z.union([z.boolean(), z.enum(["gaussian", "orthogonal", "eva"])]).optional()
    .describe("how adapters start: true for Kaiming and zero"),
});
export type LoraConfig = z.infer<typeof loraSchema>;

/** A tensor in memory. */
export interface AdapterTensor {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
}

/** Fields that say where an adapter came from, or only how it was trained. */
const IGNORED = new Set([
  ...["peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"],
  ...["peft_version", "megatron_core", "qalora_group_size", "eva_config", "runtime_config"],
]);

/** @throws InputError naming the file and a field that this reader would have to ignore */
export async function readAdapterConfig(folder: Folder): Promise<LoraConfig> {
  const name = "adapter_config.json", path = `${folder.path}/${name}`;
  const json = await readJson(folder, name) as Record<string, unknown>;
  if (json.peft_type !== "LORA") {
    throw new InputError(
      `Cannot use "${path}": peft_type is ${JSON.stringify(json.peft_type)}, expected "LORA"`,
    );
  }
  const { peft_type: _, ...fields } = json;
  return parseLora(fields, path);
}

/**
 * The settings of adapters from peft's own field names. @param path what to call them in messages
 * @throws InputError for values that do not fit together, and for a field that would have to be ignored
 */
export function parseLora(fields: Record<string, unknown>, path: string): LoraConfig {
  for (const [field, value] of Object.entries(fields)) {
    if (field in loraSchema.shape || IGNORED.has(field) || isNeutral(field, value)) continue;
    throw new InputError(
      `Cannot use "${path}": ${field} is ${JSON.stringify(value)}, which is not supported`,
    );
  }
  const parsed = loraSchema.safeParse(fields);
  if (!parsed.success) throw new InputError(`Cannot use "${path}": ${issueOf(parsed.error)}`);
  checkRules(parsed.data, path);
  return parsed.data;
}

/** Whether a field that this project does not know is switched off. */
function isNeutral(field: string, value: unknown): boolean {
  if (field === "bias") return value === "none";
  return value === null || value === false ||
    typeof value === "object" && Object.keys(value as object).length === 0;
}

/** peft's name of one matrix of the adapter beside a module. */
export function adapterKey(module: string, matrix: "A" | "B"): string {
  return `base_model.model.${module}.lora_${matrix}.weight`;
}

/** peft's name of a parameter that modules_to_save trains. */
export function savedKey(param: string): string {
  return `base_model.model.${param}`;
}

/** What a key of an adapter file stands for, whatever version of peft wrote it. */
export function parseKey(key: string): { module: string; matrix: "A" | "B" } | { param: string } | undefined {
  const name = key.match(/^base_model\.model\.(.+)$/)?.[1];
  if (name === undefined) return undefined;
  const matrix = name.match(/^(.+)\.lora_([AB])(?:\.default)?\.weight$/);
  if (matrix) return { module: matrix[1], matrix: matrix[2] as "A" | "B" };
  return { param: name.replace(/\.modules_to_save(\.default)?\./, ".") };
}

const FILES = ["adapter_model.safetensors", "adapter_model.bin"];

/** The name of the file that holds an adapter's tensors. @throws InputError when there is none */
export async function adapterFile(folder: Folder): Promise<string> {
  for (const name of FILES) if (await folder.exists(name)) return name;
  throw new InputError(`Cannot use the adapter "${folder.path}": it has no ${FILES.join(" and no ")}`);
}

/** Opens an adapter's tensors, under the names in its file. @throws InputError when there are none or they are damaged */
export async function openAdapter(folder: Folder): Promise<WeightSource> {
  const name = await adapterFile(folder), source = await folder.open(name);
  return await (name.endsWith(".bin") ? openPytorch(source) : openSafetensors(source));
}

/** The tensors of an adapter, by key. */
export async function readAdapter(folder: Folder): Promise<Map<string, AdapterTensor>> {
  const source = await openAdapter(folder);
  try {
    const out = new Map<string, AdapterTensor>();
    for (const key of source.names()) out.set(key, { shape: source.shape(key), data: await source.f32(key) });
    return out;
  } finally {
    source.close();
  }
}

/** Writes both files; peft's `PeftModel.from_pretrained` loads the folder. */
export async function writeAdapter(
  folder: Folder,
  config: LoraConfig,
  tensors: Record<string, AdapterTensor>,
  baseModel: string | null,
): Promise<void> {
  await folder.write("adapter_model.safetensors", encodeSafetensors(tensors, { format: "pt" }));
  await folder.write(
    "adapter_config.json",
    JSON.stringify(
      {
        peft_type: "LORA",
        task_type: "CAUSAL_LM",
        base_model_name_or_path: baseModel,
        bias: "none",
        inference_mode: true,
        ...config,
      },
      null,
      2,
    ) + "\n",
  );
}
