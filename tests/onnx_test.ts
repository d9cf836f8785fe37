/**
 * Models as ONNX graphs: all families with merged adapters on onnxruntime-web against transformers' own hidden states,
 * three types of weights, constants in a file beside the graph, and what cannot be exported.
 */
import assert from "node:assert/strict";
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import type { EncodedSample } from "../core/data/pack.ts";
import { InputError } from "../core/errors.ts";
import { openWeights } from "../core/formats/checkpoint.ts";
import { readJson } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { blocksOf } from "../core/onnx/attention.ts";
import { type Graph, quantize, type WeightDtype } from "../core/onnx/graph.ts";
import { encodeModel, encodeModelBeside, externalChunks, weightBytes } from "../core/onnx/model.ts";
import { Random } from "../core/random.ts";
import { sizeOf } from "../core/shape.ts";
import { causalRanges, EMPTY, fullRanges } from "../core/ranges.ts";
import { changeOfPeft } from "../gpu/merge.ts";
import { mergedValues } from "../gpu/merged_values.ts";
import { createModel } from "../gpu/models/create.ts";
import { traceModel } from "../gpu/onnx_trace.ts";
import { readSample } from "../gpu/parity.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { allclose, FIXTURES, relativeError } from "./check.ts";

env.wasm.numThreads = 1;

const REQUESTS = [
  { site: "layers.0.resid_post", reduction: "image-mean" },
  { site: "layers.*.resid_post", reduction: "last" },
  { site: "norm", reduction: "last" },
];

/** The sample with its first picture alone: whatever comes later changes nothing before it. */
function onePicture(
  sample: EncodedSample,
  marker: ReturnType<typeof createModel>["imageToken"],
  rows: number,
) {
  const isPicture = (id: number) => typeof marker === "number" ? id === marker : id === marker!.start;
  const length = typeof marker === "number" ? rows : 1;
  const starts = [...sample.ids.keys()].filter((t) => isPicture(sample.ids[t]));
  const end = starts[length] ?? sample.ids.length;
  // A picture that opens with a token of its own is left out with it.
  const cut = end < sample.ids.length && typeof marker === "number" ? end - 1 : end;
  return {
    ...sample,
    ids: sample.ids.slice(0, cut),
    labels: sample.labels.slice(0, cut),
    images: [sample.images[0]],
  };
}

/** A tiny checkpoint's graph, its input, and transformers' hidden states with the same adapter. */
async function openCase(family: string) {
  const folder = new DiskFolder(`${FIXTURES}/models/${family}`), json = await readJson(folder, "config.json");
  const model = createModel(json), weights = await openWeights(folder);
  const change = await changeOfPeft(json, folder.folder("adapter"));
  const truth = await SafetensorsFile.open(await folder.open("case.safetensors"));
  const whole = await readSample(truth);
  const sample = onePicture(whole, model.imageToken, model.featuresOf(whole.images[0]));
  const values = mergedValues(model, weights, change), layers = model.decoder.config.layers;
  return {
    sample,
    graph: (dtype: WeightDtype, requests = REQUESTS) =>
      traceModel({ model: createModel(json), values, sample, requests, dtype }),
    /** Of a feature "site@last", (C); undefined for what transformers does not return. */
    async expected(feature: string): Promise<Float32Array | undefined> {
      const [site, reduction] = feature.split("@"), layer = Number(site.split(".")[1]);
      const index = site === "norm" ? layers : layer + 1;
      if (site !== "norm" && index === layers || reduction !== "last") return undefined;
      const hidden = await truth.f32(`lora.hidden.${index}`), C = model.decoder.config.C;
      return hidden.subarray((sample.ids.length - 1) * C, sample.ids.length * C);
    },
    close() {
      weights.close();
      change.source.close();
      truth.source.close();
    },
  };
}

type Found = Record<string, Float32Array>;

