/**
 * A GGUF file seen as a checkpoint folder: config.json and the tokenizer's files are made from its metadata, the weights
 * are read from it. Refuses to be written to.
 */
import { InputError } from "../errors.ts";
import type { WeightFolder } from "./checkpoint.ts";
import { type ByteSource, MemoryFolder } from "./folder.ts";
import { readGgufHeader } from "./gguf.ts";
import { llamaConfig, openGgufWeights } from "./gguf_llama.ts";
import { tokenizerFiles } from "./gguf_tokenizer.ts";

const WEIGHTS = "model.gguf";

/** @param open opens the file, at `path`, once more. @throws InputError for a file that is no supported llama */
export async function ggufFolder(path: string, open: () => Promise<ByteSource>): Promise<WeightFolder> {
  const made = new MemoryFolder(path), source = await open();
  try {
    const header = await readGgufHeader(source), config = await llamaConfig(source, header);
    const files = { "config.json": JSON.stringify(config), ...tokenizerFiles(header, path) };
    for (const [name, content] of Object.entries(files)) await made.write(name, content);
  } finally {
    source.close();
  }
  const readOnly = (name: string) =>
    Promise.reject(new InputError(`Cannot change "${name}" in "${path}": a GGUF file is only read`));
  return {
    path,
    open: async (name) => name === WEIGHTS ? await open() : await made.open(name),
    read: async (name) => {
      if (name !== WEIGHTS) return await made.read(name);
      const file = await open();
      return await file.readAt(0, file.size).finally(file.close);
    },
    exists: async (name) => name === WEIGHTS || await made.exists(name),
    list: async () => [...await made.list(), WEIGHTS].sort(),
    folder: (name) => made.folder(name),
    write: readOnly,
    remove: readOnly,
    openWeights: async () => await openGgufWeights(await open()),
    weightFiles: () => Promise.resolve([WEIGHTS]),
  };
}
