/**
 * The two templates of the study that no checkpoint brings along: Vicuna v1, in which LLaVA-1.5 is tuned, and Qwen's
 * ChatML. Labels fall as in the published training code of either.
 */
import type { Chat, ChatPart, ChatPicture, Rendering, Segment } from "./chat.ts";
import { type PictureText, writtenPicture } from "./picture_text.ts";

/** A template is given what writes picture `index`. */
export type BuiltinTemplate = (chat: Chat, write: (index: number) => Segment[]) => Rendering;

const template = (text: string, learnt?: Segment["learnt"]): Segment => ({ from: "template", text, learnt });
const plain = (text: string, learnt?: Segment["learnt"]): Segment => ({ from: "text", text, learnt });

const VICUNA_SYSTEM = "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";

/**
 * `SYSTEM USER: question ASSISTANT: answer</s>USER: ...`, a question's pictures in front of it. Answers and `</s>` are
 * learnt. Source: the conversation "vicuna_v1" and `preprocess_v1` of LLaVA.
 */
export const vicunaV1: BuiltinTemplate = ({ system = VICUNA_SYSTEM, turns }, write) => {
  const segments = system ? [plain(system), template(" ")] : [];
  for (const { question, answer } of turns) {
    segments.push(template("USER: "));
    segments.push(...question.flatMap((part) => typeof part === "number" ? write(part) : []));
    segments.push(...question.flatMap((part) => typeof part === "string" ? [plain(part)] : []));
    segments.push(template(" ASSISTANT:"));
    if (answer === undefined) continue;
    // A prompt ends with the colon, so the space is the answer's.
    segments.push(template(" ", "answer"), plain(answer, "answer"), template("</s>", "answer"));
  }
  return [segments];
};

/**
 * `<|im_start|>role\ntext<|im_end|>\n`, role, line breaks and texts tokenised apart. Answers with their ends are learnt,
 * and the markers of all turns. Source: `preprocess` in Qwen-VL's finetune.py.
 */
export const chatml: BuiltinTemplate = ({ system = "You are a helpful assistant.", turns }, write) => {
  const open = (role: string): Rendering => [[template("<|im_start|>", "marker")], [template(role)], [
    template("\n"),
  ]];
  const close = (learnt: Segment["learnt"]): Rendering => [[template("<|im_end|>", learnt)], [
    template("\n", learnt),
  ]];
  const pieces = (parts: readonly ChatPart[]): Segment[] =>
    parts.flatMap((part) => typeof part === "number" ? write(part) : [plain(part)]);
  const groups = system ? [...open("system"), [plain(system)], ...close("marker")] : [];
  for (const { question, answer } of turns) {
    groups.push(...open("user"), pieces(question), ...close("marker"), ...open("assistant"));
    if (answer !== undefined) groups.push([plain(answer, "answer")], ...close("answer"));
  }
  return groups;
};

export const BUILTIN_TEMPLATES = { vicuna_v1: vicunaV1, chatml } as const;

/** Renders with a family's way to write pictures. */
export function renderBuiltin(
  builtin: BuiltinTemplate,
  chat: Chat,
  family: PictureText | undefined,
  pictures: readonly ChatPicture[],
): Rendering {
  return builtin(chat, (index) => writtenPicture(family!, pictures[index], index));
}
