/**
 * The llama in a GGUF file as a Hugging Face checkpoint: its config.json and its weights under Hugging Face's names.
 * Refuses other architectures, mixtures of experts and rotary widths other than the head's.
 */
import { InputError } from "../errors.ts";
import type { WeightSource } from "./checkpoint.ts";
import type { ByteSource } from "./folder.ts";
import { type GgufHeader, type GgufTensor, readGgufHeader } from "./gguf.ts";
import { BLOCKS, dequantise } from "./gguf_blocks.ts";

/** Its tensor holds what each rotary frequency is divided by, llama3's scaling worked out. */
const ROPE_FACTORS = "rope_freqs.weight";

const OUTER: Record<string, string> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const INNER: Record<string, string> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; a name it does not know stays as it is. */
export function hfName(name: string): string {
  const inner = name.match(/^blk\.(\d+)\.(\w+)\.(weight|bias)$/);
  if (inner && INNER[inner[2]]) return `model.layers.${inner[1]}.${INNER[inner[2]]}.${inner[3]}`;
  const outer = name.match(/^(\w+)\.(weight|bias)$/);
  return outer && OUTER[outer[1]] ? `${OUTER[outer[1]]}.${outer[2]}` : name;
}

/** Typed access to metadata. @throws InputError naming the key that is missing or of another type */
export function metadataOf({ metadata }: GgufHeader, name: string) {
  const fail = (key: string, expected: string): never => {
    throw new InputError(
      `Cannot use "${name}": ${key} is ${JSON.stringify(metadata.get(key))}, expected a ${expected}`,
    );
  };
  return {
    number(key: string, fallback?: number): number {
      const value = metadata.get(key) ?? fallback;
      return typeof value === "number" ? value : fail(key, "number");
    },
    string(key: string, fallback?: string): string {
      const value = metadata.get(key) ?? fallback;
      return typeof value === "string" ? value : fail(key, "string");
    },
    has: (key: string) => metadata.has(key),
  };
}

/** The fields of config.json, as transformers derives them from metadata. @throws InputError for what is no llama */
export async function llamaConfig(source: ByteSource, header: GgufHeader): Promise<Record<string, unknown>> {
  const fail = (why: string): never => {
    throw new InputError(`Cannot use "${source.name}": ${why}`);
  };
  const { number, string, has } = metadataOf(header, source.name);
  const architecture = string("general.architecture");
  if (architecture !== "llama") fail(`its architecture is "${architecture}", expected "llama"`);
  if (number("llama.expert_count", 0) > 0) fail("it is a mixture of experts");
  const heads = number("llama.attention.head_count"), hidden = number("llama.embedding_length");
  const headDim = number("llama.attention.key_length", number("llama.rope.dimension_count", hidden / heads));
  const rotary = number("llama.rope.dimension_count", headDim);
  if (rotary !== headDim) fail(`llama.rope.dimension_count is ${rotary}, expected the head width ${headDim}`);
  const ids = ["bos", "eos"].filter((token) => has(`tokenizer.ggml.${token}_token_id`));
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_size: hidden,
    intermediate_size: number("llama.feed_forward_length"),
    num_hidden_layers: number("llama.block_count"),
    num_attention_heads: heads,
    num_key_value_heads: number("llama.attention.head_count_kv", heads),
    head_dim: headDim,
    vocab_size: header.tensors.get("token_embd.weight")?.shape[0] ?? fail("it has no token_embd.weight"),
    max_position_embeddings: number("llama.context_length"),
    rms_norm_eps: number("llama.attention.layer_norm_rms_epsilon"),
    hidden_act: "silu",
    attention_bias: header.tensors.has("blk.0.attn_q.bias"),
    mlp_bias: header.tensors.has("blk.0.ffn_up.bias"),
    tie_word_embeddings: !header.tensors.has("output.weight"),
    rope_parameters: await ropeParameters(source, header),
    ...Object.fromEntries(
      ids.map((token) => [`${token}_token_id`, number(`tokenizer.ggml.${token}_token_id`)]),
    ),
  };
}

