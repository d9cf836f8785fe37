/**
 * GGUF: every tensor type to the bit as Python reads it, names, halves of heads, config, tokenizer and logits as
 * transformers; broken and foreign files refused by name. Fixtures and what Python said of them: fixtures/gguf/make.py.
 */
import assert from "node:assert/strict";
import { pack } from "../core/data/pack.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { bytesSource, MemoryFolder, readJson } from "../core/formats/folder.ts";
import { readGgufHeader } from "../core/formats/gguf.ts";
import { dequantise } from "../core/formats/gguf_blocks.ts";
import { ggufFolder } from "../core/formats/gguf_folder.ts";
import { hfName } from "../core/formats/gguf_llama.ts";
import { sentencePieceModel } from "../core/formats/gguf_pieces.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { openTokenizer } from "../core/text/open_tokenizer.ts";
import { openGpu } from "../gpu/device.ts";
import { createModel } from "../gpu/models/create.ts";
import { runModel } from "../gpu/models/model.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { Tape } from "../gpu/tape.ts";
import { modelFolder } from "../scripts/model.ts";
import { allclose, FIXTURES } from "./check.ts";

const HERE = `${FIXTURES}/gguf/`, gpu = await openGpu();
const FILES = ["mixed.gguf", "pieces.gguf"];
const expected = JSON.parse(Deno.readTextFileSync(`${HERE}expected.json`));

const bytesOf = (name: string) => Deno.readFileSync(HERE + name);
const opened = (bytes: Uint8Array<ArrayBuffer>) =>
  ggufFolder("x.gguf", () => Promise.resolve(bytesSource("x.gguf", bytes)));

/** A file made here: metadata pairs of [key, type, writer], tensors of [name, dims, type, offset]. */
function gguf(
  pairs: [string, string | number][],
  tensors: [string, number[], number, number][],
  { version = 3, data = 64 } = {},
): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  const u32 = (x: number) => out.push(...new Uint8Array(new Uint32Array([x]).buffer));
  const u64 = (x: number) => out.push(...new Uint8Array(new BigUint64Array([BigInt(x)]).buffer));
  const text = (x: string) => (u64(x.length), out.push(...new TextEncoder().encode(x)));
  out.push(...new TextEncoder().encode("GGUF"));
  u32(version);
  u64(tensors.length);
  u64(pairs.length);
  for (const [key, value] of pairs) {
    text(key);
    if (typeof value === "string") (u32(8), text(value));
    else (u32(4), u32(value));
  }
  for (const [name, dims, type, offset] of tensors) {
    text(name);
    u32(dims.length);
    dims.forEach(u64);
    u32(type);
    u64(offset);
  }
  while (out.length % 32) out.push(0);
  return Uint8Array.from([...out, ...new Array(data).fill(0)]);
}

for (const name of FILES) {
  Deno.test(`${name}: each tensor under its Hugging Face name, equal to transformers' to the bit`, async () => {
    const folder = await opened(bytesOf(name)), weights = await openWeights(folder);
    const hashes: Record<string, string> = {};
    for (const tensor of weights.names()) {
      const values = await weights.f32(tensor), { length } = values;
      hashes[tensor] = await sha256(new Uint8Array(values.buffer));
      assert.equal(weights.shape(tensor).reduce((a, b) => a * b, 1), length);
      const [from, to] = [Math.floor(length / 3), Math.ceil(length / 2)];
      assert.deepEqual(await weights.f32Range(tensor, from, to), values.slice(from, to), tensor);
      await assert.rejects(weights.f32Range(tensor, 0, length + 1), /Cannot read elements 0 to/);
    }
    assert.deepEqual(hashes, expected.tensors[name]);
  });
}

