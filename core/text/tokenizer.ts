/**
 * What every tokenizer gives, whichever file it comes from: text to ids and back. Special tokens written in a text are
 * recognised only where the caller says that the text is a template's and not a user's.
 */
export interface Tokenizer {
  /** Ids of a text, without tokens added in front or behind. `special` recognises special tokens spelled in it. */
  encode(text: string, options?: { special?: boolean }): number[];
  /** Text of ids; special tokens are left out unless they are asked for. @throws RangeError past the vocabulary */
  decode(ids: readonly number[], options?: { special?: boolean }): string;
  /** The id of a token spelled exactly so, special ones among them. */
  idOf(token: string): number | undefined;
  /** Ids beyond the largest one. */
  readonly size: number;
  readonly bos?: number;
  readonly eos?: number;
  /** Every id at which a generated text ends: `eos` and what generation_config.json adds. */
  readonly stops: readonly number[];
  /** Whether the checkpoint puts `bos` in front of a text (`add_bos_token`). */
  readonly addsBos: boolean;
}

/** `decode` of what a model says: ids of a padded vocabulary, which its tokenizer does not have, have no text. */
export const spokenText = ({ size, decode }: Tokenizer) => (ids: readonly number[]): string =>
  decode(ids.filter((id) => id < size));
