/**
 * NF4 against bitsandbytes' own codes and values, bit for bit (tests/fixtures/nf4/make.py). The device's decoding is
 * held against the same functions in tests/op_rows/matmul.ts.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import {
  dequantizeNf4,
  DYNAMIC_LEVELS,
  NF4_GROUP_WORDS,
  NF4_GROUPS_AT,
  NF4_LEVELS,
  NF4_MEAN_AT,
  nf4CodeBytes,
  nf4ScaleWords,
  packScales,
  quantizeNf4,
} from "../core/formats/nf4.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { DiskFolder } from "../scripts/folder.ts";

const folder = new DiskFolder(new URL("fixtures/nf4", import.meta.url).pathname);
const file = await SafetensorsFile.open(await folder.open("case.safetensors"));

function quantized(values: Float32Array) {
  const codes = new Uint8Array(nf4CodeBytes(values.length));
  const absmax = new Float32Array(Math.ceil(values.length / 64));
  quantizeNf4(values, codes, absmax);
  return { codes, absmax, scales: packScales(absmax) };
}

Deno.test("code books, codes, scales and values are those of bitsandbytes, to the bit", async () => {
  const weight = await file.f32("weight"), { codes, scales } = quantized(weight);
  assert.deepEqual(DYNAMIC_LEVELS, await file.f32("levels"));
  assert.deepEqual(NF4_LEVELS, await file.f32("nf4"));
  assert.deepEqual(codes, await file.bytes("codes"));
  const floats = new Float32Array(scales.buffer), bytes = new Uint8Array(scales.buffer);
  assert.deepEqual(floats.slice(NF4_MEAN_AT, NF4_MEAN_AT + 1), await file.f32("scale_mean"));
  const spread = await file.f32("scale_spread");
  assert.equal(spread.length, 2, "the case has more than one group of scales");
  assert.deepEqual(spread.map((_, i) => floats[NF4_GROUPS_AT + i * NF4_GROUP_WORDS]), spread);
  const inner = await file.bytes("scale_codes");
  const at = (block: number) =>
    4 * (NF4_GROUPS_AT + 1 + Math.floor(block / 256) * NF4_GROUP_WORDS) + block % 256;
  assert.deepEqual(inner.map((_, block) => bytes[at(block)]), inner);
  const values = dequantizeNf4(codes, scales, weight.length);
  assert.deepEqual(values.filter((_, i) => i % 7 === 0), await file.f32("values"));
});

Deno.test("slices of whole blocks give the codes of the whole", async () => {
  const weight = await file.f32("weight"), whole = quantized(weight);
  const cut = 64 * 150, absmax = new Float32Array(whole.absmax.length), codes = whole.codes.slice().fill(0);
  quantizeNf4(weight.subarray(0, cut), codes.subarray(0, cut / 2), absmax);
  quantizeNf4(weight.subarray(cut), codes.subarray(cut / 2), absmax.subarray(cut / 64));
  assert.deepEqual(codes, whole.codes);
  assert.deepEqual(absmax, whole.absmax);
});

Deno.test("4.127 bits a value, a loss of a tenth, a block of zeros, a last block that is not full", async () => {
  const size = 4096 * 11008;
  const bits = 8 * (nf4CodeBytes(size) + 4 * (nf4ScaleWords(size) - NF4_GROUPS_AT)) / size;
  assert.equal(bits.toFixed(3), "4.127");
  const weight = (await file.f32("weight")).slice(0, 64 * 20 + 13), { codes, scales } = quantized(weight);
  const values = dequantizeNf4(codes, scales, weight.length);
  let error = 0, norm = 0;
  weight.forEach((w, i) => [error += (w - values[i]) ** 2, norm += w ** 2]);
  const relative = Math.sqrt(error / norm);
  // Measured for normal values: 0.092.
  assert(relative > 0.08 && relative < 0.105, `the loss is ${relative}`);
  assert(values.slice(136, 200).every((value) => value === 0), "zeros stay zeros");
});

Deno.test("what is not finite is refused", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const values = Float32Array.of(1, bad, 2);
    assert.throws(
      () => quantized(values),
      (error) => error instanceof InputError && /value 1/.test(error.message),
    );
  }
});