/** Runs a file on a picture's pixels. */
async function run(
  file: Uint8Array,
  { images: [{ pixelValues, shape }] }: EncodedSample,
  external?: { path: string; data: Uint8Array },
): Promise<Found> {
  const session = await InferenceSession.create(file, { externalData: external && [external] });
  const found = await session.run({ pixel_values: new Tensor("float32", pixelValues, shape) });
  await session.release();
  return Object.fromEntries(Object.entries(found).map(([name, { data }]) => [name, data as Float32Array]));
}

const together = (found: Found) => Object.keys(found).sort().flatMap((name) => [...found[name]]);

for (const family of ["llava", "qwen2_vl", "qwen2_5_vl", "qwen_vl", "smolvlm", "idefics3"]) {
  Deno.test(`onnx: ${family} with its adapter merged gives transformers' hidden states`, async () => {
    const model = await openCase(family), graph = model.graph("f32");
    try {
      const found = await run(await encodeModel(graph), model.sample);
      assert.deepEqual(Object.keys(found).sort(), graph.outputs.map(({ name }) => name).sort());
      let compared = 0;
      for (const [feature, values] of Object.entries(found)) {
        const expected = await model.expected(feature);
        if (!expected) continue;
        allclose(`${family} ${feature}`, values, expected, 2e-5);
        compared++;
      }
      assert(compared >= 2, `${family}: ${compared} features compared`);
    } finally {
      model.close();
    }
  });
}

Deno.test("onnx: a weight that was trained whole beside an adapter keeps both", async () => {
  const folder = new DiskFolder(`${FIXTURES}/models/llava`), json = await readJson(folder, "config.json");
  const model = createModel(json), weights = await openWeights(folder);
  const change = await changeOfPeft(json, folder.folder("adapter"));
  try {
    const [name] = change.adapters.keys(), { shape } = model.registry.params.get(name)!;
    const random = new Random(11),
      trained = Float32Array.from({ length: sizeOf(shape) }, () => random.normal());
    const { source } = change, isTrained = (key: string) => key === "trained";
    change.whole.set(name, "trained");
    change.source = {
      ...source,
      f32Range: (key, from, to) =>
        isTrained(key) ? Promise.resolve(trained.slice(from, to)) : source.f32Range(key, from, to),
    };
    const { a, b, scaling } = change.adapters.get(name)!, [N, K] = shape;
    const [up, down] = [await source.f32(b), await source.f32(a)], R = down.length / K;
    const expected = Float32Array.from(trained, (value, i) => {
      let sum = 0;
      for (let r = 0; r < R; r++) sum += up[Math.floor(i / K) * R + r] * down[r * K + i % K];
      return value + scaling * sum;
    });
    const values = mergedValues(model, weights, change);
    allclose(name, await values.range(name, 0, N * K), expected, 1e-7);
    allclose(
      "a stretch inside",
      await values.range(name, K + 3, 3 * K - 1),
      expected.slice(K + 3, 3 * K - 1),
      1e-7,
    );
    assert(relativeError(trained, expected) > 1e-3, "the adapter is too small to be missed");
  } finally {
    weights.close();
    change.source.close();
  }
});

Deno.test("onnx: f16 and int8 weights lose what they should and no more, and take a half and a quarter", async () => {
  const model = await openCase("llava");
  try {
    const of = async (dtype: WeightDtype) => {
      const file = await encodeModel(model.graph(dtype));
      return { bytes: file.length, values: together(await run(file, model.sample)) };
    };
    const [f32, f16, int8] = [await of("f32"), await of("f16"), await of("int8")];
    const lost = [f16, int8].map(({ values }) => relativeError(values, f32.values));
    assert(lost[0] > 1e-5 && lost[0] < 2 ** -9, `f16 loses ${lost[0]}`);
    assert(lost[1] > lost[0] && lost[1] < 0.05, `int8 loses ${lost[1]}`);
    assert(f16.bytes < 0.56 * f32.bytes && int8.bytes < 0.36 * f32.bytes);
  } finally {
    model.close();
  }
});

