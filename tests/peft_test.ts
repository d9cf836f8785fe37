/**
 * Adapters and peft: files that peft wrote give peft's logits here, rules choose what peft chooses, and whatever would
 * have to be ignored is refused. The files come from fixtures/adapters/make.py.
 */
import assert from "node:assert/strict";
import { MemoryFolder, readJson } from "../core/formats/folder.ts";
import { isTarget, rankOf } from "../core/formats/peft_rules.ts";
import {
  type LoraConfig,
  loraSchema,
  parseLora,
  readAdapter,
  readAdapterConfig,
} from "../core/formats/peft.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { openGpu } from "../gpu/device.ts";
import { logitsOf } from "../gpu/logits.ts";
import { createModel } from "../gpu/models/create.ts";
import { attachLora, attachSaved, idleLora, keyOf, loraStart } from "../gpu/nn/lora.ts";
import { readBatch, relative } from "../gpu/parity.ts";
import { openTunedPeft, readPeft } from "../gpu/peft.ts";
import { openTuned, type Tuned, writeTrained } from "../gpu/session.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { FIXTURES } from "./check.ts";

const gpu = await openGpu();
const modelAt = (family: string) => new DiskFolder(`${FIXTURES}/models/${family}`);
const adapterAt = (name: string) => new DiskFolder(`${FIXTURES}/adapters/${name}`);
const familyOf = (name: string) => name.replace(/_[a-z]+$/, "");
const CASES = [
  ...[
    "llama_patterns",
    "llama_tied",
    "llava_projector",
    "llava_older",
    "qwen2_vl_older",
    "smolvlm_connector",
  ],
];

async function fileOf(folder: DiskFolder, name: string): Promise<SafetensorsFile> {
  return await SafetensorsFile.open(await folder.open(name));
}

async function caseBatch({ model }: Tuned, family: string) {
  const file = await fileOf(modelAt(family), "case.safetensors");
  try {
    return await readBatch(model, file);
  } finally {
    file.source.close();
  }
}

for (const name of CASES) {
  Deno.test(`peft's adapter ${name} gives peft's logits, written again as well`, async () => {
    const family = familyOf(name), file = await fileOf(adapterAt(name), "logits.safetensors");
    const expected = await file.f32("logits");
    file.source.close();
    const tuned = await openTunedPeft(gpu, modelAt(family), adapterAt(name));
    const batch = await caseBatch(tuned, family), logits = await logitsOf(tuned, batch);
    assert(relative(logits, expected) <= 1e-5, `logits differ by ${relative(logits, expected)}`);

    const copy = new MemoryFolder(name);
    await writeTrained(tuned, copy, "base");
    tuned.close();
    const again = await openTunedPeft(gpu, modelAt(family), copy.folder("adapter"));
    assert.deepEqual(await logitsOf(again, batch), logits);
    again.close();

    const bare = await openTuned(gpu, modelAt(family));
    assert(relative(await logitsOf(bare, batch), expected) > 0.01, "the adapter makes no difference");
    bare.close();
  });
}

Deno.test("every tensor that peft wrote is written again, under the model's own names", async () => {
  for (const name of CASES) {
    const tuned = await openTunedPeft(gpu, modelAt(familyOf(name)), adapterAt(name));
    const copy = new MemoryFolder(name);
    await writeTrained(tuned, copy, "base");
    const { tensors } = await readPeft(tuned.model, adapterAt(name));
    const written = await readAdapter(copy.folder("adapter"));
    assert.deepEqual([...written.keys()].sort(), [...tensors.keys()].sort(), name);
    for (const [key, { data }] of tensors) assert.deepEqual(written.get(key)!.data, data, key);
    tuned.close();
  }
});

