/**
 * What the small files beside a vocabulary say of its tokens: tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, and the ids that end a text from generation_config.json. Refuses files of another form.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { type AddedToken, addedToken, contentOf, type TokenName, tokenNameSchema } from "./added_tokens.ts";

const NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "pad_token",
  "sep_token",
  "cls_token",
  "mask_token",
] as const;
type Name = typeof NAMES[number];

const name = tokenNameSchema.nullish();
const names = z.union([z.array(tokenNameSchema), z.record(z.string(), tokenNameSchema)]).nullish();
const namedSchema = z.looseObject({
  ...Object.fromEntries(NAMES.map((key) => [key, name])) as Record<Name, typeof name>,
  additional_special_tokens: names,
  extra_special_tokens: names,
});
const configSchema = namedSchema.extend({
  added_tokens_decoder: z.record(z.string().regex(/^\d+$/), tokenNameSchema).nullish(),
  add_bos_token: z.boolean().nullish(),
  legacy: z.boolean().nullish(),
  add_prefix_space: z.boolean().nullish(),
  tokenizer_class: z.string().nullish(),
});
const endSchema = z.looseObject({ eos_token_id: z.union([z.int(), z.array(z.int())]).nullish() });
const modelSchema = endSchema.extend({ text_config: endSchema.nullish() });

export interface TokenSettings {
  /** Tokens by their part: beginning and end of a text, padding and so on. */
  named: Partial<Record<Name, TokenName>>;
  /** Further special tokens without a part. */
  extra: TokenName[];
  /** Tokens with ids of their own, special or not. */
  added: AddedToken[];
  addsBos?: boolean;
  legacy?: boolean;
  addsPrefixSpace?: boolean;
  /** Ids at which generation stops, as generation_config.json or else config.json has them. */
  stops: number[];
}

async function readOptional<T>(folder: Folder, file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  if (!await folder.exists(file)) return undefined;
  const parsed = schema.safeParse(await readJson(folder, file));
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new InputError(`Cannot read "${folder.path}/${file}": "${path.join(".")}": ${message}`);
}

/** Settings of a checkpoint folder; all files are optional. @throws InputError naming the file and field of another form */
export async function readTokenSettings(folder: Folder): Promise<TokenSettings> {
  const config = await readOptional(folder, "tokenizer_config.json", configSchema);
  const map = await readOptional(folder, "special_tokens_map.json", namedSchema);
  const byText = await readOptional(folder, "added_tokens.json", z.record(z.string(), z.int().min(0)));
  const generation = await readOptional(folder, "generation_config.json", endSchema);
  const model = await readOptional(folder, "config.json", modelSchema);

  const named: TokenSettings["named"] = {};
  for (const key of NAMES) {
    const value = config?.[key] ?? map?.[key];
    if (value != null && contentOf(value) !== "") named[key] = value;
  }
  const lists = [config, map].flatMap((
    file,
  ) => [file?.additional_special_tokens, file?.extra_special_tokens]);
  const extra = lists.flatMap((list) => Object.values(list ?? {}));

  const special = new Set([...Object.values(named), ...extra].map(contentOf));
  const added = Object.entries(config?.added_tokens_decoder ?? {})
    .map(([id, token]) => addedToken(Number(id), token, special.has(contentOf(token))));
  const known = new Set(added.map(({ content }) => content));
  for (const [text, id] of Object.entries(byText ?? {})) {
    if (!known.has(text)) added.push(addedToken(id, text, special.has(text)));
  }
  const ends = generation?.eos_token_id ?? model?.eos_token_id ?? model?.text_config?.eos_token_id ?? [];
  return {
    named,
    extra,
    added: added.sort((a, b) => a.id - b.id),
    addsBos: config?.add_bos_token ?? undefined,
    legacy: config?.legacy ?? undefined,
    addsPrefixSpace: config?.add_prefix_space ?? undefined,
    stops: Array.isArray(ends) ? ends : [ends],
  };
}

/**
 * The added tokens of a vocabulary with those of the settings: its own flags win, a token that it knows keeps its id,
 * a special token that has none gets the next one, as transformers does it.
 */
export function withSettings(
  own: readonly AddedToken[],
  settings: TokenSettings,
  vocabulary: { idOf(token: string): number | undefined; size: number },
): AddedToken[] {
  const all = new Map(own.map((token) => [token.content, token]));
  let next = Math.max(vocabulary.size, ...own.map(({ id }) => id + 1));
  const add = (token: AddedToken) => {
    all.set(token.content, token);
    next = Math.max(next, token.id + 1);
  };
  for (const token of settings.added) {
    if (!all.has(token.content)) add({ ...token, id: vocabulary.idOf(token.content) ?? token.id });
  }
  for (const token of [...Object.values(settings.named), ...settings.extra]) {
    const content = contentOf(token);
    if (!all.has(content)) add(addedToken(vocabulary.idOf(content) ?? next, token, true));
  }
  return [...all.values()];
}

/** Beginning, end and stops of a text by id, from the tokens that the settings name. */
export function endsOf(
  settings: TokenSettings,
  idOf: (token: string) => number | undefined,
): { bos?: number; eos?: number; stops: number[] } {
  const { bos_token, eos_token } = settings.named;
  const bos = bos_token === undefined ? undefined : idOf(contentOf(bos_token));
  const eos = (eos_token === undefined ? undefined : idOf(contentOf(eos_token))) ?? settings.stops[0];
  return { bos, eos, stops: [...new Set(eos === undefined ? settings.stops : [eos, ...settings.stops])] };
}