Deno.test("bytes are of the type that is told: halves stay halves, quantised ones become floats", async () => {
  const weights = await openWeights(await opened(bytesOf("mixed.gguf")));
  const types = new Map<string, number>();
  for (const tensor of weights.names()) {
    const dtype = weights.dtype(tensor), bytes = await weights.bytes(tensor);
    types.set(dtype, (types.get(dtype) ?? 0) + 1);
    const block = dtype === "F16" || dtype === "BF16" ? dtype : "F32";
    assert.deepEqual(dequantise(bytes, block), await weights.f32(tensor), tensor);
  }
  assert.deepEqual([...types.keys()].sort(), ["BF16", "F16", "F32"]);
});

for (const name of FILES) {
  Deno.test(`${name}: logits as transformers'`, async () => {
    const folder = await opened(bytesOf(name));
    const model = createModel(await readJson(folder, "config.json")), { V } = model.decoder.config;
    await loadWeights(gpu, model, await openWeights(folder));
    using _scope = gpu.pool.scope();
    const { ids } = expected, labels = ids.map(() => -100);
    const batch = pack([{ id: "x", ids, labels, images: [] }], { supervised: false });
    const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, false);
    const logits = gpu.empty([ids.length, V]);
    matmulNT(gpu, hidden, model.head.tensor, logits);
    const [ours] = await gpu.read(logits), theirs = expected.logits[name].flat();
    allclose(name, ours.slice(-theirs.length), theirs, 1e-5);
  });
}

Deno.test("the config states what transformers takes from the metadata", async () => {
  const config = await readJson(await opened(bytesOf("pieces.gguf")), "config.json") as Record<
    string,
    unknown
  >;
  assert.deepEqual(config, {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_size: 32,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 265,
    max_position_embeddings: 128,
    rms_norm_eps: Math.fround(1e-5),
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    rope_parameters: { rope_type: "factors", rope_theta: 10000, factors: [1, 1, 2.5, 8] },
    bos_token_id: 1,
    eos_token_id: 2,
  });
  const tied = await readJson(await opened(bytesOf("mixed.gguf")), "config.json") as Record<string, unknown>;
  assert.equal(tied.tie_word_embeddings, true);
  assert.deepEqual(tied.rope_parameters, { rope_type: "default", rope_theta: 10000 });
});

Deno.test("byte-level BPE: ids as the tokenizers library gives them, chat template and specials in the config", async () => {
  const folder = await opened(bytesOf("mixed.gguf")), tokenizer = await openTokenizer(folder);
  for (const [text, ids] of Object.entries<number[]>(expected.strings)) {
    assert.deepEqual(tokenizer.encode(text, { special: true }), ids, text);
    assert.equal(tokenizer.decode(ids, { special: true }), text);
  }
  assert.deepEqual([tokenizer.bos, tokenizer.eos, tokenizer.addsBos], [1, 2, false]);
  const config = await readJson(folder, "tokenizer_config.json") as Record<string, unknown>;
  assert.match(config.chat_template as string, /^\{% for message in messages %\}/);
});

Deno.test("SentencePiece: ids as the sentencepiece library gives them for the same pieces", async () => {
  const folder = await opened(bytesOf("pieces.gguf")), tokenizer = await openTokenizer(folder);
  for (const [text, ids] of Object.entries<number[]>(expected.pieces)) {
    assert.deepEqual(tokenizer.encode(text), ids, text);
    assert.equal(tokenizer.decode(ids), text);
  }
  assert.deepEqual([tokenizer.bos, tokenizer.eos, tokenizer.addsBos], [1, 2, true]);
});

Deno.test("padding that no text becomes is kept, lists of other lengths are refused", async () => {
  const tokens = ["<unk>", "▁", "a", "<dummy>"], types = [2, 1, 1, 5];
  const folder = new MemoryFolder("padded");
  await folder.write("tokenizer.model", sentencePieceModel({ tokens, types, scores: [0, -1, -2, 0] }, true));
  const tokenizer = await openTokenizer(folder);
  assert.deepEqual([tokenizer.size, tokenizer.encode("a")], [4, [1, 2]]);
  assert.throws(
    () => sentencePieceModel({ tokens, types, scores: [] }, true),
    /4 pieces, 0 scores, 4 types/,
  );
});

