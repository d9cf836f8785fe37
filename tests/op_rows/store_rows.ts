/**
 * Rows of gpu/ops/store_rows.ts: what is written lands where the list says and nothing else moves.
 * A place outside and a width off the vec4 path are refused.
 */
import assert from "node:assert/strict";
import { Random } from "../../core/random.ts";
import { storeRows } from "../../gpu/ops/store_rows.ts";
import type { Row } from "./row.ts";

const random = new Random(5, "store rows");
const normals = (n: number) => Float32Array.from({ length: n }, () => random.normal());

export const rows: Row[] = [
  ...[[1, 1, 4], [5, 9, 12], [33, 40, 64]].map(([M, N, C]): Row => ({
    op: "storeRows",
    name: `${M} rows of ${C} into ${N}`,
    check: async (gpu) => {
      const places = Uint32Array.from(random.shuffle(Array.from({ length: N }, (_, i) => i)).slice(0, M));
      const [k, v, keys, values] = [M, M, N, N].map((count) => normals(count * C));
      const upload = (x: Float32Array<ArrayBuffer>) => gpu.upload(x, [x.length / C, C]);
      const [toK, toV] = [upload(keys), upload(values)];
      storeRows(gpu, [upload(k), upload(v)], [toK, toV], places, gpu.upload(places));
      places.forEach((place, m) => {
        keys.set(k.subarray(m * C, (m + 1) * C), place * C);
        values.set(v.subarray(m * C, (m + 1) * C), place * C);
      });
      assert.deepEqual(await gpu.read(toK, toV), [keys, values]);
    },
  })),
  {
    op: "storeRows",
    name: "refuses what does not fit",
    check: (gpu) => {
      const narrow = gpu.empty([1, 6]), row = gpu.empty([1, 8]), table = gpu.empty([3, 8]);
      const at = (place: number) => [Uint32Array.of(place), gpu.empty([1], "u32")] as const;
      assert.throws(() => storeRows(gpu, [narrow, narrow], [narrow, narrow], ...at(0)), /rows of 6 values/);
      assert.throws(() => storeRows(gpu, [row, row], [table, table], ...at(3)), RangeError);
    },
  },
];
