/**
 * The settings of adapters as flags: peft's own, a file with them, or an adapter to start from. Refuses flags beside a
 * file or an adapter that would overrule them, and settings that do not fit together.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { type AdapterTensor, type LoraConfig, parseLora } from "../core/formats/peft.ts";
import { createModel } from "../gpu/models/create.ts";
import { readPeft } from "../gpu/peft.ts";
import { DiskFolder } from "./folder.ts";

const shape = {
  r: z.number().int().min(0).default(8).describe("rank of the adapters; 0 for none"),
  loraAlpha: z.number().positive().default(16).describe("scaling is alpha / r"),
  loraDropout: z.number().min(0).lt(1).default(0).describe("dropout in front of the adapters"),
  targetModules: z.union([z.string(), z.array(z.string())]).default("all-linear").describe(
    "all-linear, names (q_proj,v_proj), or a regular expression for whole names",
  ),
  layersToTransform: z.array(z.number().int()).optional().describe("layers that get adapters (default: all)"),
  modulesToSave: z.array(z.string()).default([]).describe(
    "modules trained whole and kept with the adapters: multi_modal_projector",
  ),
  useRslora: z.boolean().default(false).describe("scale by alpha / sqrt(r)"),
};

export const loraFlags = {
  ...shape,
  loraConfig: z.string().optional().describe("JSON file with peft's LoraConfig, instead of the flags above"),
  adapterFrom: z.string().optional().describe("folder of a peft adapter to go on from, with its settings"),
};
const flagsSchema = z.object(loraFlags);
export type LoraFlags = z.infer<typeof flagsSchema>;

/** Null where no adapters are wanted. @throws InputError for settings that do not fit together */
export function loraOf(flags: LoraFlags): LoraConfig | null {
  const { r, loraAlpha, loraDropout, targetModules, layersToTransform, modulesToSave, useRslora } = flags;
  if (flags.loraConfig !== undefined) {
    refuseOthers(flags, "--lora-config");
    return readConfig(flags.loraConfig);
  }
  if (r === 0) {
    if (modulesToSave.length) {
      throw new InputError("Cannot use --modules-to-save with --r 0: use --trainable");
    }
    return null;
  }
  return parseLora({
    r,
    lora_alpha: loraAlpha,
    lora_dropout: loraDropout,
    target_modules: namesOf(targetModules),
    use_rslora: useRslora,
    ...(layersToTransform && { layers_to_transform: layersToTransform }),
    ...(modulesToSave.length && { modules_to_save: modulesToSave }),
  }, "the settings of the adapters");
}

/**
 * What adapters a model starts with, and the values of those that an earlier training left.
 * @throws InputError for settings that do not fit together, or an adapter that does not fit the model
 */
export async function adaptersOf(
  flags: LoraFlags,
  base: Folder,
): Promise<{ lora: LoraConfig | null; tensors?: Map<string, AdapterTensor> }> {
  if (flags.adapterFrom === undefined) return { lora: loraOf(flags) };
  refuseOthers({ ...flags, adapterFrom: undefined }, "--adapter-from");
  const model = createModel(await readJson(base, "config.json"));
  const { config, tensors } = await readPeft(model, new DiskFolder(flags.adapterFrom));
  return { lora: config, tensors };
}

/** Names, with or without dots between their parts, are names; what holds anything else is a regular expression. */
function namesOf(target: LoraFlags["targetModules"]): LoraConfig["target_modules"] {
  const isNames = typeof target === "string" && target !== "all-linear" && /^[\w.]+(,[\w.]+)*$/.test(target);
  return isNames ? target.split(",") : target;
}

function readConfig(path: string): LoraConfig {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    throw new InputError(`Cannot read the config "${path}": ${(error as Error).message}`);
  }
  return parseLora(json, path);
}

function refuseOthers(flags: LoraFlags, source: string): void {
  const plain = z.object(shape).parse({}) as Record<string, unknown>;
  const given = Object.keys(shape).filter((key) =>
    JSON.stringify(flags[key as keyof LoraFlags]) !== JSON.stringify(plain[key])
  );
  if (source === "--adapter-from" && flags.loraConfig !== undefined) given.push("loraConfig");
  if (given.length) {
    throw new InputError(
      `Cannot use ${source} together with "${given.join('", "')}": it brings those settings`,
    );
  }
}