for (const family of ["llama", "llava", "qwen_vl", "qwen2_vl", "qwen2_5_vl", "smolvlm", "idefics3"]) {
  Deno.test(`${family}: the adapter that peft wrote beside the reference comes back as it was`, async () => {
    // What it does to logits is tests/parity_test.ts's; here: the same keys, shapes and bits, and the same meaning.
    const given = modelAt(family).folder("adapter"), tuned = await openTunedPeft(gpu, modelAt(family), given);
    const copy = new MemoryFolder(family);
    await writeTrained(tuned, copy, "base");
    const before = await readAdapter(given), after = await readAdapter(copy.folder("adapter"));
    assert.deepEqual([...after.keys()].sort(), [...before.keys()].sort());
    for (const [key, tensor] of before) assert.deepEqual(after.get(key), tensor, key);
    const { r, lora_alpha, target_modules } = await readAdapterConfig(given);
    const written = await readAdapterConfig(
      copy.folder("adapter"),
    );
    assert.deepEqual([written.r, written.lora_alpha], [r, lora_alpha]);
    assert.deepEqual(
      targetsOfConfig(tuned, written.target_modules),
      targetsOfConfig(tuned, target_modules),
    );
    tuned.close();
  });
}

/** The linear layers that a choice of targets names. */
function targetsOfConfig({ model }: Tuned, target_modules: LoraConfig["target_modules"]): string[] {
  return [...model.registry.linears.keys()].filter((name) => isTarget(name, config({ target_modules })));
}

// --- what is chosen ---

const config = (fields: Partial<LoraConfig>) => loraSchema.parse({ r: 2, ...fields });

Deno.test("all-linear takes every linear layer but the head, also where nothing computes with it", async () => {
  // Numbers of modules that peft 0.21 gives an adapter with target_modules="all-linear".
  const counts = { llama: 28, llava: 48, qwen2_vl: 42, qwen2_5_vl: 31, smolvlm: 47, idefics3: 47 };
  for (const [family, count] of Object.entries(counts)) {
    const { registry } = createModel(await readJson(modelAt(family), "config.json"));
    const all = config({});
    assert.equal(attachLora(registry, all).length + idleLora(registry, all).length, 2 * count, family);
  }
});

Deno.test("an adapter past which the weight is read stays beside the model, as in peft", async () => {
  const { registry } = createModel(await readJson(modelAt("qwen_vl"), "config.json"));
  const idle = idleLora(registry, config({})).map(({ name }) => name);
  assert.deepEqual(idle.map((name) => name.replace("base_model.model.transformer.visual.", "")), [
    "attn_pool.attn.out_proj.lora_A.weight",
    "attn_pool.attn.out_proj.lora_B.weight",
  ]);
});

Deno.test("targets follow peft's rules", () => {
  const q = "model.layers.1.self_attn.q_proj",
    rows: [string, Partial<LoraConfig>, boolean][] = [
      [q, { target_modules: ["q_proj"] }, true],
      [q, { target_modules: ["proj"] }, false],
      [q, { target_modules: ["self_attn.q_proj"] }, true],
      [q, { target_modules: "q_proj" }, false],
      [q, { target_modules: ".*(?P<which>q|v)_proj" }, true],
      [q, { target_modules: ["q_proj"], exclude_modules: ["self_attn.q_proj"] }, false],
      [q, { target_modules: ["q_proj"], exclude_modules: ".*layers\\.1\\..*" }, false],
      [q, { target_modules: ["q_proj"], exclude_modules: "layers" }, true],
      [q, { target_modules: ["q_proj"], modules_to_save: ["self_attn"] }, false],
      [q, { target_modules: ["q_proj"], modules_to_save: ["attn"] }, true],
      [q, { target_modules: ["q_proj"], layers_to_transform: 1 }, true],
      [q, { target_modules: ["q_proj"], layers_to_transform: [0, 2] }, false],
      [q, { target_modules: ["q_proj"], layers_to_transform: [] }, true],
      [
        q,
        { target_modules: ["q_proj"], layers_to_transform: [1], layers_pattern: ["blocks", "layers"] },
        true,
      ],
      [q, { target_modules: ["q_proj"], layers_to_transform: [1], layers_pattern: "blocks" }, false],
      [q, { target_modules: [q], layers_to_transform: [0] }, true],
      ["layers.1.q_proj", { target_modules: ["q_proj"], layers_to_transform: [1] }, false],
      ["h.1.mlp.3.q_proj", { target_modules: ["q_proj"], layers_to_transform: [3] }, true],
    ];
  for (const [module, fields, expected] of rows) {
    assert.equal(isTarget(module, config(fields)), expected, `${module} ${JSON.stringify(fields)}`);
  }
});

