/**
 * Resizing against Pillow's own results, bit for bit, in both orders of its passes.
 */
import assert from "node:assert/strict";
import { sha256 } from "../core/formats/manifest.ts";
import { blankPicture, type Picture } from "../core/image/picture.ts";
import { type Filter, resizePicture } from "../core/image/resize.ts";
import { FIXTURES } from "./check.ts";

/** The picture that the fixture's maker draws as well. */
function lcgPicture(width: number, height: number): Picture {
  const picture = blankPicture(width, height);
  let x = width * 1000 + height;
  for (let i = 0; i < picture.data.length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    picture.data[i] = x >>> 24;
  }
  return picture;
}

for (const pillow of [12, 13] as const) {
  Deno.test(`60 sizes up, down and both ways equal Pillow ${pillow} to the bit`, async () => {
    const rows: [number, number, number, number, Filter, string][] = JSON.parse(
      Deno.readTextFileSync(`${FIXTURES}/images/resize${pillow}.json`),
    );
    assert.equal(rows.length, 60);
    let ordered = 0;
    for (const [width, height, toWidth, toHeight, filter, hash] of rows) {
      const picture = lcgPicture(width, height);
      const resized = resizePicture(picture, toWidth, toHeight, filter, pillow);
      const what = `${width}x${height} to ${toWidth}x${toHeight} ${filter}`;
      assert.equal(await sha256(resized.data as Uint8Array<ArrayBuffer>), hash, what);
      const other = resizePicture(picture, toWidth, toHeight, filter, pillow === 12 ? 13 : 12);
      if (other.data.some((value, i) => value !== resized.data[i])) ordered++;
    }
    assert(ordered > 5, `only ${ordered} sizes tell the two apart`);
  });
}

Deno.test("a flat picture stays flat under every filter, also negative lobes and edges", () => {
  const flat = { ...blankPicture(7, 5), data: new Uint8Array(105).fill(201) };
  for (const filter of ["bilinear", "bicubic", "lanczos"] as const) {
    for (const [w, h] of [[1, 1], [3, 9], [40, 2]]) {
      assert.deepEqual(resizePicture(flat, w, h, filter).data, new Uint8Array(w * h * 3).fill(201));
    }
  }
});
