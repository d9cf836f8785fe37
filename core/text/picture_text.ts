/**
 * How each family writes a picture into text: tags, tiles and image tokens, as its published processor does.
 * A family that reads text only has no entry.
 */
import type { ChatPicture, Rendering, Segment } from "./chat.ts";

export interface PictureText {
  /** The token that features replace. */
  token: string;
  /** What a checkpoint's chat template writes for the next picture; it is exchanged for `expand`'s text. */
  placeholder: string;
  /** What a built-in template writes for picture `index`, the placeholder in the middle. */
  around(index: number): [before: string, after: string];
  /** Special tokens that questions and answers are meant to hold: what is pointed at, and where it is. */
  markup?: readonly string[];
  /** The picture's own text, with an image token for each run of them. */
  expand(picture: ChatPicture): { text: string; runs: number[] };
}

/** One run of image tokens, whatever the picture. */
const single = (token: string): PictureText["expand"] => ({ features }) => ({
  text: token,
  runs: [features],
});

const qwen2: PictureText = {
  token: "<|image_pad|>",
  placeholder: "<|image_pad|>",
  around: () => ["<|vision_start|>", "<|vision_end|>"],
  expand: single("<|image_pad|>"),
};

const idefics3: PictureText = {
  token: "<image>",
  placeholder: "<image>",
  around: () => ["", ""],
  expand: ({ image, features }) => {
    const { rows, cols } = image.tiles ?? { rows: 0, cols: 0 }, tiles = rows * cols + 1;
    const grid = Array.from({ length: rows }, (_, row) =>
      Array.from(
        { length: cols },
        (_, col) => `<fake_token_around_image><row_${row + 1}_col_${col + 1}><image>`,
      ).join("") + "\n");
    const whole = "<fake_token_around_image><global-img><image><fake_token_around_image>";
    return {
      text: rows ? `${grid.join("")}\n${whole}` : whole,
      runs: new Array<number>(tiles).fill(features / tiles),
    };
  },
};

/** By the model's family. Sources: transformers' processing_*.py; Qwen-VL's tokenization_qwen.py, its path left out. */
export const PICTURE_TEXTS: Readonly<Record<string, PictureText>> = {
  llava: {
    token: "<image>",
    placeholder: "<image>",
    around: () => ["", "\n"],
    expand: single("<image>"),
  },
  qwen2_vl: qwen2,
  qwen2_5_vl: qwen2,
  idefics3,
  smolvlm: idefics3,
  qwen_vl: {
    token: "<imgpad>",
    placeholder: "<img></img>",
    around: (index) => [`Picture ${index + 1}: `, "\n"],
    markup: ["<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"],
    expand: ({ features }) => ({ text: "<img><imgpad></img>", runs: [features] }),
  },
};

/** Texts cut at the family's markup, which is a template's then. */
export function withMarkup(rendering: Rendering, { markup }: PictureText): Rendering {
  if (!markup) return rendering;
  const tokens = new RegExp(`(${markup.join("|")})`);
  return rendering.map((group) =>
    group.flatMap((segment) =>
      segment.from !== "text"
        ? [segment]
        : segment.text.split(tokens).flatMap((text, i): Segment[] =>
          text === "" ? [] : [{ ...segment, text, from: i % 2 ? "template" : "text" }]
        )
    )
  );
}

/** The segment that stands in a placeholder's stead. */
export function pictureSegment(family: PictureText, picture: ChatPicture): Segment {
  return { from: "picture", ...family.expand(picture) };
}

/** A picture as a built-in template writes it. */
export function writtenPicture(family: PictureText, picture: ChatPicture, index: number): Segment[] {
  const [before, after] = family.around(index);
  return [
    { from: "template", text: before },
    pictureSegment(family, picture),
    { from: "template", text: after },
  ].filter(({ text }) => text !== "") as Segment[];
}
