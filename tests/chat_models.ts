/**
 * Tiny checkpoint folders of every family with a tokenizer and a chat template, from `fixtures/chat`, and random weights
 * for them. Everything follows from seeds.
 */
import { MemoryFolder } from "../core/formats/folder.ts";
import { encodeSafetensors } from "../core/formats/safetensors.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { createModel } from "../gpu/models/create.ts";
import { FIXTURES } from "./check.ts";

export const CHAT_FIXTURES = `${FIXTURES}/chat`;

interface Labelled {
  chat: number;
  ids: number[];
  labels: number[];
}
interface ChatCases {
  /** Width and height of the pictures. */
  sizes: [number, number][];
  chats: { system?: string; turns: [(string | number)[], string | null][] }[];
  templates: Record<string, string>;
  tokens: Record<string, Record<string, string | boolean>>;
  families: Record<string, { tokenizer: string; processor: Record<string, unknown> | null }>;
  cases: { family: string; chat: number; text: string; ids: number[] }[];
  vicuna_v1: Labelled[];
  chatml: Labelled[];
}
export const chatCases: ChatCases = JSON.parse(await Deno.readTextFile(`${CHAT_FIXTURES}/cases.json`));

/** Which tokenizer a family takes; Qwen-VL and Vicuna come without template. */
const tokenizerOf = (family: string) =>
  chatCases.families[family]?.tokenizer ?? { qwen_vl: "qwen", llama: "llama" }[family]!;

/** The config of `fixtures/models` with the tokenizer's vocabulary and image token. */
// deno-lint-ignore no-explicit-any
export function chatConfig(family: string): any {
  const source = family === "smollm2" ? "llama" : family;
  const config = JSON.parse(Deno.readTextFileSync(`${FIXTURES}/models/${source}/config.json`));
  const text = config.text_config ?? config;
  text.vocab_size = 400;
  text.num_hidden_layers = 1;
  if (config.vision_config?.depth) config.vision_config.depth = 2;
  else if (config.vision_config) config.vision_config.num_hidden_layers = 2;
  if (config.visual) config.visual.layers = 1;
  const token = { llava: 392, qwen2_vl: 305, qwen2_5_vl: 305, smolvlm: 305, idefics3: 305 }[family];
  if (token !== undefined) {
    config.image_token_id = token;
    delete config.image_token_index;
  }
  if (config.visual) config.visual.image_start_id = 307;
  return config;
}

/** A checkpoint folder without weights: config, tokenizer, template and processor. */
export async function chatFolder(family: string): Promise<MemoryFolder> {
  const folder = new MemoryFolder(family), tokenizer = tokenizerOf(family);
  const { tokens, templates, families } = chatCases;
  await folder.write("config.json", JSON.stringify(chatConfig(family)));
  await folder.write("tokenizer.json", await Deno.readTextFile(`${CHAT_FIXTURES}/${tokenizer}.json`));
  await folder.write("tokenizer_config.json", JSON.stringify(tokens[tokenizer]));
  if (templates[family]) await folder.write("chat_template.jinja", templates[family]);
  const processor = families[family]?.processor;
  if (processor) await folder.write("preprocessor_config.json", JSON.stringify(processor));
  return folder;
}

/** The same with random weights. */
export async function chatCheckpoint(family: string, seed = 1): Promise<MemoryFolder> {
  const folder = await chatFolder(family), tensors: Parameters<typeof encodeSafetensors>[0] = {};
  for (const { name, shape, used } of createModel(chatConfig(family)).registry.params.values()) {
    if (!used) continue;
    const random = new Random(seed, name), isNorm = shape.length === 1 && name.endsWith(".weight");
    const std = shape.length === 1 ? 0.1 : 1 / Math.sqrt(sizeOf(shape.slice(1)));
    const draw = () => (isNorm ? 1 : 0) + std * random.normal();
    tensors[name] = { shape: [...shape], data: Float32Array.from({ length: sizeOf(shape) }, draw) };
  }
  await folder.write("model.safetensors", encodeSafetensors(tensors));
  return folder;
}
