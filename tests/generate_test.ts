/**
 * Generation against transformers' own (fixtures/generate), cached steps against whole passes, draws against the
 * softmax, scores against whole passes. Refuses a pool that grows while tokens are added.
 */
import assert from "node:assert/strict";
import { type EncodedSample, pack } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { readJson } from "../core/formats/folder.ts";
import { readAdapter, readAdapterConfig } from "../core/formats/peft.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import type { Processed } from "../core/image/processors.ts";
import { Random } from "../core/random.ts";
import { adjustLogits, checkSampling, logSoftmax, pickToken } from "../core/sampling.ts";
import { firstStop, settledLength } from "../core/text/stop_texts.ts";
import { addTokens, closeContext, readPrompts, scoreContinuations } from "../gpu/context.ts";
import { openGpu } from "../gpu/device.ts";
import { generate } from "../gpu/generate.ts";
import { createModel } from "../gpu/models/create.ts";
import { type Model, runModel } from "../gpu/models/model.ts";
import { loadWeights } from "../gpu/models/weights.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { Forward } from "../gpu/nn/forward.ts";
import { attachLora, loadLora } from "../gpu/nn/lora.ts";
import { placeTrained } from "../gpu/nn/params.ts";
import { matmulNT } from "../gpu/ops/matmul.ts";
import { readSample } from "../gpu/parity.ts";
import { Tape } from "../gpu/tape.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { allclose, FIXTURES } from "./check.ts";

interface Greedy {
  ids: number[];
  logp: number[];
}

const gpu = await openGpu();
const folderOf = (family: string) => new DiskFolder(`${FIXTURES}/models/${family}`);
const truth: Record<string, { prompt: number; base: Greedy; lora: Greedy; penalised?: Greedy }> = JSON.parse(
  Deno.readTextFileSync(`${FIXTURES}/generate/greedy.json`),
);
const FAMILIES = [...Object.keys(truth), "qwen_vl"];

async function openModel(family: string, change: Record<string, unknown> = {}): Promise<Model> {
  const folder = folderOf(family), weights = await openWeights(folder);
  const model = createModel({ ...await readJson(folder, "config.json") as object, ...change });
  await loadWeights(gpu, model, weights);
  weights.close();
  return model;
}

/** The case's first tokens, all but ten unless told, with its pictures. */
async function promptOf(family: string, tokens = -10): Promise<EncodedSample> {
  const file = await SafetensorsFile.open(await folderOf(family).open("case.safetensors"));
  const sample = await readSample(file);
  file.source.close();
  return { ...sample, ids: sample.ids.slice(0, tokens), labels: sample.labels.slice(0, tokens) };
}

const extended = (prompt: EncodedSample, ids: readonly number[]): EncodedSample => ({
  ...prompt,
  ids: [...prompt.ids, ...ids],
  labels: [...prompt.labels, ...ids.map(() => -100)],
});

/** Logits of every token of one sample, (T) rows of V, by a whole pass without a cache. */
async function wholeLogits(model: Model, sample: EncodedSample): Promise<Float32Array[]> {
  using _scope = gpu.pool.scope();
  const batch = pack([sample], {
    imageToken: model.imageToken,
    featuresOf: (image) => model.featuresOf(image),
    supervised: false,
  });
  const hidden = runModel(new Forward(new Tape(gpu, false)), model, batch, true),
    { V } = model.decoder.config;
  const logits = gpu.empty([batch.ids.length, V]);
  matmulNT(gpu, hidden, model.head.tensor, logits);
  const [values] = await gpu.read(logits);
  return sample.ids.map((_, t) => (values as Float32Array).subarray(t * V, (t + 1) * V));
}

for (const family of Object.keys(truth)) {
  Deno.test(`${family} says what transformers says, token by token, with its adapter too`, async () => {
    const { prompt: length, base, lora, penalised } = truth[family];
    const model = await openModel(family), prompt = await promptOf(family), folder = folderOf(family);
    assert.equal(prompt.ids.length, length);
    const maxTokens = base.ids.length;
    const [ours] = await generate(gpu, model, [prompt], { maxTokens });
    assert.deepEqual(ours.ids, base.ids);
    allclose("log p", ours.logProbs, base.logp, 1e-4);
    assert.equal(ours.ended, "length");
    if (penalised) {
      const [careful] = await generate(gpu, model, [prompt], { maxTokens, repetitionPenalty: 1.3 });
      assert.deepEqual(careful.ids, penalised.ids);
      assert.notDeepEqual(careful.ids, base.ids);
    }
    const params = attachLora(model.registry, await readAdapterConfig(folder.folder("adapter")));
    placeTrained(gpu, params);
    loadLora(gpu, params, await readAdapter(folder.folder("adapter")));
    const [tuned] = await generate(gpu, model, [prompt], { maxTokens });
    assert.deepEqual(tuned.ids, lora.ids);
    allclose("log p with the adapter", tuned.logProbs, lora.logp, 1e-4);
  });
}

