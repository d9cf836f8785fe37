/**
 * A conversation on its way to tokens: what a template is given, and what it gives back, text cut into segments that
 * say who wrote them. Only a template's own segments may hold special tokens.
 */
import type { Processed } from "../image/processors.ts";

/** A picture and how many feature rows, so image tokens, it becomes. */
export interface ChatPicture {
  image: Processed;
  features: number;
}

/** Text, or the number of a picture. */
export type ChatPart = string | number;

export interface Chat {
  /** Undefined for what the template has of its own; empty for none. */
  system?: string;
  /** Only the last may lack an answer: then it is a prompt. */
  turns: readonly { question: readonly ChatPart[]; answer?: string }[];
}

export interface Segment {
  text: string;
  /** "text" is a user's or an answer's: special tokens spelled in it are plain text. */
  from: "template" | "text" | "picture";
  /** Answers and their ends are learnt; markers of turns only by templates that teach them. */
  learnt?: "answer" | "marker";
  /** For a picture how many tokens each image token spelled in the text stands for. */
  runs?: readonly number[];
}

/** Segments in groups: each group is tokenised as one text, and no token spans two groups. */
export type Rendering = Segment[][];