Deno.test("the first pattern that matches a name's end gives its rank, another one its alpha", () => {
  const patterns = config({
    lora_alpha: 8,
    rank_pattern: { "q_proj": 4, "self_attn.q_proj": 16 },
    alpha_pattern: { "^model.layers": 1, "layers\\.\\d+\\.self_attn\\..*": 2 },
  });
  assert.deepEqual(rankOf("model.layers.1.self_attn.q_proj", patterns), { r: 4, alpha: 2, scaling: 0.5 });
  assert.deepEqual(rankOf("model.layers.1.mlp.up_proj", patterns), { r: 2, alpha: 8, scaling: 4 });
  assert.equal(rankOf("q_proj", { ...patterns, use_rslora: true }).scaling, 4);
});

Deno.test("modules trained whole: the names that peft wraps, and tied matrices part", async () => {
  const chosen = async (family: string, saved: string[], targets: string[] = ["down_proj"]) => {
    const model = createModel(await readJson(modelAt(family), "config.json"));
    const lora = config({ target_modules: targets, modules_to_save: saved });
    return { model, keys: attachSaved(model, lora).map(keyOf) };
  };
  const prefix = "base_model.model.model.multi_modal_projector";
  assert.deepEqual((await chosen("llava", ["multi_modal_projector"])).keys, [
    ...[`${prefix}.linear_1.weight`, `${prefix}.linear_1.bias`, `${prefix}.linear_2.weight`],
    `${prefix}.linear_2.bias`,
  ]);
  // peft compares ends without regard to dots.
  assert.equal((await chosen("llama", ["norm"])).keys.length, 9);
  for (
    const [saved, count] of [[["lm_head"], 1], [["embed_tokens"], 1], [
      ["lm_head", "embed_tokens"],
      2,
    ]] as const
  ) {
    const { model, keys } = await chosen("llama", [...saved]);
    assert.equal(keys.length, count);
    assert.notEqual(model.head, model.decoder.embedTokens);
    assert.equal(model.head.trainable, saved.includes("lm_head" as never));
  }
  await assert.rejects(chosen("llama", ["projector"]), /^InputError: .*"projector" matches no module$/);
  await assert.rejects(chosen("llama", ["layers"]), /"model.layers" is a list of modules/);
  await assert.rejects(
    chosen("llama", ["mlp", "up_proj"]),
    /"model.layers.0.mlp.up_proj" lies inside "model.layers.0.mlp"/,
  );
  await assert.rejects(
    chosen("llama", ["_proj"]),
    /would get an adapter at "model.layers.0.mlp.down_proj" as well/,
  );
});

// --- starts ---

Deno.test("adapters start as init_lora_weights says", () => {
  const matrix = (which: string, shape: number[]) => ({
    name: `base_model.model.x.lora_${which}.weight`,
    shape,
  });
  const a = matrix("A", [4, 4096]), b = matrix("B", [4096, 4]);
  const start = (param: typeof a, init?: LoraConfig["init_lora_weights"]) =>
    loraStart(param as never, config({ init_lora_weights: init }), 3);
  const spread = (values: Float32Array) =>
    Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  assert(Math.abs(spread(start(a)) - 1 / 64 / Math.sqrt(3)) < 1e-4);
  assert(start(a).every((x) => Math.abs(x) <= 1 / 64));
  assert(Math.abs(spread(start(a, "gaussian")) - 1 / 4) < 0.005);
  for (const init of [true, "gaussian"] as const) assert.equal(spread(start(b, init)), 0);
  assert(Math.abs(spread(start(b, false)) - 0.5 / Math.sqrt(3)) < 0.005);
  assert.throws(() => start(a, "eva"), /init_lora_weights "eva": expected true, false or gaussian/);
});