interface Prompted {
  ids: number[];
  shape: number[] | null;
  grids: [number, number, number][] | null;
  logits: number[];
  greedy: Greedy;
}

/** The pictures of such a prompt, cut out of one row of pixels. */
function picturesOf({ shape, grids }: Prompted): Processed[] {
  if (!shape) return [];
  const size = shape.reduce((a, b) => a * b),
    pixels = Float32Array.from({ length: size }, (_, i) => Math.sin(0.37 * i));
  if (!grids && shape.length === 5) return [{ pixelValues: pixels, shape }];
  const rows = grids
    ? grids.map(([frames, height, width]) => frames * height * width)
    : Array(shape[0]).fill(1);
  let from = 0;
  return rows.map((count, i) => ({
    pixelValues: pixels.subarray(from, from += count * size / shape[0]),
    shape: [count, ...shape.slice(1)],
    grid: grids?.[i],
  }));
}

const several: Record<string, Record<string, Prompted>> = JSON.parse(
  Deno.readTextFileSync(`${FIXTURES}/generate/several.json`),
);
for (const [family, cases] of Object.entries(several)) {
  Deno.test(`${family} with several pictures, and with none, computes and says what transformers does`, async () => {
    const model = await openModel(family);
    const prompts = Object.entries(cases).map(([id, prompted]): EncodedSample => ({
      id,
      ids: prompted.ids,
      labels: prompted.ids.map(() => -100),
      images: picturesOf(prompted),
    }));
    assert.deepEqual(prompts.map(({ images }) => images.length > 0), [true, false]);
    const context = await readPrompts(gpu, model, prompts),
      results = await generate(gpu, model, prompts, { maxTokens: 16 });
    Object.values(cases).forEach(({ logits, greedy }, i) => {
      allclose(prompts[i].id, context.sequences[i].logits, logits, 1e-5);
      assert.deepEqual(results[i].ids, greedy.ids, prompts[i].id);
    });
    closeContext(context);
  });
}

for (const family of FAMILIES) {
  Deno.test(`${family} computes the same step by step as at once, for prompts side by side`, async () => {
    const model = await openModel(family), prompt = await promptOf(family);
    const random = new Random(1, family), word = () => 3 + random.int(200);
    const bare = { id: "text", ids: [5, 6, 7], labels: [-100, -100, -100], images: [] };
    const added = [Array.from({ length: 6 }, word), Array.from({ length: 6 }, word)];
    const context = await readPrompts(gpu, model, [prompt, bare], { room: 2 }); // outgrown twice
    for (let t = 0; t < 6; t++) {
      await addTokens(context, [0, 1], added.map((ids) => ids[t]));
      if (t % 3 !== 2) continue;
      for (const [s, sample] of [prompt, bare].entries()) {
        const whole = await wholeLogits(model, extended(sample, added[s].slice(0, t + 1)));
        allclose(`${sample.id} after ${t + 1}`, context.sequences[s].logits, whole.at(-1)!, 1e-5);
      }
    }
    closeContext(context);
  });

  Deno.test(`${family} scores continuations as a whole pass does, many behind one cache`, async () => {
    const model = await openModel(family), prompt = await promptOf(family);
    const random = new Random(2, family);
    const continuations = Array.from(
      { length: 12 },
      (_, i) => Array.from({ length: 1 + i % 5 }, () => 3 + random.int(200)),
    );
    const context = await readPrompts(
      gpu,
      model,
      [{ ...prompt, ids: [9, 8], images: [] }, prompt].map((sample) => ({
        ...sample,
        labels: sample.ids.map(() => -100),
      })),
    );
    const scores = await scoreContinuations(context, continuations, { sequence: 1, microTokens: 9 });
    const again = await scoreContinuations(context, continuations, { sequence: 1 });
    closeContext(context);
    for (const [i, ids] of continuations.entries()) {
      allclose(`continuation ${i} in other passes`, again[i], scores[i], 1e-5);
      if (i % 4 !== 0 && i !== 3) continue;
      const logits = await wholeLogits(model, extended(prompt, ids));
      const whole = ids.map((id, t) => logSoftmax(logits[prompt.ids.length - 1 + t])[id]);
      allclose(`continuation ${i}`, scores[i], whole, 1e-5);
    }
  });
}

