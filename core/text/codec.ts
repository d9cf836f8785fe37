/**
 * Text of a conversation to token ids and back, as one model wants it: the tokenizer and the chat template of a
 * checkpoint folder. Refuses a folder without a template that fits, and one whose image token the model does not know.
 */
import { z } from "zod";
import type { ImageMarker } from "../data/pack.ts";
import { questionParts, type Turn } from "../data/sample.ts";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { BUILTIN_TEMPLATES, renderBuiltin } from "./builtin_templates.ts";
import type { Chat, ChatPicture, Rendering } from "./chat.ts";
import { compileTemplate, findChatTemplate, renderTemplate } from "./chat_template.ts";
import { type EncodedText, encodeSegments, isSpecialToken } from "./encode_segments.ts";
import { openTokenizer } from "./open_tokenizer.ts";
import { PICTURE_TEXTS, type PictureText, withMarkup } from "./picture_text.ts";
import { encodeConversation, encodePrompt, IGNORE, IMAGE } from "./tiny.ts";
import { contentOf } from "./added_tokens.ts";
import { readTokenSettings } from "./token_settings.ts";
import { spokenText, type Tokenizer } from "./tokenizer.ts";

const system = z.string().optional().describe(
  "system prompt in place of the template's own; empty for none",
);
const template = z.enum(["auto", "checkpoint", "vicuna_v1", "chatml", "tiny"]);

/** How conversations are written. */
export const textSchema = z.object({
  template: template.default("auto").describe(
    "chat template: the checkpoint's own, a built-in one, or auto: the own one where there is one",
  ),
  system,
  date: z.iso.date().default("2024-07-26").describe("the day that a template which asks for it is told"),
  maxLength: z.number().int().min(0).optional().describe(
    "tokens after which a conversation is cut; 0 for never (default: the positions of the model)",
  ),
});
export type TextOptions = z.infer<typeof textSchema>;

/** The same for tasks that use a finished run, and with it the run's own way. */
export const promptSchema = z.object({
  template: template.optional().describe("chat template (default: as the run was trained, else auto)"),
  system,
});

/** What of a model decides how its text is written. */
export interface TextModel {
  readonly family: string;
  readonly imageToken?: ImageMarker;
}

export interface TextCodec {
  readonly tokenizer: Tokenizer;
  /** The template in use: "tiny", "vicuna_v1", "chatml", or the file that it is from. */
  readonly template: string;
  /** Ids and labels (-100 where nothing is learnt) of a whole conversation; `markers` also those of turns. */
  conversation(
    turns: readonly Turn[],
    pictures: readonly ChatPicture[],
    options?: { markers?: boolean },
  ): EncodedText;
  /** Up to where the answer would start, the pictures before the question. */
  prompt(question: string, pictures: readonly ChatPicture[]): EncodedText;
  /** Of what the model says, without special tokens. */
  decode(ids: readonly number[]): string;
  readonly eos?: number;
}

/** @throws InputError when tokenizer, template and model do not fit one another, naming the file or the token */
export async function openTextCodec(
  folder: Folder,
  model: TextModel,
  options: Partial<TextOptions> = {},
): Promise<TextCodec> {
  const text = textSchema.parse(options), tokenizer = await openTokenizer(folder);
  const isTiny = await isTinyFolder(folder);
  if (isTiny !== (text.template === "tiny") && (text.template !== "auto")) {
    throw new InputError(
      `Cannot use the template "${text.template}" with "${folder.path}": "tiny" goes with the tokenizer "builtin:tiny" alone`,
    );
  }
  const common = { tokenizer, eos: tokenizer.eos, decode: spokenText(tokenizer) };
  if (isTiny) return { ...common, template: "tiny", ...tinyTexts };

  const family = PICTURE_TEXTS[model.family];
  const image = family && { token: family.token, id: imageId(folder, tokenizer, family, model) };
  const { name, render } = await chooseTemplate(folder, tokenizer, model, family, text);
  const encode = (chat: Chat, pictures: readonly ChatPicture[], markers?: boolean) => {
    if (pictures.length && !family) {
      throw new InputError(`a "${model.family}" model reads text only, ${pictures.length} pictures given`);
    }
    const rendering = render(chat, pictures);
    return encodeSegments(tokenizer, family ? withMarkup(rendering, family) : rendering, { image, markers });
  };
  return {
    ...common,
    template: name,
    conversation: (turns, pictures, { markers } = {}) => {
      if (turns.length === 0) throw new InputError("it has no turn");
      const parts = questionParts(turns, pictures.length);
      const asked = turns.map(({ answer }, i) => ({ question: parts[i], answer }));
      return encode({ system: text.system, turns: asked }, pictures, markers);
    },
    prompt: (question, pictures) => {
      const [parts] = questionParts([{ question }], pictures.length);
      return encode({ system: text.system, turns: [{ question: parts }] }, pictures);
    },
  };
}

/** Whether training teaches what ends an answer; llava-hf's own template writes nothing there. */
export function teachesEnd({ tokenizer, conversation }: TextCodec): boolean {
  const { labels } = conversation([{ question: "a", answer: "b" }], []);
  const last = labels.findLast((label) => label !== IGNORE);
  return last !== undefined && tokenizer.decode([last]).trim() === "";
}