Deno.test("how a read adapter once started does not matter", async () => {
  const copy = new MemoryFolder("copy"), source = adapterAt("llama_patterns");
  const json = await readJson(source, "adapter_config.json") as object;
  await copy.write(
    "adapter_config.json",
    JSON.stringify({ ...json, init_lora_weights: "eva", eva_config: { rho: 2 } }),
  );
  await copy.write("adapter_model.safetensors", await source.read("adapter_model.safetensors"));
  const model = createModel(await readJson(modelAt("llama"), "config.json"));
  assert.equal((await readPeft(model, copy)).config.init_lora_weights, undefined);
  const tuned = await openTunedPeft(gpu, modelAt("llama"), copy);
  tuned.close();
});

// --- refusals ---

Deno.test("what would have to be ignored is refused by name", async () => {
  const refusals: [Record<string, unknown>, RegExp][] = [
    [{ use_dora: true }, /use_dora is true, which is not supported$/],
    [{ bias: "lora_only" }, /bias is "lora_only"/],
    [{ fan_in_fan_out: true }, /fan_in_fan_out is true/],
    [{ trainable_token_indices: [1] }, /trainable_token_indices is \[1\]/],
    [{ some_new_idea: { rank: 2 } }, /some_new_idea is \{"rank":2\}/],
    [{ init_lora_weights: "pissa" }, /init_lora_weights/],
    [
      { target_modules: ".*q_proj", layers_to_transform: [0] },
      /layers_to_transform needs target_modules to be a list/,
    ],
    [
      { target_modules: ["q_proj"], layers_pattern: ["h"] },
      /layers_pattern is of use with layers_to_transform only/,
    ],
  ];
  for (const [fields, message] of refusals) {
    assert.throws(
      () => parseLora({ target_modules: ["q_proj"], bias: "none", ...fields }, "a.json"),
      message,
    );
  }
  assert.throws(
    () => isTarget("q", config({ target_modules: "(q" })),
    /by "\(q": expected a regular expression/,
  );
  const { registry } = createModel(await readJson(modelAt("llama"), "config.json"));
  for (const name of ["lm_head", "embed_tokens", "mlp"]) {
    assert.throws(
      () => attachLora(registry, config({ target_modules: ["q_proj", name] })),
      new RegExp(`matches "[a-z.0-9_]*${name}", which is no linear layer`),
    );
  }
});

Deno.test("an adapter file of another model, or one that lacks a part, is refused by key", async () => {
  await assert.rejects(
    openTunedPeft(gpu, modelAt("llama"), adapterAt("smolvlm_connector")),
    /modules_to_save: "connector" matches no module/,
  );
  const short = new MemoryFolder("short"), source = adapterAt("llama_patterns");
  await short.write("adapter_config.json", await source.read("adapter_config.json"));
  await assert.rejects(
    openTunedPeft(gpu, modelAt("llama"), short),
    /"short": it has no adapter_model.safetensors and no adapter_model.bin$/,
  );
  const json = await readJson(source, "adapter_config.json") as Record<string, unknown>;
  json.layers_to_transform = [0, 1, 3];
  await short.write("adapter_config.json", JSON.stringify(json));
  await short.write("adapter_model.safetensors", await source.read("adapter_model.safetensors"));
  const used = gpu.pool.usedBytes;
  await assert.rejects(
    openTunedPeft(gpu, modelAt("llama"), short),
    /missing "base_model.model.model.layers.0/,
  );
  assert.equal(gpu.pool.usedBytes, used, "a refused adapter leaves buffers behind");
});
