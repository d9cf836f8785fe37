/**
 * Every kind of tokenizer file against the Python libraries that define it: ids of 200 texts with special tokens read
 * and not read, decoded texts, broken UTF-8, and what is refused. cases.json was written by make.py beside it.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { type Folder, MemoryFolder } from "../core/formats/folder.ts";
import { sentencePieceModel } from "../core/formats/gguf_pieces.ts";
import { Random } from "../core/random.ts";
import { mergeParts } from "../core/text/merge.ts";
import { openTokenizer } from "../core/text/open_tokenizer.ts";
import { parseSentencePiece } from "../core/text/sentencepiece_model.ts";
import { textStream } from "../core/text/text_stream.ts";
import { tinyTokenizer, tinyTokenizerJson } from "../core/text/tiny.ts";
import { spokenText, type Tokenizer } from "../core/text/tokenizer.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { FIXTURES } from "./check.ts";

interface Case {
  plain: number[][];
  special: number[][];
  cuts: number[][];
  decoded: string[];
  bare: string[];
  size: number;
  bos?: number | null;
  eos: number;
  addsBos?: boolean;
}

const ROOT = new DiskFolder(`${FIXTURES}/tokenizers`);
const { texts, ...cases } = JSON.parse(new TextDecoder().decode(await ROOT.read("cases.json"))) as
  & { texts: string[] }
  & Record<string, Case>;
const KINDS = Object.keys(cases);
const tokenizers: Record<string, Tokenizer> = Object.fromEntries(
  await Promise.all(KINDS.map(async (kind) => [kind, await openTokenizer(ROOT.folder(kind))])),
);

/** A copy of a folder in memory, with some files as given. */
async function changed(folder: Folder, files: Record<string, unknown>): Promise<MemoryFolder> {
  const copy = new MemoryFolder("changed");
  for (const name of await folder.list()) await copy.write(name, await folder.read(name));
  for (const [name, content] of Object.entries(files)) {
    await copy.write(name, content instanceof Uint8Array ? content.slice() : JSON.stringify(content));
  }
  return copy;
}

const readJson = async (name: string) => JSON.parse(new TextDecoder().decode(await ROOT.read(name)));

for (const kind of KINDS) {
  const { plain, special, cuts, decoded, bare, size, bos, eos, addsBos } = cases[kind];
  const tokenizer = tokenizers[kind];

  Deno.test(`${kind}: ids of ${texts.length} texts, special tokens left as text and recognised`, () => {
    assert.equal(texts.length, 200);
    texts.forEach((text, i) => {
      assert.deepEqual(tokenizer.encode(text), plain[i], JSON.stringify(text));
      assert.deepEqual(tokenizer.encode(text, { special: true }), special[i], JSON.stringify(text));
    });
    assert(special.some((ids, i) => ids.length < plain[i].length), "some text spells a special token");
  });

  Deno.test(`${kind}: arbitrary ids decode to the same text, with and without special tokens`, () => {
    cuts.forEach((ids, i) => {
      assert.equal(tokenizer.decode(ids, { special: true }), decoded[i], String(ids));
      assert.equal(tokenizer.decode(ids), bare[i], String(ids));
    });
    assert(decoded.some((text) => text.includes("\ufffd")), "some cut is broken UTF-8");
  });

  Deno.test(`${kind}: size, ends, and ids past the vocabulary`, () => {
    assert.equal(tokenizer.size, size);
    assert.equal(tokenizer.bos, bos ?? undefined);
    assert.equal(tokenizer.eos, eos);
    assert.equal(tokenizer.stops[0], eos);
    if (addsBos !== undefined) assert.equal(tokenizer.addsBos, addsBos);
    assert.equal(tokenizer.decode([]), "");
    for (const id of [size, -1, 0.5]) assert.throws(() => tokenizer.decode([id]), RangeError);
    // A model with a padded vocabulary may say what the tokenizer does not have.
    assert.equal(spokenText(tokenizer)([size, ...cuts[0], size + 5]), bare[0]);
  });

  Deno.test(`${kind}: the text comes piece by piece, characters whole`, () => {
    let held = 0;
    for (const text of texts) {
      const stream = textStream(tokenizer), ids = tokenizer.encode(text);
      const pieces = ids.map((id) => stream.push(id));
      assert.equal(pieces.join("") + stream.end(), tokenizer.decode(ids), JSON.stringify(text));
      assert(pieces.every((piece) => !piece.includes("\ufffd")), "no piece holds half a character");
      held += pieces.filter((piece) => piece === "").length;
    }
    assert(held > 50, "characters spread over tokens are held back");
    const stream = textStream(tokenizer), broken = tokenizer.encode("x😀").slice(0, -1);
    assert.equal(broken.map((id) => stream.push(id)).join(""), "x");
    assert.match(stream.end(), /^\ufffd+$/);
  });

  Deno.test(`${kind}: what was encoded comes back, for characters of all planes and halves of pairs`, () => {
    const random = new Random(1).split(kind);
    const character = () => String.fromCharCode(random.int(random.float() < 0.5 ? 0x300 : 0x10000));
    for (let i = 0; i < 200; i++) {
      const text = "x" + Array.from({ length: random.int(12) }, character).join("");
      const ids = tokenizer.encode(text);
      assert(ids.every((id) => Number.isInteger(id) && id >= 0 && id < size));
      // Some of them put letters in their composed form; to Llama's the sign "▁" is a space.
      const expected = text.toWellFormed().replaceAll(
        "▁",
        kind.startsWith("llama") || kind === "sentencepiece" ? " " : "▁",
      );
      assert.equal(tokenizer.decode(ids).normalize(), expected.normalize(), JSON.stringify(text));
    }
  });
}

