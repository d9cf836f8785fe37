/**
 * `deno task plan`: what a training step would take, from a config.json or a checkpoint folder, without reading weights:
 * parameters and shapes, memory by part, operations and time. Refuses nothing that is merely too large.
 */
import { z } from "zod";
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError, messageOf } from "../core/errors.ts";
import { type Folder, readJson } from "../core/formats/folder.ts";
import { createProcessor } from "../core/image/processors.ts";
import { listAdapters, openGpu } from "../gpu/device.ts";
import { ANY_DEVICE } from "../gpu/dry_gpu.ts";
import { createModel } from "../gpu/models/create.ts";
import { gigabytes, type Plan, planStep, remedies } from "../gpu/plan.ts";
import { impliedProcessor, sampleOfSize } from "../gpu/plan_samples.ts";
import { secondsOf } from "../gpu/rate.ts";
import { runTask } from "./cli.ts";
import { openDataset } from "./dataset.ts";
import { adaptersOf, loraOf } from "./lora_settings.ts";
import { memoryBudget } from "./memory.ts";
import { modelFolder } from "./model.ts";
import { planInput, planText, samplesOf, speedOf } from "./plan_step.ts";
import { tuningSettings } from "./train_settings.ts";

const settingsSchema = tuningSettings.extend({
  config: z.string().optional().describe("config.json of a model, instead of --model"),
  data: z.string().optional().describe("data set whose samples are taken, instead of the three sizes below"),
  images: z.union([z.number().int().min(0), z.string()]).default(1).describe(
    "pictures of a sample; with --data their folder",
  ),
  tokens: z.number().int().min(2).default(256).describe(
    "text tokens of a sample, the second half its answer",
  ),
  imageSize: z.string().regex(/^\d+x\d+$/, 'expected "640x480"').default("640x480").describe(
    "width and height of a picture before it is processed",
  ),
  json: z.boolean().default(false).describe("print one JSON object instead of text"),
});
type Settings = z.infer<typeof settingsSchema>;

await runTask({
  name: "plan",
  summary: "Tell what a training step would take, without reading weights",
  schema: settingsSchema,
  settingsFlag: "settings",
  examples: [
    "deno task plan --config Qwen2-VL-2B-Instruct.json --weights bf16 --checkpointed --gflops 30000 --memory 24",
    "deno task plan --model builtin:tiny --data runs/r50/data.json --images runs/r50/images",
  ],
  async run(settings) {
    const base = settings.config ? undefined : await modelFolder(settings.model, settings);
    const json = base ? await readJson(base, "config.json") : await readConfig(settings.config!);
    const lora = base ? (await adaptersOf(settings, base)).lora : loraOf(settings);
    const adapters = settings.gflops === undefined ? await listAdapters() : [];
    const gpu = adapters.length ? await openGpu(settings.adapter) : undefined;
    const device = gpu ? { name: gpu.name, limits: gpu.device.limits } : ANY_DEVICE;
    const input = planInput(json, settings, lora, device, await chooseSamples(settings, json, base));
    const plan = planStep(input), speed = await speedOf(plan, settings.gflops, gpu);
    const budget = gpu || settings.memory !== undefined
      ? memoryBudget({ name: device.name, isCpu: gpu?.isCpu ?? false }, settings.memory)
      : undefined;
    if (settings.json) {
      const seconds = speed && secondsOf(plan, speed.rate);
      console.log(JSON.stringify({ ...plan, seconds, gflops: speed && speed.rate.flops / 1e9, budget }));
    } else {
      console.log(shapesText(plan));
      console.log(planText(plan, budget, speed));
      const smaller = remedies(input, plan).map(({ what, bytes }) => `${what} ${gigabytes(bytes)}`);
      if (smaller.length) console.log(`  smaller     ${smaller.join(", ")}`);
    }
    gpu?.close();
  },
});

async function readConfig(path: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new InputError(`Cannot read the model's config "${path}": ${messageOf(error)}`);
  }
}

async function chooseSamples(settings: Settings, json: unknown, base?: Folder): Promise<EncodedSample[]> {
  const { data, images, tokens, imageSize } = settings;
  if (data !== undefined) {
    if (!base || typeof images !== "string") {
      throw new InputError("Cannot use --data: it needs a checkpoint folder as --model, and --images FOLDER");
    }
    return await samplesOf(await openDataset(data, images), base, settings);
  }
  if (typeof images !== "number") {
    throw new InputError(`Cannot use --images "${images}": without --data it is the number of pictures`);
  }
  const model = createModel(json), name = "preprocessor_config.json";
  const processor = base && await base.exists(name)
    ? createProcessor(await readJson(base, name), `${base.path}/${name}`)
    : impliedProcessor(json);
  const [width, height] = imageSize.split("x").map(Number);
  return [sampleOfSize(model, processor, { tokens, images: processor ? images : 0, width, height })];
}

/** One line a tensor, numbered layers once. */
function shapesText({ shapes }: Plan): string {
  const lines = Object.entries(shapes).map(([name, { shape, count }]): [string, string] => [
    name,
    `(${shape.join(", ")})${count > 1 ? ` x ${count}` : ""}`,
  ]);
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, shape]) => `${name.padEnd(width)}  ${shape}`).join("\n");
}
