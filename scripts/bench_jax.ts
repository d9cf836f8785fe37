/**
 * The peer of `deno task bench`: the same matrix product by jax-js on WebGPU, in the same process.
 * Refuses nothing: where jax-js finds no adapter, it says so itself.
 */
import { defaultDevice, init, numpy as np } from "@jax-js/jax";
import config from "../deno.json" with { type: "json" };
import { type BenchCase, PRODUCT, SIDE, squareMatrix } from "../gpu/bench.ts";

/** x w for square matrices, read back as the engine's own result is. */
export async function jaxProduct(): Promise<BenchCase> {
  await init("webgpu");
  defaultDevice("webgpu");
  const [a, b] = ["x", "w"].map((name) => np.array(squareMatrix(name)).reshape([SIDE, SIDE]));
  return {
    name: `${PRODUCT} x w`,
    group: PRODUCT,
    who: config.imports["@jax-js/jax"].replace("npm:", ""),
    amount: 2 * SIDE ** 3 / 1e9,
    unit: "GFLOP/s",
    async run(times) {
      for (let i = 1; i < times; i++) np.matmul(a.ref, b.ref).dispose();
      await np.matmul(a.ref, b.ref).data();
    },
  };
}
