/**
 * `parity --inputs` on a small folder (fixtures/inputs: Pillow 13, transformers 5.18, scikit-learn 1.9) and on damaged
 * copies of it. Refuses a measure that would not notice a wrong pixel, shape, coefficient, split or rate.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { MemoryFolder } from "../core/formats/folder.ts";
import { SafetensorsFile } from "../core/formats/safetensors.ts";
import { inputsParity } from "../core/parity_inputs.ts";
import { DiskFolder } from "../scripts/folder.ts";
import { FIXTURES } from "./check.ts";

const folder = new DiskFolder(`${FIXTURES}/inputs`);

async function copyOf(): Promise<MemoryFolder> {
  const copy = new MemoryFolder("copy");
  for (const name of await folder.list()) await copy.write(name, await folder.read(name));
  return copy;
}

/** Changes the first value of a tensor, where it lies in the file. */
async function changeValue(copy: MemoryFolder, name: string, key: string, change: (x: number) => number) {
  const file = await SafetensorsFile.open(await copy.open(name)), { start, dtype } = file.entry(key);
  const bytes = await copy.read(name), view = new DataView(bytes.buffer);
  if (dtype === "F64") view.setFloat64(start, change(view.getFloat64(start, true)), true);
  else view.setFloat32(start, change(view.getFloat32(start, true)), true);
  await copy.write(name, bytes);
}

async function changeJson(copy: MemoryFolder, name: string, change: (json: never) => void) {
  const json = JSON.parse(new TextDecoder().decode(await copy.read(name)));
  change(json as never);
  await copy.write(name, JSON.stringify(json));
}

Deno.test("processors, probe and metrics are those of Pillow, transformers and scikit-learn", async () => {
  const notes: string[] = [],
    { preprocess, probe, metrics } = await inputsParity(folder, (line) => notes.push(line));
  assert.deepEqual(Object.keys(preprocess), [
    "clip_crop",
    "llava_pad",
    "siglip",
    "qwen2_vl",
    "smolvlm",
    "idefics3",
  ]);
  for (const [name, { max_abs, mean_abs, shape_ok }] of Object.entries(preprocess)) {
    assert(max_abs <= 0.02 && mean_abs <= 1e-3 && shape_ok, `${name}: ${max_abs}, ${mean_abs}, ${shape_ok}`);
  }
  assert.match(notes[0], /^siglip: these pixels are Pillow 13's/);
  assert(probe.coef_rel <= 1e-3 && probe.proba_max_abs <= 1e-3, JSON.stringify(probe));
  assert(probe.auroc_abs <= 1e-9 && metrics.max_abs <= 1e-9, `${probe.auroc_abs}, ${metrics.max_abs}`);
});

Deno.test("a wrong pixel, shape, grid, coefficient, split or rate shows", async () => {
  const copy = await copyOf();
  await changeValue(copy, "preprocess.safetensors", "wide.clip_crop", (x) => x + 0.5);
  await changeValue(copy, "probe.safetensors", "split_coef", (x) => x + 1);
  await changeJson(copy, "preprocess.json", (json: Record<string, { config: Record<string, unknown> }>) => {
    json.llava_pad.config.crop_size = { height: 24, width: 20 };
  });
  await changeJson(
    copy,
    "preprocess.json",
    (json: { qwen2_vl: { images: { odd: { image_grid_thw: number[][] } } } }) => {
      json.qwen2_vl.images.odd.image_grid_thw[0].reverse();
    },
  );
  await changeJson(copy, "metrics.json", (json: { brier: number }[]) => json[2].brier += 0.01);
  const { preprocess, probe, metrics } = await inputsParity(copy, () => {});
  assert(Math.abs(preprocess.clip_crop.max_abs - 0.5) < 1e-6, `${preprocess.clip_crop.max_abs}`);
  assert.equal(preprocess.llava_pad.shape_ok, false);
  assert.equal(preprocess.qwen2_vl.shape_ok, false);
  assert(probe.coef_rel > 0.05, `${probe.coef_rel}`);
  assert(Math.abs(metrics.max_abs - 0.01) < 1e-9, `${metrics.max_abs}`);
});

Deno.test("a folder of another kind is refused by file and field", async () => {
  const copy = await copyOf();
  await changeJson(copy, "metrics.json", (json: { score?: number[] }[]) => delete json[1].score);
  await assert.rejects(
    inputsParity(copy, () => {}),
    (error) => error instanceof InputError && /copy\/metrics\.json[^]*score/.test(error.message),
  );
});