Deno.test("beyond its training context Qwen-VL keeps the rotary base of its prompt", async () => {
  // Behind a context of 24 the base is one for 25 to 48 tokens, so that a whole pass may be compared.
  const change = { seq_length: 24, use_dynamic_ntk: true, use_logn_attn: true };
  const model = await openModel("qwen_vl", change), prompt = await promptOf("qwen_vl");
  const plain = await openModel("qwen_vl");
  assert(prompt.ids.length > 24 && prompt.ids.length <= 42, `${prompt.ids.length} tokens`);
  const added = [11, 12, 13, 14, 15, 16], context = await readPrompts(gpu, model, [prompt]);
  for (const id of added) await addTokens(context, [0], [id]);
  const sample = extended(prompt, added), whole = await wholeLogits(model, sample);
  allclose("logits", context.sequences[0].logits, whole.at(-1)!, 1e-5);
  const short = await wholeLogits(plain, sample);
  assert.throws(() => allclose("plain", short.at(-1)!, whole.at(-1)!, 1e-3), /relative error/);
  closeContext(context);
});

Deno.test("draws follow the softmax, and what is cut off never comes", () => {
  const logits = [1, -0.5, 0.3, 2, -3, 0.9], temperature = 0.8, n = 6000;
  const counts = (settings: Record<string, number>) => {
    const random = new Random(3, "draws"), found = logits.map(() => 0);
    for (let i = 0; i < n; i++) found[pickToken(logits, { temperature, ...settings }, [], random)]++;
    return found;
  };
  const p = Array.from(logSoftmax(logits.map((x) => x / temperature)), Math.exp);
  const fits = (found: number[], kept: number[]) => {
    const mass = kept.reduce((sum, i) => sum + p[i], 0);
    const chi2 = kept.reduce((sum, i) => sum + (found[i] - n * p[i] / mass) ** 2 / (n * p[i] / mass), 0);
    assert.equal(kept.reduce((sum, i) => sum + found[i], 0), n, "only what is kept");
    assert(chi2 <= [0, 10.8, 13.8, 16.3, 18.5, 20.5][kept.length - 1], `chi-square ${chi2}`); // p = 0.001
  };
  fits(counts({}), [0, 1, 2, 3, 4, 5]);
  fits(counts({ topK: 3 }), [0, 3, 5]);
  fits(counts({ topP: 0.8 }), [0, 3, 5]);
  fits(counts({ topK: 4, topP: 0.5 }), [3]);
});

Deno.test("logits are penalised, scaled and cut as transformers does it", () => {
  const cases = JSON.parse(Deno.readTextFileSync(`${FIXTURES}/generate/sampling.json`));
  assert.equal(cases.length, 6);
  for (const { settings, seen, logits, scores } of cases) {
    const ours = [...adjustLogits(logits, settings, seen)], what = JSON.stringify(settings);
    const kept = [...scores.keys()].filter((i) => scores[i] !== null);
    assert.deepEqual([...ours.keys()].filter((i) => ours[i] > -Infinity), kept, what);
    allclose(what, kept.map((i) => ours[i]), kept.map((i) => scores[i]), 1e-6);
  }
});

Deno.test("one seed gives one text, another another, and a prompt's place its own stream", async () => {
  const model = await openModel("llama"), prompt = await promptOf("llama");
  const options = { maxTokens: 12, temperature: 1.5, topK: 50 };
  const ids = async (seed: number, prompts: EncodedSample[]) =>
    (await generate(gpu, model, prompts, { ...options, seed })).map((result) => result.ids);
  const [[first], [same], [other], both] = [
    await ids(1, [prompt]),
    await ids(1, [prompt]),
    await ids(2, [prompt]),
    await ids(1, [prompt, prompt]),
  ];
  assert.deepEqual(first, same);
  assert.notDeepEqual(first, other);
  assert.deepEqual(both[0], first);
  assert.notDeepEqual(both[1], first);
});

Deno.test("a text ends at an end token, at a stop text or at its length", async () => {
  const model = await openModel("llava"), prompt = await promptOf("llava"), { ids } = truth.llava.base;
  const decode = (ids: readonly number[]) => ids.map((id) => String.fromCharCode(id)).join("");
  const seen: number[] = [];
  const [eos] = await generate(gpu, model, [prompt], {
    maxTokens: 16,
    eos: [7, ids[7]],
    decode,
    onToken: (_, ids) => seen.push(ids.length),
  });
  assert.deepEqual([eos.ids, eos.ended, eos.text], [ids.slice(0, 8), "eos", decode(ids.slice(0, 7))]);
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
  const stop = [decode(ids.slice(7, 9)), "never"];
  const [stopped] = await generate(gpu, model, [prompt], { maxTokens: 16, stop, decode });
  assert.deepEqual([stopped.ids.length, stopped.ended, stopped.text], [9, "stop", decode(ids.slice(0, 7))]);
  const bare = { id: "bare", ids: [5, 6], labels: [-100, -100], images: [] };
  const [short, alone] = await generate(gpu, model, [prompt, bare], { maxTokens: 9, eos: [ids[7]] });
  assert.deepEqual([short.ids, short.ended], [ids.slice(0, 8), "eos"]);
  const [whole] = await generate(gpu, model, [bare], { maxTokens: 9, eos: [ids[7]] });
  assert.deepEqual(alone.ids, whole.ids, "the other prompt goes on alone");
  allclose("log p", alone.logProbs, whole.logProbs, 1e-5);
});

