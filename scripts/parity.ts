/**
 * `deno task parity --case DIR`: how close this project comes to transformers + peft on one folder of their numbers.
 */
import { z } from "zod";
import { openGpu } from "../gpu/device.ts";
import { runParity } from "../gpu/parity.ts";
import { runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";

await runTask({
  name: "parity",
  summary:
    "Compare logits, hidden states, gradients and ten training steps with what transformers + peft computed",
  schema: z.object({
    case: z.string().describe("folder with config.json, the weights, adapter/ and case.safetensors"),
    weights: z.enum(["f32", "bf16"]).default("f32").describe("how frozen matrices lie on the GPU"),
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: ["deno task parity --case tests/fixtures/models/llava"],
  async run(config) {
    const gpu = await openGpu(config.adapter);
    console.error(`On ${gpu.name}`);
    console.log(JSON.stringify(await runParity(gpu, new DiskFolder(config.case), config.weights)));
    gpu.close();
  },
});
