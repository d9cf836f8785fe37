/**
 * `deno task parity`: how close this project comes to transformers + peft on one folder of their numbers (`--case DIR`),
 * and to Pillow, transformers and scikit-learn on another (`--inputs DIR`). Refuses both at once and neither.
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { inputsParity } from "../core/parity_inputs.ts";
import { openGpu } from "../gpu/device.ts";
import { runParity } from "../gpu/parity.ts";
import { runTask } from "./cli.ts";
import { DiskFolder } from "./folder.ts";
import { weightSettings, weightsOf } from "./weights.ts";

await runTask({
  name: "parity",
  summary:
    "Compare a model, its gradients and training, or image processors and probes, with Python's numbers",
  schema: z.object({
    case: z.string().optional().describe("folder with config.json, weights, adapter/ and case.safetensors"),
    inputs: z.string().optional().describe(
      "folder with images/, preprocess.*, probe.safetensors, metrics.json",
    ),
    ...weightSettings,
    adapter: z.string().optional().describe("WebGPU adapter by name or index"),
  }),
  examples: [
    "deno task parity --case tests/fixtures/models/llava",
    "deno task parity --inputs tests/fixtures/inputs",
  ],
  async run(config) {
    if ((config.case === undefined) === (config.inputs === undefined)) {
      throw new InputError("Cannot compare: give either --case or --inputs");
    }
    if (config.inputs !== undefined) {
      const found = await inputsParity(new DiskFolder(config.inputs), (line) => console.error(line));
      return console.log(JSON.stringify(found));
    }
    const gpu = await openGpu(config.adapter);
    console.error(`On ${gpu.name}`);
    console.log(JSON.stringify(await runParity(gpu, new DiskFolder(config.case!), weightsOf(config))));
    gpu.close();
  },
});
