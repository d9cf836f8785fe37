/**
 * A text-only checkpoint's tokenizer files with an image token added, and a short template that writes pictures.
 * Refuses a tokenizer.json that is none of the `tokenizers` library.
 */
import { z } from "zod";
import { InputError, issueOf } from "../errors.ts";
import { type Folder, readJson } from "../formats/folder.ts";
import { openTokenizer } from "./open_tokenizer.ts";

export const IMAGE_TOKEN = "<image>";

/** Whatever may say how text becomes ids; the chat template is exchanged. */
const COPIED = [
  "added_tokens.json",
  "merges.txt",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "vocab.json",
];
const librarySchema = z.looseObject({ added_tokens: z.array(z.looseObject({ id: z.int() })).nullish() });
const configSchema = z.looseObject({
  added_tokens_decoder: z.record(z.string(), z.unknown()).nullish(),
  chat_template: z.unknown().optional(),
});

export interface ImageTokenizer {
  /** File name -> content. */
  files: Record<string, string | Uint8Array<ArrayBuffer>>;
  /** The image token's id: the next one that is free, or the one that the tokenizer has. */
  id: number;
  bos?: number;
  eos?: number;
}

/** @throws InputError naming the file that is missing or of another form */
export async function withImageToken(folder: Folder): Promise<ImageTokenizer> {
  const tokenizer = await openTokenizer(folder), { bos, eos, stops } = tokenizer;
  if (eos === undefined) {
    throw new InputError(`Cannot use "${folder.path}": its tokenizer has no token that ends an answer`);
  }
  const files: ImageTokenizer["files"] = {};
  for (const name of COPIED) if (await folder.exists(name)) files[name] = await folder.read(name);
  const known = tokenizer.idOf(IMAGE_TOKEN), id = known ?? tokenizer.size;
  const plain = { lstrip: false, rstrip: false, normalized: false, single_word: false, special: true };
  const token = { content: IMAGE_TOKEN, ...plain };
  if (known === undefined && files["tokenizer.json"]) {
    const json = await parsed(folder, "tokenizer.json", librarySchema);
    files["tokenizer.json"] = text({ ...json, added_tokens: [...json.added_tokens ?? [], { id, ...token }] });
  }
  // The template is a file of its own, and the one that the text model brings knows no pictures.
  const { chat_template: _, ...config } = files["tokenizer_config.json"] === undefined
    ? configSchema.parse({})
    : await parsed(folder, "tokenizer_config.json", configSchema);
  files["tokenizer_config.json"] = text({
    ...config,
    added_tokens_decoder: { ...config.added_tokens_decoder, ...(known === undefined && { [id]: token }) },
    // What transformers' processor asks the tokenizer for.
    image_token: IMAGE_TOKEN,
  });
  files["chat_template.jinja"] = pictureTemplate(tokenizer.addsBos && bos !== undefined);
  files["generation_config.json"] = text({
    ...(bos !== undefined && { bos_token_id: bos }),
    eos_token_id: [...stops],
  });
  return { files, id, bos, eos };
}

/** `<image>question -> answer<eos>`: few tokens, and a form that a model of plain text goes on with. */
const pictureTemplate = (bos: boolean) =>
  [
    bos ? "{{ bos_token }}" : "",
    "{% for message in messages %}",
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}",
    `{% for part in message['content'] if part['type'] == 'image' %}{{ '${IMAGE_TOKEN}' }}{% endfor %}`,
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}",
    "{% if message['role'] == 'user' %}{{ ' -> ' if not loop.last else ' ->' }}",
    "{% elif message['role'] == 'assistant' %}{{ eos_token + '\\n' }}",
    "{% else %}{{ '\\n' }}{% endif %}",
    "{% endfor %}",
  ].join("");

const text = (json: unknown) => JSON.stringify(json, null, 1) + "\n";

async function parsed<T>(folder: Folder, name: string, schema: z.ZodType<T>): Promise<T> {
  const result = schema.safeParse(await readJson(folder, name));
  if (result.success) return result.data;
  throw new InputError(`Cannot read "${folder.path}/${name}": ${issueOf(result.error)}`);
}
