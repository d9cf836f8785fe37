/**
 * From a config.json to a model: the one place that knows which family a model_type belongs to.
 */
import { z } from "zod";
import { InputError } from "../../core/errors.ts";
import { createIdefics3 } from "./idefics3.ts";
import { createLlama } from "./llama.ts";
import { createLlava } from "./llava.ts";
import type { Model } from "./model.ts";
import { createQwen25Vl } from "./qwen2_5_vl.ts";
import { createQwen2Vl } from "./qwen2_vl.ts";
import { createQwenVl } from "./qwen_vl.ts";

const FAMILIES: Record<string, (json: unknown) => Model> = {
  idefics3: createIdefics3,
  llama: createLlama,
  llava: createLlava,
  qwen2_vl: createQwen2Vl,
  qwen2_5_vl: createQwen25Vl,
  smolvlm: createIdefics3,
  qwen: createQwenVl,
};

/** @throws InputError for a model_type that is not supported, listing those that are */
export function createModel(json: unknown): Model {
  const parsed = z.looseObject({ model_type: z.string() }).safeParse(json);
  if (!parsed.success) throw new InputError('Cannot use this config: it has no "model_type"');
  const create = FAMILIES[parsed.data.model_type];
  if (!create) {
    throw new InputError(
      `Cannot use the model type "${parsed.data.model_type}": supported are ${
        Object.keys(FAMILIES).join(", ")
      }`,
    );
  }
  return create(json);
}
