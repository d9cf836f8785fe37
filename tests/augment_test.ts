/**
 * The image control against Pillow 12's rotate, mirror, ImageEnhance.Brightness and ImageEnhance.Contrast: the same bytes.
 */
import assert from "node:assert/strict";
import { sha256 } from "../core/formats/manifest.ts";
import { augmentPicture, drawAugmentation, rotatePicture } from "../core/image/augment.ts";
import type { Picture } from "../core/image/picture.ts";
import { Random } from "../core/random.ts";
import cases from "./fixtures/augment/pillow.json" with { type: "json" };

/** The picture that the fixture's script made by the same formula. */
function pattern(width: number, height: number): Picture {
  const data = Uint8Array.from(
    { length: width * height * 3 },
    (_, i) => (i * 7919 + Math.floor(i / 3) ** 2 * 31) % 251,
  );
  return { width, height, data };
}

for (const { width, height, size, rotated, sha256: expected, ...change } of cases) {
  Deno.test(`a picture of ${width} x ${height} turned by ${change.angle} degrees is Pillow's`, async () => {
    const turned = rotatePicture(pattern(width, height), change.angle);
    assert.deepEqual([turned.width, turned.height], size);
    assert.equal(await sha256(turned.data as Uint8Array<ArrayBuffer>), rotated);
    const out = augmentPicture(pattern(width, height), change);
    assert.equal(await sha256(out.data as Uint8Array<ArrayBuffer>), expected);
  });
}

Deno.test("draws stay in the study's ranges, and one seed gives one augmentation", () => {
  for (let seed = 0; seed < 200; seed++) {
    const drawn = drawAugmentation(new Random(seed, "augment"));
    assert.ok(Math.abs(drawn.angle) <= 30);
    for (const factor of [drawn.brightness, drawn.contrast]) assert.ok(factor >= 0.8 && factor <= 1.2);
    assert.deepEqual(drawn, drawAugmentation(new Random(seed, "augment")));
  }
});
