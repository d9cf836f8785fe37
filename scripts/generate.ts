/**
 * `deno task generate`: what a model, tuned or not, says to a prompt with pictures, or how it continues a text or token
 * ids. Refuses pictures where nothing but text is continued, and more than one source of a prompt or of a tuning.
 */
import { basename, dirname } from "node:path";
import { z } from "zod";
import { type EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { type Folder } from "../core/formats/folder.ts";
import { promptSchema } from "../core/text/codec.ts";
import { openTokenizer } from "../core/text/open_tokenizer.ts";
import { firstStop, settledLength } from "../core/text/stop_texts.ts";
import { textStream } from "../core/text/text_stream.ts";
import { spokenText, type Tokenizer } from "../core/text/tokenizer.ts";
import { type Gpu, openGpu } from "../gpu/device.ts";
import { generate } from "../gpu/generate.ts";
import type { Model } from "../gpu/models/model.ts";
import { openPeft, openTunedPeft } from "../gpu/peft.ts";
import { openRun, openSession, openTuned, openTunedRun } from "../gpu/session.ts";
import { interruptSignal, runTask } from "./cli.ts";
import { loadPicture } from "./dataset.ts";
import { DiskFolder } from "./folder.ts";
import { modelFlags, modelFolder } from "./model.ts";
import { weightSettings, weightsOf } from "./weights.ts";

const schema = z.object({
  ...modelFlags,
  run: z.string().optional().describe("folder of a finished run of that model"),
  peft: z.string().optional().describe("folder of an adapter that peft wrote, instead of a run"),
  prompt: z.string().optional().describe("what the model is asked, in its chat template"),
  image: z.array(z.string()).default([]).describe("pictures, in front of the prompt"),
  raw: z.boolean().default(false).describe("continue the prompt as it is, without a chat template"),
  ids: z.array(z.number().int().min(0)).optional().describe("token ids to continue, instead of a prompt"),
  maxTokens: z.number().int().positive().default(128).describe("most tokens to generate"),
  temperature: z.number().min(0).default(0).describe("0 takes the likeliest token, above 0 draws"),
  topK: z.number().int().min(0).default(0).describe("draw among the k likeliest, 0 for all"),
  topP: z.number().positive().max(1).default(1).describe(
    "draw among the likeliest that hold this share of the probability",
  ),
  repetitionPenalty: z.number().positive().default(1).describe(
    "above 1 makes tokens seen before less likely",
  ),
  stop: z.array(z.string().min(1)).default([]).describe("texts at which to stop"),
  seed: z.number().int().default(0).describe("of the draws"),
  stream: z.boolean().default(false).describe("print while it is generated"),
  json: z.boolean().default(false).describe("print one object with text, ids, log-probabilities and end"),
  ...promptSchema.shape,
  ...weightSettings,
  adapter: z.string().optional().describe("WebGPU adapter by name or index"),
});
type Config = z.infer<typeof schema>;

interface Ready {
  model: Model;
  tokenizer: Tokenizer;
  prompt: EncodedSample;
}

await runTask({
  name: "generate",
  summary: "Print what a model says to a prompt and pictures",
  schema,
  examples: [
    'deno task generate --image photo.png --prompt "what color is the circle"',
    'deno task generate --model SmolLM2 --raw --prompt "The capital of France" --temperature 0.8 --stream',
  ],
  async run(config) {
    check(config);
    const base = await modelFolder(config.model, config), gpu = await openGpu(config.adapter);
    const { model, tokenizer, prompt } = await open(gpu, base, config), decode = spokenText(tokenizer);
    const show = config.stream ? printer(decode, config.stop) : undefined, started = performance.now();
    const [result] = await generate(gpu, model, [prompt], {
      ...config,
      eos: tokenizer.stops,
      decode,
      signal: interruptSignal(),
      onToken: (_, ids) => {
        if (!tokenizer.stops.includes(ids.at(-1)!)) show?.push(ids.at(-1)!);
      },
    });
    const seconds = (performance.now() - started) / 1000, { length } = result.ids;
    if (show) show.end(result.text);
    else console.log(config.json ? JSON.stringify(result) : result.text);
    console.error(
      `${prompt.ids.length} tokens read, ${length} generated in ${
        seconds.toFixed(1)
      } s, ended by ${result.ended}`,
    );
    gpu.close();
  },
});

function check({ run, peft, prompt, ids, raw, image, stream, json }: Config): void {
  const refuse = (wrong: boolean, why: string) => {
    if (wrong) throw new InputError(`Cannot generate: ${why}`);
  };
  refuse(run !== undefined && peft !== undefined, "--run and --peft are given, expected one of them");
  refuse((prompt === undefined) === (ids === undefined), "give either --prompt or --ids");
  refuse((raw || ids !== undefined) && image.length > 0, "pictures need a prompt in a chat template");
  refuse(stream && json, "--stream and --json are given, expected one of them");
}

async function open(gpu: Gpu, base: Folder, config: Config): Promise<Ready> {
  const { run, peft, prompt, ids: given } = config, weights = weightsOf(config);
  if (config.raw || given) {
    const { model } = run
      ? await openTunedRun(gpu, base, new DiskFolder(run), weights)
      : peft
      ? await openTunedPeft(gpu, base, new DiskFolder(peft), { weights })
      : await openTuned(gpu, base, { weights });
    const tokenizer = await openTokenizer(base), { bos, addsBos } = tokenizer;
    const ids = given ?? [...addsBos && bos !== undefined ? [bos] : [], ...tokenizer.encode(prompt!)];
    return { model, tokenizer, prompt: { id: "prompt", ids, labels: ids.map(() => -100), images: [] } };
  }
  const text = promptSchema.parse(config);
  const { model, encoder } = run
    ? await openRun(gpu, base, new DiskFolder(run), weights, text)
    : peft
    ? await openPeft(gpu, base, new DiskFolder(peft), { weights, text })
    : await openSession(gpu, base, { weights, text });
  const pictures = await Promise.all(
    config.image.map((path) => loadPicture(dirname(path), basename(path), "the prompt")),
  );
  return { model, tokenizer: encoder.text.tokenizer, prompt: encoder.ask("prompt", prompt!, pictures) };
}

/** Prints text as tokens come: whole characters, and nothing that a stop text may yet take away. */
function printer(decode: Tokenizer["decode"], stops: readonly string[]) {
  const stream = textStream({ decode });
  let text = "", shown = 0;
  const showTo = (end: number) => {
    if (end > shown) Deno.stdout.writeSync(new TextEncoder().encode(text.slice(shown, end)));
    shown = Math.max(shown, end);
  };
  return {
    push(id: number) {
      text += stream.push(id);
      const cut = firstStop(text, stops);
      showTo(cut < 0 ? settledLength(text, stops) : cut);
    },
    end(whole: string) {
      text = whole;
      showTo(whole.length);
      console.log();
    },
  };
}
