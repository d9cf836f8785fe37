/**
 * Image processors against transformers' own, bit for bit, and what their configurations may not say.
 */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { sha256 } from "../core/formats/manifest.ts";
import { decodeImage } from "../core/image/codecs.ts";
import { blankPicture } from "../core/image/picture.ts";
import { smartResize } from "../core/image/processor_qwen2_vl.ts";
import { createProcessor, padToSquare, toPatches } from "../core/image/processors.ts";
import { FIXTURES } from "./check.ts";

interface Case {
  config: Record<string, unknown>;
  images: Record<string, { shape: number[]; grid: number[] | null; sha256: string }>;
}

for (const pillow of [12, 13] as const) {
  Deno.test(`pixel values of ten processors equal transformers' with Pillow ${pillow} to the bit`, async () => {
    const cases: Record<string, Case> = JSON.parse(
      Deno.readTextFileSync(`${FIXTURES}/images/process${pillow}.json`),
    );
    assert.equal(Object.keys(cases).length, 10);
    for (const [name, { config, images }] of Object.entries(cases)) {
      const processor = createProcessor(config, name, pillow);
      for (const [image, expected] of Object.entries(images)) {
        const picture = await decodeImage(Deno.readFileSync(`${FIXTURES}/images/${image}.png`));
        const { pixelValues, shape, grid, tiles } = processor.process(picture);
        assert.deepEqual(shape, expected.shape, `${name} ${image}`);
        assert.deepEqual(grid ?? null, expected.grid, `${name} ${image}`);
        assert.equal(
          await sha256(new Uint8Array(pixelValues.buffer as ArrayBuffer)),
          expected.sha256,
          `${name} ${image}`,
        );
        if (tiles) assert.equal(shape[1], tiles.rows ? tiles.rows * tiles.cols + 1 : 1);
      }
    }
  });
}

Deno.test("old spellings mean the same: feature_extractor_type, bare numbers, min_pixels", () => {
  const picture = {
    ...blankPicture(40, 30),
    data: Uint8Array.from({ length: 3600 }, (_, i) => (i * i) % 256),
  };
  const same = (a: unknown, b: unknown) =>
    assert.deepEqual(createProcessor(a, "a").process(picture), createProcessor(b, "b").process(picture));
  same({ feature_extractor_type: "CLIPFeatureExtractor", size: 28, crop_size: 28 }, {
    image_processor_type: "CLIPImageProcessorFast",
    size: { shortest_edge: 28 },
    crop_size: { height: 28, width: 28 },
  });
  same({ image_processor_type: "Qwen2VLImageProcessor", min_pixels: 3136, max_pixels: 12544 }, {
    image_processor_type: "Qwen2VLImageProcessorFast",
    size: { shortest_edge: 3136, longest_edge: 12544 },
  });
  same({ image_processor_type: "QwenVLImageProcessor", size: 56 }, {
    image_processor_type: "CLIPImageProcessor",
    size: { height: 56, width: 56 },
    do_center_crop: false,
  });
});

Deno.test("configurations and pictures that cannot work are refused by name", () => {
  const create = (config: unknown) => () => createProcessor(config, "preprocessor_config.json");
  assert.throws(
    create({ image_processor_type: "ViTHybridImageProcessor" }),
    /"image_processor_type" is "ViTHybrid.*expected one of CLIP/,
  );
  assert.throws(
    create({ image_processor_type: "CLIPImageProcessor", resample: 0 }),
    /"resample" is 0, expected 1, 2 or 3/,
  );
  assert.throws(create({ image_processor_type: "CLIPImageProcessor", image_mean: [0.5] }), /"image_mean"/);
  assert.throws(create([]), InputError);
  const qwen = createProcessor({ image_processor_type: "Qwen2VLImageProcessor" }, "q.json");
  assert.throws(() => qwen.process(blankPicture(402, 2)), /402x2 with "q.json": proportions over 200/);
  const idefics = createProcessor({ image_processor_type: "Idefics3ImageProcessor" }, "i.json");
  assert.deepEqual(idefics.process(blankPicture(2000, 1)).tiles, { rows: 1, cols: 4 });
});

Deno.test("smartResize keeps multiples and bounds for 2,000 sizes, and rounds halves to even", () => {
  for (let i = 0; i < 2000; i++) {
    const width = 1 + (i * 37) % 911, height = 1 + (i * 101) % 787;
    if (Math.max(width, height) / Math.min(width, height) > 200) continue;
    const [h, w] = smartResize({ width, height }, 28, 56 * 56, 512 * 28 * 28, "q");
    assert(h % 28 === 0 && w % 28 === 0 && h > 0 && w > 0);
    assert(h * w >= 56 * 56, `${width}x${height} to ${w}x${h}`);
    // One patch a side is the least: only there may the bound be passed.
    assert(h * w <= 512 * 28 * 28 || Math.min(h, w) === 28);
  }
  assert.deepEqual(smartResize({ width: 70, height: 98 }, 28, 1, 1e9, "q"), [112, 56]);
});

Deno.test("padding centres the picture, the odd pixel below or to the right", () => {
  const padded = padToSquare({ width: 1, height: 4, data: new Uint8Array(12).fill(9) }, [1, 2, 3]);
  const row = [1, 2, 3, 9, 9, 9, 1, 2, 3, 1, 2, 3];
  assert.deepEqual([...padded.data], [...row, ...row, ...row, ...row]);
});

Deno.test("toPatches gives each patch by channel, row, column, as a flattened Conv2d weight reads it", () => {
  // Two images (3, 4, 6) whose values spell image, channel, row and column.
  const values = new Float32Array(2 * 3 * 4 * 6);
  for (let i = 0; i < values.length; i++) {
    const [n, c, y, x] = [Math.floor(i / 72), Math.floor(i / 24) % 3, Math.floor(i / 6) % 4, i % 6];
    values[i] = 1000 * n + 100 * c + 10 * y + x;
  }
  const patches = toPatches(values, [1, 2, 3, 4, 6], 2);
  const row = (p: number) => [...patches.subarray(p * 12, p * 12 + 12)];
  assert.deepEqual(row(0), [0, 1, 10, 11, 100, 101, 110, 111, 200, 201, 210, 211]);
  assert.deepEqual(row(4), [22, 23, 32, 33, 122, 123, 132, 133, 222, 223, 232, 233]);
  assert.equal(row(6)[0], 1000);
  assert.throws(() => toPatches(values, [2, 3, 4, 6], 4), /patches of 4: it must divide both/);
});
