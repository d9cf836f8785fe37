/**
 * LoRA adapters as peft writes and reads them: adapter_config.json and adapter_model.safetensors.
 * Refuses variants that change the mathematics (DoRA, patterns, trained biases) instead of ignoring them.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "./folder.ts";
import { encodeSafetensors, SafetensorsFile } from "./safetensors.ts";

export const loraSchema = z.object({
  r: z.number().int().positive().default(8).describe("rank of the adapters"),
  lora_alpha: z.number().positive().default(16).describe("scaling is lora_alpha / r"),
  lora_dropout: z.number().min(0).lt(1).default(0).describe("dropout in front of the adapters"),
  target_modules: z.union([z.string(), z.array(z.string())]).default("all-linear")
    .describe("module names, a regular expression, or all-linear"),
  use_rslora: z.boolean().default(false).describe("scale by lora_alpha / sqrt(r)"),
});
export type LoraConfig = z.infer<typeof loraSchema>;

/** What an unsupported field must hold, so that ignoring it changes nothing. */
const NEUTRAL: Record<string, unknown[]> = {
  bias: ["none"],
  use_dora: [false],
  fan_in_fan_out: [false],
  rank_pattern: [{}],
  alpha_pattern: [{}],
  modules_to_save: [null, []],
  layers_to_transform: [null],
  layer_replication: [null],
  lora_bias: [false],
  trainable_token_indices: [null],
  target_parameters: [null, []],
};

/** @throws InputError naming the file and a field that this reader would have to ignore */
export async function readAdapterConfig(folder: Folder): Promise<LoraConfig> {
  const name = "adapter_config.json";
  const json = await readJson(folder, name) as Record<string, unknown>;
  if (json.peft_type !== "LORA") {
    throw new InputError(
      `Cannot use "${folder.path}/${name}": peft_type is ${JSON.stringify(json.peft_type)}, expected "LORA"`,
    );
  }
  for (const [field, allowed] of Object.entries(NEUTRAL)) {
    const value = json[field];
    if (value !== undefined && !allowed.some((one) => JSON.stringify(one) === JSON.stringify(value))) {
      throw new InputError(
        `Cannot use "${folder.path}/${name}": ${field} is ${JSON.stringify(value)}, which is not supported`,
      );
    }
  }
  const parsed = loraSchema.safeParse(json);
  if (!parsed.success) {
    throw new InputError(`Cannot use "${folder.path}/${name}": ${z.prettifyError(parsed.error)}`);
  }
  return parsed.data;
}

/** peft's name of one matrix of the adapter beside a module. */
export function adapterKey(module: string, matrix: "A" | "B"): string {
  return `base_model.model.${module}.lora_${matrix}.weight`;
}

/** Whether an adapter goes beside this module, by peft's rules; `all-linear` leaves out the output head. */
export function isTarget(module: string, target: LoraConfig["target_modules"]): boolean {
  if (target === "all-linear") return !/(^|\.)lm_head$/.test(module);
  if (typeof target === "string") return new RegExp(`^(?:${target})$`).test(module);
  return target.some((name) => module === name || module.endsWith(`.${name}`));
}

/** The tensors of an adapter, by key. */
export async function readAdapter(
  folder: Folder,
): Promise<Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>> {
  const file = await SafetensorsFile.open(await folder.open("adapter_model.safetensors"));
  try {
    const out = new Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>();
    for (const [key, { shape }] of file.entries) out.set(key, { shape, data: await file.f32(key) });
    return out;
  } finally {
    file.source.close();
  }
}

/** Writes both files; peft's `PeftModel.from_pretrained` loads the folder. */
export async function writeAdapter(
  folder: Folder,
  config: LoraConfig,
  tensors: Record<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>,
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