Deno.test("other normalisers and pre-tokenizers cut as tokenizers does", async () => {
  const variants = await readJson("steps.json") as {
    base: string;
    normalizer: unknown;
    pre_tokenizer: unknown;
    ids: number[][];
  }[];
  assert.equal(variants.length, 11);
  for (const { base, normalizer, pre_tokenizer, ids } of variants) {
    const json = { ...await readJson(`${base}/tokenizer.json`), normalizer, pre_tokenizer };
    const files = { "tokenizer.json": json, "tokenizer_config.json": {} };
    const tokenizer = await openTokenizer(await changed(ROOT.folder(base), files));
    ids.forEach((wanted, i) => {
      const what = `${JSON.stringify(pre_tokenizer)} on ${JSON.stringify(texts[i])}`;
      assert.deepEqual(tokenizer.encode(texts[i], { special: true }), wanted, what);
    });
  }
});

Deno.test("merging: the cheapest pair first, the leftmost of equals, as trying every pair in turn", () => {
  const random = new Random(2);
  const costs = new Map<string, number>();
  for (let i = 0; i < 60; i++) {
    const joined = Array.from({ length: 2 + random.int(3) }, () => "abc"[random.int(3)]).join("");
    costs.set(joined, random.int(12));
  }
  for (let i = 0; i < 300; i++) {
    const start = Array.from({ length: random.int(14) }, () => "abc"[random.int(3)]);
    const slow = [...start];
    while (true) {
      let best = -1, least = Infinity;
      for (let at = 0; at + 1 < slow.length; at++) {
        const cost = costs.get(slow[at] + slow[at + 1]) ?? Infinity;
        if (cost < least) [best, least] = [at, cost];
      }
      if (best < 0) break;
      slow.splice(best, 2, slow[best] + slow[best + 1]);
    }
    assert.deepEqual(mergeParts(start, (joined) => costs.get(joined)), slow, start.join(""));
  }
});

Deno.test("a long text without a space takes no more than its share of time", () => {
  for (const kind of KINDS) {
    const started = performance.now();
    const text = "photographer".repeat(2000), ids = tokenizers[kind].encode(text);
    assert.equal(tokenizers[kind].decode(ids), text, kind);
    const seconds = (performance.now() - started) / 1000;
    assert(seconds < 5, `${kind}: ${seconds} s for 24,000 characters`);
  }
});

Deno.test("the built-in tokenizer: the ids of tiny.ts, special tokens only where they are trusted", async () => {
  const folder = await changed(new MemoryFolder(), { "tokenizer.json": tinyTokenizerJson() });
  const tiny = await openTokenizer(folder);
  const text = "is there a <image> red circle <eos>?";
  assert.deepEqual(tiny.encode(text), tinyTokenizer.encode(text));
  const ids = tiny.encode("<bos><user>is there a red circle<assistant>yes<eos>", { special: true });
  assert.deepEqual(
    ids,
    [1, 4, ...tinyTokenizer.encode("is there a red circle"), 5, ...tinyTokenizer.encode("yes"), 2],
  );
  assert.equal(tiny.decode(ids), "is there a red circle yes");
  assert.equal(tiny.decode(ids, { special: true }), "<bos><user>is there a red circle<assistant>yes<eos>");
  assert.deepEqual([tiny.bos, tiny.eos, tiny.idOf("<image>"), tiny.size], [
    1,
    2,
    3,
    tinyTokenizer.vocab.length,
  ]);
  for (const id of [-1, tiny.size]) assert.throws(() => tiny.decode([id], { special: true }), RangeError);
});

Deno.test("tokens of the small files: ids of their own, the next free one, ends of generation", async () => {
  const folder = await changed(ROOT.folder("qwen2"), {
    "tokenizer_config.json": {
      bos_token: null,
      eos_token: { content: "<|im_end|>", lstrip: false },
      pad_token: "<new>",
      added_tokens_decoder: { "900": { content: "<far>", special: true } },
    },
    "generation_config.json": { eos_token_id: [2, 0] },
  });
  const tokenizer = await openTokenizer(folder);
  assert.deepEqual([tokenizer.idOf("<far>"), tokenizer.idOf("<new>"), tokenizer.size], [900, 901, 902]);
  assert.deepEqual([tokenizer.bos, tokenizer.eos, tokenizer.stops], [undefined, 2, [2, 0]]);
  assert.deepEqual(tokenizer.encode("<far><new>", { special: true }), [900, 901]);
  assert.equal(
    tokenizer.decode([900, 899, 901], { special: true }),
    "<far><new>",
    "a gap in the ids has no text",
  );
});