async function ropeParameters(source: ByteSource, header: GgufHeader): Promise<Record<string, unknown>> {
  const { number, string } = metadataOf(header, source.name);
  const rope_theta = number("llama.rope.freq_base", 10000);
  const factors = header.tensors.get(ROPE_FACTORS);
  if (factors) {
    const bytes = await source.readAt(factors.start, factors.end - factors.start);
    return { rope_type: "factors", rope_theta, factors: [...dequantise(bytes, factors.type)] };
  }
  const type = string("llama.rope.scaling.type", "none");
  // Before there was a type, a factor alone meant linear scaling.
  const factor = number("llama.rope.scaling.factor", number("llama.rope.scale_linear", 1));
  if (type === "none" && factor === 1) return { rope_type: "default", rope_theta };
  return { rope_type: type === "none" ? "linear" : type, rope_theta, factor };
}

/**
 * The weights of a GGUF llama. llama.cpp keeps the rows of a head's queries and keys as pairs that turn together; they
 * are put back into two halves, as Hugging Face has them. Quantised tensors count as F32.
 */
export async function openGgufWeights(source: ByteSource): Promise<WeightSource> {
  const header = await readGgufHeader(source);
  const { number } = metadataOf(header, source.name);
  const heads = number("llama.attention.head_count");
  const kvHeads = number("llama.attention.head_count_kv", heads);
  const home = new Map(
    [...header.tensors.values()].filter(({ name }) => name !== ROPE_FACTORS).map((tensor) =>
      [hfName(tensor.name), tensor] as const
    ),
  );
  const at = (name: string): GgufTensor => {
    const tensor = home.get(name);
    if (!tensor) throw new InputError(`Cannot load "${source.name}": it has no tensor "${name}"`);
    return tensor;
  };
  /** Rows that are kept in another order together; 1 for what is stored as it is. */
  const headRows = ({ name, shape }: GgufTensor): number => {
    const count = name.includes(".attn_q.") ? heads : name.includes(".attn_k.") ? kvHeads : shape[0];
    return shape[0] / count;
  };

  /** Values `from` to `to`: whole blocks, or whole heads, are read and the rest is cut off. */
  const read = async (tensor: GgufTensor, from: number, to: number) => {
    const { type, shape, start } = tensor, block = BLOCKS[type], rows = headRows(tensor);
    const width = shape.slice(1).reduce((a, b) => a * b, 1), unit = rows > 1 ? rows * width : block.size;
    const first = Math.floor(from / unit) * unit, last = Math.ceil(to / unit) * unit;
    const bytesOf = (values: number) => values / block.size * block.bytes;
    const bytes = await source.readAt(start + bytesOf(first), bytesOf(last - first));
    const ordered = rows > 1 ? halvesFromPairs(bytes, rows, bytesOf(width)) : bytes;
    return { ordered, skip: from - first };
  };
  const f32Range = async (name: string, from: number, to: number) => {
    const tensor = at(name), size = tensor.shape.reduce((a, b) => a * b, 1);
    if (from < 0 || to < from || to > size) {
      throw new RangeError(`Cannot read elements ${from} to ${to} of "${name}": it has ${size}`);
    }
    const { ordered, skip } = await read(tensor, from, to);
    const values = dequantise(ordered, tensor.type);
    return skip === 0 && values.length === to - from ? values : values.slice(skip, skip + to - from);
  };
  const f32 = (name: string) => f32Range(name, 0, at(name).shape.reduce((a, b) => a * b, 1));
  const isFloat = ({ type }: GgufTensor) => type === "F16" || type === "BF16";
  return {
    name: source.name,
    names: () => [...home.keys()],
    shape: (name) => at(name).shape,
    dtype: (name) => isFloat(at(name)) ? at(name).type as "F16" | "BF16" : "F32",
    f32,
    f32Range,
    bytes: async (name) => {
      const tensor = at(name);
      if (!isFloat(tensor)) return new Uint8Array((await f32(name)).buffer);
      return (await read(tensor, 0, tensor.shape.reduce((a, b) => a * b, 1))).ordered;
    },
    close: () => source.close(),
  };
}

/** Within each head of `rows` rows: pairs (0, 1), (2, 3) ... become first halves 0, 2 ... and second halves 1, 3 ... */
function halvesFromPairs(
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  rowBytes: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length), half = rows / 2;
  for (let row = 0; row * rowBytes < bytes.length; row++) {
    const inHead = row % rows, from = row - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
    out.set(bytes.subarray(from * rowBytes, (from + 1) * rowBytes), row * rowBytes);
  }
  return out;
}