Deno.test("onnx: constants in a file beside the graph give the same bits", async () => {
  const model = await openCase("smolvlm");
  try {
    const graph: Graph = model.graph("f32"), path = "encoder.data";
    const chunks: Uint8Array[] = [];
    for await (const chunk of externalChunks(graph)) chunks.push(chunk);
    const data = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
    const file = await encodeModelBeside(graph, path);
    assert(data.length < weightBytes(graph) && data.length > 0.9 * weightBytes(graph));
    assert(file.length < data.length / 5);
    assert.deepEqual(
      await run(file, model.sample, { path, data }),
      await run(await encodeModel(graph), model.sample),
    );
  } finally {
    model.close();
  }
});

Deno.test("onnx: layers behind the last feature are left out, and change nothing before them", async () => {
  const model = await openCase("llava");
  try {
    const whole = model.graph("f32"), site = "layers.0.resid_post";
    const part = model.graph("f32", [{ site, reduction: "last" }]);
    const named = ({ initializers }: Graph, text: string) =>
      initializers.some(({ name }) => name.includes(text));
    assert(named(whole, "layers.1.mlp") && named(part, "layers.0.mlp"));
    assert(!named(part, "language_model.layers.1.") && !named(part, "language_model.norm"));
    const found = await run(await encodeModel(part), model.sample);
    assert.deepEqual(found, {
      [`${site}@last`]: (await run(await encodeModel(whole), model.sample))[`${site}@last`],
    });
  } finally {
    model.close();
  }
});

Deno.test("onnx: eight-bit codes lie within half a step of each row's or column's own scale", () => {
  const random = new Random(3), [rows, columns] = [5, 7];
  const values = Float32Array.from(
    { length: rows * columns },
    (_, i) => i < columns ? 0 : random.normal() * 10 ** (i % 3),
  );
  for (const axis of [0, 1] as const) {
    const { codes, scales } = quantize(values, rows, columns, axis);
    assert.equal(scales.length, axis === 0 ? rows : columns);
    values.forEach((value, i) => {
      const scale = scales[axis === 0 ? Math.floor(i / columns) : i % columns];
      assert(Math.abs(codes[i] * scale - value) <= scale * 0.5001, `${codes[i]} * ${scale} for ${value}`);
    });
  }
});

Deno.test("onnx: ranges become equal blocks where they can, a mask where they must", () => {
  assert.deepEqual(blocksOf(fullRanges([0, 4, 8, 12]), 12), { n: 3 });
  assert.deepEqual(blocksOf(causalRanges([0, 3]), 3), { n: 1, lo: [0, 0, 0], hi: [1, 2, 3] });
  assert.deepEqual(blocksOf(causalRanges([0, 2, 4]), 4), { n: 2, lo: [0, 0], hi: [1, 2] });
  assert.deepEqual(blocksOf(fullRanges([0, 1, 4]), 4), { n: 1, lo: [0, 1, 1, 1], hi: [1, 4, 4, 4] });
  const queries = { queryLo: Uint32Array.of(0, 0, 6, 6), queryHi: Uint32Array.of(6, 6, 12, 12) };
  assert.deepEqual(blocksOf(queries, 12), { n: 2 });
  const none = { queryLo: Uint32Array.of(0, EMPTY), queryHi: Uint32Array.of(1, 0) };
  assert.throws(() => blocksOf(none, 2), /query 1 of 2 sees no key/);
});

Deno.test("onnx: a prompt without a picture and a site that is not there are refused", async () => {
  const model = await openCase("llava");
  try {
    const values = { range: () => Promise.reject(new Error("no value is read while the graph is written")) };
    const json = await readJson(new DiskFolder(`${FIXTURES}/models/llava`), "config.json");
    const write = (sample: EncodedSample, site: string) =>
      traceModel({
        model: createModel(json),
        values,
        sample,
        requests: [{ site, reduction: "last" }],
        dtype: "f32",
      });
    assert.throws(
      () => write({ ...model.sample, images: [] }, "norm"),
      (error) => error instanceof InputError && /with 0 pictures: expected 1/.test(error.message),
    );
    assert.throws(
      () => write(model.sample, "layers.9.resid_post"),
      /No tap site matches "layers.9.resid_post"/,
    );
  } finally {
    model.close();
  }
});