Deno.test("a token may be spelled as anything that an object has", async () => {
  const json = JSON.stringify(await readJson("qwen2/tokenizer.json"));
  const named = json.replace('"vocab":{', '"vocab":{"__proto__":520,"constructor":521,');
  const folder = await changed(ROOT.folder("qwen2"), {});
  await folder.write("tokenizer.json", named);
  const tokenizer = await openTokenizer(folder);
  assert.deepEqual(["__proto__", "constructor", "toString"].map(tokenizer.idOf), [520, 521, undefined]);
  assert.equal(tokenizer.decode(tokenizer.encode("__proto__ constructor")), "__proto__ constructor");
});

Deno.test("without legacy only the first stretch of a text gets a space in front", async () => {
  const { tokens, first } = { tokens: tokenizers.sentencepiece, first: "not</s>not" };
  const config = { ...await readJson("sentencepiece/tokenizer_config.json"), legacy: false };
  const modern = await openTokenizer(
    await changed(ROOT.folder("sentencepiece"), { "tokenizer_config.json": config }),
  );
  assert.deepEqual(
    modern.encode(first, { special: true }),
    tokenizers.llama_metaspace.encode(first, { special: true }),
  );
  assert.notDeepEqual(modern.encode(first, { special: true }), tokens.encode(first, { special: true }));
});

Deno.test("a model written from the pieces, scores and types of a GGUF file is the same tokenizer", async () => {
  const folder = ROOT.folder("sentencepiece");
  const { pieces } = parseSentencePiece(await folder.read("tokenizer.model"), "model");
  const lists = {
    tokens: pieces.map(({ text }) => text),
    scores: pieces.map(({ score }) => score),
    types: pieces.map(({ type }) => type),
  };
  const written = await openTokenizer(
    await changed(folder, { "tokenizer.model": sentencePieceModel(lists, true) }),
  );
  texts.forEach((text, i) => assert.deepEqual(written.encode(text), cases.sentencepiece.plain[i]));
});

Deno.test("what it cannot follow exactly is refused by name", async () => {
  const qwen = await readJson("qwen2/tokenizer.json");
  const model = await ROOT.read("sentencepiece/tokenizer.model");
  const refused: [string, Record<string, unknown>, RegExp][] = [
    ["qwen2", { "tokenizer.json": { ...qwen, model: { type: "Unigram", vocab: [] } } }, /model is "Unigram"/],
    [
      "qwen2",
      { "tokenizer.json": { ...qwen, normalizer: { type: "Precompiled" } } },
      /normalizer is "Precompiled"/,
    ],
    [
      "qwen2",
      { "tokenizer.json": { ...qwen, pre_tokenizer: { type: "CharDelimiterSplit" } } },
      /CharDelimiterSplit/,
    ],
    ["qwen2", {
      "tokenizer.json": {
        ...qwen,
        pre_tokenizer: { type: "Split", pattern: { String: "a" }, behavior: "MergedWithNext" },
      },
    }, /MergedWithNext/],
    ["qwen2", { "tokenizer.json": { ...qwen, decoder: { type: "CTC" } } }, /decoder is "CTC"/],
    ["qwen2", { "tokenizer.json": { ...qwen, added_tokens: [{ content: "x" }] } }, /added_tokens.0.id/],
    [
      "qwen2",
      { "tokenizer_config.json": { add_bos_token: "yes" } },
      /tokenizer_config.json": "add_bos_token"/,
    ],
    ["tiktoken", { "qwen.tiktoken": new TextEncoder().encode("!!! 0\n") }, /line 1 is "!!! 0"/],
    [
      "tiktoken",
      { "qwen.tiktoken": new TextEncoder().encode("IQ== 0\nIg== 2\n") },
      /2 lines have ranks up to 2/,
    ],
    ["tiktoken", { "qwen.tiktoken": new TextEncoder().encode("IQ== 0\n") }, /byte 0 is no token/],
    ["sentencepiece", { "tokenizer.model": model.slice(0, -3) }, /breaks off/],
    [
      "sentencepiece",
      { "tokenizer.model": new Uint8Array([0x12, 2, 0x18, 1]) },
      /model is unigram, expected BPE/,
    ],
    ["sentencepiece", { "tokenizer.model": new Uint8Array([0x1a, 3, 0x12, 1, 0]) }, /table/],
  ];
  for (const [kind, files, message] of refused) {
    const folder = await changed(ROOT.folder(kind), files);
    await assert.rejects(
      openTokenizer(folder),
      (error) => error instanceof InputError && message.test(error.message),
      String(message),
    );
  }
  await assert.rejects(openTokenizer(new MemoryFolder("empty")), /in "empty": it has none of tokenizer.json/);
});
