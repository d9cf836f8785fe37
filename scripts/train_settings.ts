/**
 * The settings that training and its plan share and those of training alone, as flags and in `--config FILE`.
 * They name a model, what is trained of it, how conversations are written, and what the machine has.
 */
import { z } from "zod";
import { textSchema } from "../core/text/codec.ts";
import { trainSchema } from "../gpu/train.ts";
import { loraFlags } from "./lora_settings.ts";
import { modelFlags } from "./model.ts";
import { weightSettings } from "./weights.ts";

export const tuningSettings = trainSchema.extend({
  ...modelFlags,
  ...loraFlags,
  trainable: z.array(z.string()).default([]).describe(
    "regular expressions on parameters trained directly, without adapter",
  ),
  ...textSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  memory: z.number().positive().optional().describe(
    "GB that a step may take (default: the free memory where the adapter uses it, what a known card has)",
  ),
  gflops: z.number().positive().optional().describe(
    "GFLOP/s to tell the time of a step by (default: measured on the adapter)",
  ),
});
export type TuningSettings = z.infer<typeof tuningSettings>;

export const trainSettings = tuningSettings.extend({
  data: z.string().describe("conversations in LLaVA's or Qwen-VL's JSON"),
  images: z.string().describe("folder that the records' image paths start from"),
  out: z.string().describe("folder of the run"),
  evalData: z.string().optional().describe("held-out conversations, answered before and after"),
  evalImages: z.string().optional().describe("its images (default: --images)"),
  evalEvery: z.number().int().positive().optional().describe(
    "steps between two looks at them in training (default: none)",
  ),
  evalLimit: z.number().int().positive().optional().describe(
    "how many of them, spread over the file (default: all)",
  ),
});
