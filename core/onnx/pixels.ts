/**
 * From what a processor makes of a picture to what a tower's first layer reads, inside the graph. How the pixels moved is
 * found by running the model's own code on their numbers; the usual cut into patches becomes a transposition.
 */
import { InputError } from "../errors.ts";
import { sizeOf } from "../shape.ts";
import { reshape } from "./ops.ts";
import type { Computed, Graph, Value } from "./graph.ts";

/** Whole numbers that a 32-bit float counts without a gap. */
const COUNTED = 2 ** 24;

/** Stands in for a processed picture: every pixel value is its own index. @throws InputError when there are too many */
export function numberedPixels(shape: readonly number[]): Float32Array<ArrayBuffer> {
  const size = sizeOf(shape);
  if (size > COUNTED) {
    throw new InputError(`Cannot export for a picture of ${size} values: expected at most ${COUNTED}`);
  }
  return Float32Array.from({ length: size }, (_, i) => i);
}

/** Nodes that move the input's values to where `moved` (P, K) says that they went. */
export function pixelNodes(
  graph: Graph,
  input: Computed,
  moved: Float32Array,
  shape: readonly number[],
): Value {
  const [P, K] = shape;
  if (moved.length === sizeOf(input.shape) && moved.every((from, to) => from === to)) {
    return reshape(graph, input, shape);
  }
  return patchNodes(graph, input, moved, [P, K]) ?? rowNodes(graph, input, moved, [P, K]) ??
    reshape(
      graph,
      graph.add("Gather", [reshape(graph, input, [sizeOf(input.shape)]), graph.indices(moved)], [P * K], {
        axis: 0,
      }),
      shape,
    );
}

/** Planes (…, 3, H, W) cut into patches, as `toPatches` does; what whole patches do not cover is left. */
function patchNodes(
  graph: Graph,
  input: Computed,
  moved: Float32Array,
  [P, K]: [number, number],
): Value | undefined {
  const [channels, H, W] = input.shape.slice(-3), p = Math.sqrt(K / channels);
  if (input.shape.length < 3 || !Number.isInteger(p)) return undefined;
  const n = sizeOf(input.shape.slice(0, -3)), rows = Math.floor(H / p), columns = Math.floor(W / p);
  if (n * rows * columns !== P) return undefined;
  const from = (patch: number, k: number) => {
    const image = Math.floor(patch / (rows * columns)),
      y = Math.floor(patch / columns) % rows,
      x = patch % columns;
    const channel = Math.floor(k / p ** 2), dy = Math.floor(k / p) % p, dx = k % p;
    return ((image * channels + channel) * H + y * p + dy) * W + x * p + dx;
  };
  for (let i = 0; i < moved.length; i++) if (moved[i] !== from(Math.floor(i / K), i % K)) return undefined;
  let x = reshape(graph, input, [n, channels, H, W]);
  if (rows * p !== H || columns * p !== W) {
    const bounds = [[0, 0], [rows * p, columns * p], [2, 3]].map((values) => graph.ints(values));
    x = graph.add("Slice", [x, ...bounds], [n, channels, rows * p, columns * p]);
  }
  const cut = reshape(graph, x, [n, channels, rows, p, columns, p]);
  const turned = graph.add("Transpose", [cut], [n, rows, columns, channels, p, p], {
    perm: [0, 2, 4, 1, 3, 5],
  });
  return reshape(graph, turned, [P, K]);
}

/** Rows (P, K) in another order, as windows need them. */
function rowNodes(
  graph: Graph,
  input: Computed,
  moved: Float32Array,
  [P, K]: [number, number],
): Value | undefined {
  if (
    input.shape.at(-1) !== K ||
    moved.some((from, i) => from % K !== i % K || from - i % K !== moved[i - i % K])
  ) {
    return undefined;
  }
  const order = Array.from({ length: P }, (_, row) => moved[row * K] / K);
  return graph.add("Gather", [input, graph.indices(order)], [P, K], { axis: 0 });
}