async function isTinyFolder(folder: Folder): Promise<boolean> {
  if (!await folder.exists("tokenizer.json")) return false;
  return (await readJson(folder, "tokenizer.json") as { type?: unknown } | null)?.type === "builtin:tiny";
}

/** The built-in model's form: pictures of the first question before everything, later ones behind `<user>`. */
const tinyTexts: Pick<TextCodec, "conversation" | "prompt"> = {
  conversation: (turns, pictures) => {
    const parts = questionParts(turns, pictures.length);
    const tokens = parts.map((question) =>
      question.reduce(
        (sum: number, part) => sum + (typeof part === "number" ? pictures[part].features : 0),
        0,
      )
    );
    const { ids, labels } = encodeConversation(
      turns.map((turn, i) => ({ ...turn, imageTokens: i === 0 ? 0 : tokens[i] })),
      { imageTokens: tokens[0] ?? 0 },
    );
    return { ids, labels, pictures: tinySpans(ids, pictures) };
  },
  prompt: (question, pictures) => {
    const ids = encodePrompt(question, {
      imageTokens: pictures.reduce((sum, { features }) => sum + features, 0),
    });
    return { ids, labels: ids.map(() => IGNORE), pictures: tinySpans(ids, pictures) };
  },
};

function tinySpans(ids: readonly number[], pictures: readonly ChatPicture[]): [number, number][] {
  const images = [...ids.keys()].filter((i) => ids[i] === IMAGE);
  let at = 0;
  return pictures.map(({ features }) => {
    const from = images[at];
    at += features;
    return [from, from + features];
  });
}

/** The id that stands for an image feature. @throws InputError when tokenizer and model disagree about it */
function imageId(folder: Folder, tokenizer: Tokenizer, family: PictureText, model: TextModel): number {
  const marker = model.imageToken, own = tokenizer.idOf(family.token);
  const disagree = (token: string, id: number | undefined, expected: number | undefined) =>
    new InputError(
      `Cannot use "${folder.path}": its tokenizer gives ${token} the id ${id ?? "none"}, its config.json ${
        expected ?? "none"
      }`,
    );
  if (typeof marker === "object") {
    for (const [token, expected] of [["<img>", marker.start], ["</img>", marker.end]] as const) {
      if (tokenizer.idOf(token) !== expected) throw disagree(token, tokenizer.idOf(token), expected);
    }
    if (own === undefined) throw disagree(family.token, own, undefined);
    return own;
  }
  // LLaVA's original checkpoints have no such token: the model's own number then stands beyond the vocabulary.
  const beyond = own === undefined && marker !== undefined && marker >= tokenizer.size;
  if (marker === undefined || (own !== marker && !beyond)) throw disagree(family.token, own, marker);
  return marker;
}

interface ChosenTemplate {
  name: string;
  render(chat: Chat, pictures: readonly ChatPicture[]): Rendering;
}

async function chooseTemplate(
  folder: Folder,
  tokenizer: Tokenizer,
  model: TextModel,
  family: PictureText | undefined,
  { template, date }: TextOptions,
): Promise<ChosenTemplate> {
  const own = template === "auto" || template === "checkpoint" ? await findChatTemplate(folder) : undefined;
  if (own) {
    const named = Object.entries((await readTokenSettings(folder)).named);
    const tokens: Record<string, string> = Object.fromEntries(
      named.map(([name, token]) => [name, contentOf(token)]),
    );
    const spell = (id: number | undefined) =>
      id === undefined ? "" : tokenizer.decode([id], { special: true });
    tokens.bos_token ??= spell(tokenizer.bos);
    tokens.eos_token ??= spell(tokenizer.eos);
    const render = compileTemplate(
      { ...own, file: `${folder.path}/${own.file}` },
      { tokens, date: new Date(`${date}T00:00:00Z`), lists: family !== undefined },
    );
    const isSpecial = (token: string) => isSpecialToken(tokenizer, token);
    return {
      name: own.file,
      render: (chat, pictures) => renderTemplate(render, chat, family, pictures, isSpecial),
    };
  }
  const name = template === "vicuna_v1" || template === "chatml"
    ? template
    : fallback(folder, tokenizer, model, template);
  const needed = { vicuna_v1: ["</s>"], chatml: ["<|im_start|>", "<|im_end|>"] }[name];
  const missing = needed.find((token) => !isSpecialToken(tokenizer, token));
  if (missing) {
    throw new InputError(
      `Cannot use the template "${name}" with "${folder.path}": its tokenizer has no special token ${missing}`,
    );
  }
  const builtin = BUILTIN_TEMPLATES[name];
  return { name, render: (chat, pictures) => renderBuiltin(builtin, chat, family, pictures) };
}

/** What the families that come without a template were tuned in. */
function fallback(
  folder: Folder,
  tokenizer: Tokenizer,
  { family }: TextModel,
  template: string,
): keyof typeof BUILTIN_TEMPLATES {
  if (template === "auto") {
    if (isSpecialToken(tokenizer, "<|im_start|>")) return "chatml";
    if (family === "llava" || family === "llama") return "vicuna_v1";
  }
  throw new InputError(
    `Cannot find a chat template in "${folder.path}": it has no chat_template.jinja and no "chat_template"; choose --template vicuna_v1 or chatml`,
  );
}
