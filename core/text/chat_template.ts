/**
 * A checkpoint's own chat template, in Jinja, rendered as transformers' apply_chat_template renders it and cut into
 * segments. Refuses templates that fail, that lose or change a text, or that write another number of pictures.
 */
import { Template } from "@huggingface/jinja";
import { z } from "zod";
import { InputError, messageOf } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import type { Chat, ChatPicture, Rendering, Segment } from "./chat.ts";
import { pictureSegment, type PictureText } from "./picture_text.ts";
import { rewriteStrips, STRIP_NAME, stripOfPython } from "./jinja_strip.ts";
import { strftime } from "./strftime.ts";

const named = z.array(z.looseObject({ name: z.string(), template: z.string() }));
const fieldSchema = z.looseObject({ chat_template: z.union([z.string(), named]).nullish() });

export interface ChatTemplate {
  /** The file that it is from. */
  file: string;
  source: string;
}

/** The template of a folder, looked for where transformers looks, in its order; undefined for none. @throws InputError */
export async function findChatTemplate(folder: Folder): Promise<ChatTemplate | undefined> {
  const own = "chat_template.jinja";
  if (await folder.exists(own)) {
    return { file: own, source: new TextDecoder().decode(await folder.read(own)) };
  }
  for (const file of ["chat_template.json", "tokenizer_config.json"]) {
    if (!await folder.exists(file)) continue;
    const parsed = fieldSchema.safeParse(await readJson(folder, file));
    if (!parsed.success) {
      throw new InputError(
        `Cannot read "${folder.path}/${file}": "chat_template" is neither a text nor a list of named ones`,
      );
    }
    const field = parsed.data.chat_template;
    if (typeof field === "string") return { file, source: field };
    const source = field?.find(({ name }) => name === "default")?.template;
    if (source !== undefined) return { file, source };
  }
  return undefined;
}

export interface TemplateContext {
  /** bos_token, eos_token and so on, spelled. */
  tokens: Record<string, string>;
  /** What `strftime_now` tells: the day must not change what a run sees. */
  date: Date;
  /** Contents as lists of parts, as models that see pictures want them, or as one text. */
  lists: boolean;
}

/** A function from messages to text, the template compiled once. @throws InputError naming the file */
export function compileTemplate(
  { file, source }: ChatTemplate,
  { tokens, date, lists }: TemplateContext,
): (chat: Chat) => string {
  const failed = (thrown: unknown) =>
    new InputError(`Cannot use the chat template of "${file}": ${messageOf(thrown)}`);
  let compiled: Template;
  try {
    // The library's own strftime_now reads the clock and cannot be exchanged, but called by another name.
    compiled = new Template(source.replaceAll(/\bstrftime_now\b/g, "strftime_of_run"));
    rewriteStrips(compiled.parsed);
  } catch (thrown) {
    throw failed(thrown);
  }
  const text = (text: string) => lists ? [{ type: "text", text }] : text;
  return ({ system, turns }) => {
    const messages: unknown[] = system === undefined ? [] : [{ role: "system", content: text(system) }];
    for (const { question, answer } of turns) {
      const parts = question.map((part) =>
        typeof part === "string" ? { type: "text", text: part } : { type: "image" }
      );
      const content = lists && parts.length ? parts : text(question.join(""));
      messages.push({ role: "user", content });
      if (answer !== undefined) messages.push({ role: "assistant", content: text(answer) });
    }
    try {
      return compiled.render({
        messages,
        add_generation_prompt: turns.at(-1)?.answer === undefined,
        [STRIP_NAME]: stripOfPython,
        strftime_of_run: (format: string) => strftime(date, format),
        ...tokens,
      });
    } catch (thrown) {
      throw failed(thrown);
    }
  };
}

/**
 * Renders a conversation and tells the template's text from the texts given to it: a second rendering with a mark in
 * place of every text shows where each one stands, and must give the first one when the texts are put back.
 * @param isSpecial whether a token spelled so is special: where one follows an answer, it is the answer's end
 */