Deno.test("a folder with one GGUF file is a model, one with two asks which", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.copyFile(`${HERE}mixed.gguf`, `${folder}/a.gguf`);
    const model = await modelFolder(folder);
    assert.deepEqual(await model.list(), [
      "config.json",
      "model.gguf",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    assert.equal((await model.read("model.gguf")).length, bytesOf("mixed.gguf").length);
    await assert.rejects(model.write("config.json", "{}"), /a GGUF file is only read/);
    await Deno.copyFile(`${HERE}mixed.gguf`, `${folder}/b.gguf`);
    await assert.rejects(modelFolder(folder), /has 2 GGUF files, name one of them/);
    assert.equal((await modelFolder(`${folder}/b.gguf`)).path, `${folder}/b.gguf`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("names: what is known is mapped, what is not stays and is refused by the loader", () => {
  assert.equal(hfName("blk.12.attn_output.weight"), "model.layers.12.self_attn.o_proj.weight");
  assert.equal(hfName("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
  assert.equal(hfName("output.weight"), "lm_head.weight");
  assert.equal(hfName("blk.0.ffn_gate_exps.weight"), "blk.0.ffn_gate_exps.weight");
});

Deno.test("refuses broken headers, foreign types and other architectures by name", async () => {
  const header = (bytes: Uint8Array<ArrayBuffer>) => readGgufHeader(bytesSource("x.gguf", bytes));
  const whole = bytesOf("mixed.gguf");
  const cases: [Uint8Array<ArrayBuffer>, RegExp][] = [
    [new Uint8Array(40), /"x.gguf": it does not start with GGUF/],
    [whole.slice(0, 3000), /its header does not end in 3000 bytes/],
    [whole.slice(0, -100), /tensor ".+" ends at byte \d+, the file has/],
    [gguf([], [], { version: 1 }), /its version is 1, expected 2 or 3/],
    [gguf([], [], { version: 0x03000000 }), /it is big-endian/],
    [gguf([["a", 1], ["a", 2]], []), /"a" is there twice/],
    [gguf([["general.alignment", 7]], []), /general.alignment is 7/],
    [gguf([], [["t", [32], 13, 0], ["u", [4], 0, 0], ["v", [4], 77, 0]]), /"t" is Q5_K, "v" is 77/],
    [gguf([], [["t", [24], 8, 0]]), /rows of tensor "t" have 24 values, expected a multiple of 32/],
    [gguf([], [["t", [4], 0, 8]]), /tensor "t" starts at 8, no multiple of 32/],
    [gguf([], [["t", [16], 0, 0], ["u", [4], 0, 32]]), /"u" starts at byte \d+, the one before ends at/],
    [gguf([], [["t", [2 ** 40], 0, 0]]), /tensor "t" ends at byte/],
  ];
  for (const [bytes, message] of cases) await assert.rejects(header(bytes), message);
  const model = async (pairs: [string, string | number][]) => await opened(gguf(pairs, []));
  await assert.rejects(model([]), /general.architecture is undefined, expected a string/);
  await assert.rejects(
    model([["general.architecture", "qwen2"]]),
    /architecture is "qwen2", expected "llama"/,
  );
  const llama: [string, string | number][] = [["general.architecture", "llama"]];
  await assert.rejects(model([...llama, ["llama.expert_count", 8]]), /a mixture of experts/);
  const sizes: [string, number][] = [["llama.attention.head_count", 4], ["llama.embedding_length", 32]];
  await assert.rejects(
    model([...llama, ...sizes, ["llama.rope.dimension_count", 4], ["llama.attention.key_length", 8]]),
    /rope.dimension_count is 4, expected the head width 8/,
  );
  await assert.rejects(model([...llama, ...sizes]), /llama.feed_forward_length is undefined/);
});