Deno.test("two hundred tokens take no memory beyond the first ones and give all of it back", async () => {
  const model = await openModel("llama"), prompt = await promptOf("llama");
  const before = gpu.pool.usedBytes;
  let early = 0;
  await generate(gpu, model, [prompt], {
    maxTokens: 200,
    onToken: (_, { length }) => {
      if (length === 20) early = gpu.pool.peakBytes;
    },
  });
  assert(early > 0);
  assert.equal(gpu.pool.peakBytes, early);
  assert.equal(gpu.pool.usedBytes, before);
});

Deno.test("what cannot be generated or scored is refused by name", async () => {
  const model = await openModel("llama"), prompt = await promptOf("llama");
  const refuses = (run: () => Promise<unknown>, pattern: RegExp) =>
    assert.rejects(run, (error) => error instanceof InputError && pattern.test(error.message));
  assert.throws(() => checkSampling({ temperature: -1 }), /temperature -1: expected 0 or more/);
  assert.throws(() => checkSampling({ topK: 1.5 }), /top-k 1.5/);
  assert.throws(() => checkSampling({ topP: 0 }), /top-p 0/);
  assert.throws(() => checkSampling({ repetitionPenalty: 0 }), /repetition penalty 0/);
  await refuses(() => generate(gpu, model, [prompt], { maxTokens: 0 }), /generate 0 tokens/);
  await refuses(() => generate(gpu, model, [prompt], { maxTokens: 1, stop: ["x"] }), /no decoder/);
  await refuses(() => generate(gpu, model, [{ ...prompt, ids: [] }], { maxTokens: 1 }), /no token/);
  const context = await readPrompts(gpu, model, [prompt]);
  await refuses(() => scoreContinuations(context, [[1], []]), /continuation 1: it has no token/);
  await refuses(() => scoreContinuations(context, [[1, 260]]), /token 260, the vocabulary has 260/);
  closeContext(context);
  const stopped = AbortSignal.abort(new Error("enough"));
  await assert.rejects(generate(gpu, model, [prompt], { maxTokens: 1, signal: stopped }), /enough/);
});

Deno.test("a stop text is found where it starts, and its beginning is held back", () => {
  assert.equal(firstStop("one, two\nthree", ["three", ", "]), 3);
  assert.equal(firstStop("one", ["two"]), -1);
  const shown = (text: string) => text.slice(0, settledLength(text, ["\nUser:", "</s>"]));
  assert.deepEqual(["a\nUs", "a\nUx", "a<", "a</s>b<", "\nUser"].map(shown), [
    "a",
    "a\nUx",
    "a",
    "a</s>b",
    "",
  ]);
});

Deno.test("the task answers about a picture, in one object or as it goes, and refuses what it cannot mean", async () => {
  const run = async (...flags: string[]) => {
    const script = new URL("../scripts/generate.ts", import.meta.url).pathname;
    const command = new Deno.Command("deno", { args: ["run", "-A", script, ...flags] });
    const { code, stdout, stderr } = await command.output();
    return { code, out: new TextDecoder().decode(stdout), error: new TextDecoder().decode(stderr) };
  };
  const asked = ["--prompt", "what color is the circle", "--image", `${FIXTURES}/images/rgb.png`];
  const [whole, streamed, both] = await Promise.all([
    run(...asked, "--json"),
    run(...asked, "--stream"),
    run("--raw", "--prompt", "what shape", "--ids", "5,6"),
  ]);
  const { text, ids, logProbs, ended } = JSON.parse(whole.out);
  assert.deepEqual([ids.length, ended, whole.code], [logProbs.length, "eos", 0]);
  assert(text.length > 0 && logProbs.every((x: number) => x <= 0));
  assert.equal(streamed.out, `${text}\n`);
  assert.match(streamed.error, /\d+ tokens read, \d+ generated in [\d.]+ s, ended by eos/);
  assert.deepEqual([both.code, both.out], [2, ""]);
  assert.match(both.error, /give either --prompt or --ids/);
});