export function renderTemplate(
  render: (chat: Chat) => string,
  chat: Chat,
  family: PictureText | undefined,
  pictures: readonly ChatPicture[],
  isSpecial: (token: string) => boolean,
): Rendering {
  const texts: { text: string; learnt?: "answer" }[] = [];
  const mark = (text: string, learnt?: "answer") => `\uE000${texts.push({ text, learnt }) - 1}\uE001`;
  const marked: Chat = {
    ...(chat.system !== undefined && { system: mark(chat.system) }),
    turns: chat.turns.map(({ question, answer }) => ({
      question: question.length ? question.map((part) => typeof part === "string" ? mark(part) : part) : [],
      ...(answer !== undefined && { answer: mark(answer, "answer") }),
    })),
  };
  const cut = (chat: Chat) => render(chat).split(/\uE000(\d+)\uE001/);
  const pieces = cut(marked), real = render(chat);
  // What the template writes for the model to go on from: whatever stands behind it is the answer's.
  const { question } = marked.turns.at(-1)!;
  const prompt = cut({ ...marked, turns: [...marked.turns.slice(0, -1), { question }] }).at(-1)!;
  const segments: Segment[] = [];
  let seen = 0, at = 0, last: "answer" | undefined;
  const changes = new InputError(
    "the chat template changes, repeats or leaves out a text; choose another with --template",
  );
  pieces.forEach((piece, i) => {
    if (i % 2 === 0) {
      if (!real.startsWith(piece, at)) throw changes;
      at += piece.length;
      const { learnt } = texts[Number(pieces[i + 1])] ?? {};
      const given = learnt && piece.startsWith(prompt) ? prompt.length : piece.length;
      segments.push(
        ...ofTemplate(piece.slice(0, given), last === "answer"),
        { from: "template", text: piece.slice(given), learnt },
      );
      return;
    }
    const { text, learnt } = texts[Number(piece)];
    if (Number(piece) !== seen++) throw changes;
    const written = [text, text.trim(), text.trimStart(), text.trimEnd(), ...withoutLines(text)]
      .find((written) => real.startsWith(written + pieces[i + 1], at));
    if (written === undefined) throw changes;
    at += written.length;
    segments.push({ from: "text", text: written, learnt });
    last = learnt;
  });
  if (seen !== texts.length || at !== real.length) throw changes;
  return [placePictures(segments, family, pictures)];

  function ofTemplate(text: string, afterAnswer: boolean): Segment[] {
    const end = afterAnswer ? /^\s*(<[^<>\s]+>)/.exec(text) : null;
    if (!end || !isSpecial(end[1])) return [{ from: "template", text }];
    return [
      { from: "template", text: end[0], learnt: "answer" },
      { from: "template", text: text.slice(end[0].length) },
    ];
  }
}

/** What templates strip that spare spaces: line breaks at both ends, in front, behind. */
const withoutLines = (text: string) =>
  ["strip", "lstrip", "rstrip"].map((method) => stripOfPython(text, method, "\n"));

/** The template's placeholders exchanged for the pictures' text, first to last. */
function placePictures(
  segments: readonly Segment[],
  family: PictureText | undefined,
  pictures: readonly ChatPicture[],
): Segment[] {
  let next = 0;
  const placed = segments.flatMap((segment) => {
    if (segment.from !== "template" || !family) return [segment];
    return segment.text.split(family.placeholder).flatMap((text, i) => {
      const piece = { ...segment, text };
      if (i === 0) return [piece];
      const picture = pictures[next++];
      return picture ? [pictureSegment(family, picture), piece] : [piece];
    });
  });
  if (next !== pictures.length) {
    throw new InputError(`the chat template writes ${next} pictures, expected ${pictures.length}`);
  }
  return placed.filter(({ text }) => text !== "");
}
