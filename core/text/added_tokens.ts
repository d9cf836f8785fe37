/**
 * The tokens that stand outside a vocabulary's own rules: cutting a text at them, and gathering them from the files
 * of a checkpoint. It refuses entries without a text or an id.
 */
import { z } from "zod";

export interface AddedToken {
  id: number;
  content: string;
  /** Only recognised in texts that the caller trusts, and left out of decoded text. */
  special: boolean;
  /** Matches only between characters that are no letters, digits or marks. */
  single_word: boolean;
  /** Swallow the white space in front, or behind. */
  lstrip: boolean;
  rstrip: boolean;
  /** Matched after the text was normalised and not before. */
  normalized: boolean;
}

/** A stretch of text, or the added token found between two. */
export type Section = string | AddedToken;

const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]";
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const SPACE_BEHIND = /^\p{White_Space}+/u;

/** Where the white space at the end of `text` begins; a regular expression would look at every space in it. */
function trimmedEnd(text: string): number {
  let end = text.length;
  while (end > 0 && SPACE_BEHIND.test(text[end - 1])) end--;
  return end;
}

/**
 * A function that cuts a text at these tokens: leftmost, then longest, as Hugging Face's tokenizers does. `skip`ped
 * special tokens are found and left in the text, so that nothing inside them is found either.
 */
export function splitterOf(
  tokens: readonly AddedToken[],
  spelling: (token: AddedToken) => string = (token) => token.content,
): (text: string, skipSpecial: boolean) => Section[] {
  const byFirst = new Map<string, { spelled: string; token: AddedToken }[]>();
  for (const token of tokens) {
    const spelled = spelling(token);
    if (spelled === "") continue;
    byFirst.set(spelled[0], [...byFirst.get(spelled[0]) ?? [], { spelled, token }]);
  }
  for (const list of byFirst.values()) list.sort((a, b) => b.spelled.length - a.spelled.length);

  return (text, skipSpecial) => {
    const sections: Section[] = [];
    let done = 0; // Everything before it is in `sections`.
    for (let at = 0; at < text.length;) {
      const found = byFirst.get(text[at])?.find(({ spelled }) => text.startsWith(spelled, at));
      if (!found) {
        at++;
        continue;
      }
      const { spelled, token } = found;
      let start = at, stop = at + spelled.length;
      at = stop;
      if (token.special && skipSpecial) continue;
      if (
        token.single_word &&
        (ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) ||
          STARTS_WITH_WORD.test(text.slice(stop, stop + 2)))
      ) continue;
      if (token.lstrip) start = done + trimmedEnd(text.slice(done, start));
      if (token.rstrip) stop += SPACE_BEHIND.exec(text.slice(stop))?.[0].length ?? 0;
      if (start > done) sections.push(text.slice(done, start));
      sections.push(token);
      done = stop;
      // A token that begins in swallowed space is looked for no more than it is there.
      at = Math.max(at, stop);
    }
    if (done < text.length) sections.push(text.slice(done));
    return sections;
  };
}

const flags = {
  special: z.boolean().default(false),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  normalized: z.boolean().optional(),
};

/** One entry of a file's list of added tokens. */
export const addedTokenSchema = z.looseObject({ id: z.int().min(0), content: z.string().min(1), ...flags });

/** A token as configs name it: its text, or an object with its text and flags. */
export const tokenNameSchema = z.union([z.string(), z.looseObject({ content: z.string(), ...flags })]);
export type TokenName = z.infer<typeof tokenNameSchema>;

export function contentOf(name: TokenName): string {
  return typeof name === "string" ? name : name.content;
}

/** An added token with the defaults of a special one, or with the flags that a config gives. */
export function addedToken(id: number, name: TokenName, special: boolean): AddedToken {
  const given = typeof name === "string" ? undefined : name;
  return {
    id,
    content: contentOf(name),
    special: special || (given?.special ?? false),
    single_word: given?.single_word ?? false,
    lstrip: given?.lstrip ?? false,
    rstrip: given?.rstrip ?? false,
    normalized: given?.normalized ?? !(special || given?.special),
  };
}
