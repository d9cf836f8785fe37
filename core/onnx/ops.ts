/**
 * Every op of a forward pass as ONNX nodes: the engine says which op ran on what, and here stand the same formulas in
 * ONNX's operators. Refuses queries that see no key, for ONNX's softmax knows no empty row.
 */
import type { Ranges } from "../ranges.ts";
import type { ActivationKind } from "../reference/activation.ts";
import { sizeOf } from "../shape.ts";
import type { SparseRows } from "../sparse_rows.ts";
import { attentionNodes } from "./attention.ts";
import { type Computed, type Graph, isStored, type Stored, type Value } from "./graph.ts";

/** What each op is told beside its inputs. */
export interface OpOptions {
  /** x (T, K), w (N, K), maybe b (N), maybe a (R, K) and up (N, R): x w^T + b + scaling x a^T up^T. */
  linear: { scaling?: number };
  /** x (T, K), p (K, N): x p. */
  project: Record<never, never>;
  /** x (T, C), w (C) and, centred, b (C). */
  norm: { eps: number };
  /** x (T, H*D), cos and sin (T, D/2). */
  rotary: Record<never, never>;
  /** q (T, H*D), k and v (S, K*D). */
  attention: { ranges: Ranges; headDim: number; scale: number };
  activate: { kind: ActivationKind };
  /** gate, up. */
  swiglu: Record<never, never>;
  add: Record<never, never>;
  scale: { factor: number };
  /** Rows of a table. */
  gather: { index: Uint32Array };
  /** base (T, C), features (P, C). */
  merge: { source: Int32Array };
  /** Means of groups of rows. */
  pool: { groups: readonly Uint32Array[] };
  /** A sparse matrix times x. */
  mix: { matrix: SparseRows };
}
export type OpName = keyof OpOptions;

type Write<K extends OpName> = (graph: Graph, inputs: readonly Value[], options: OpOptions[K]) => Value;

const OPS: { [K in OpName]: Write<K> } = {
  linear: (graph, [x, w, b, a, up], { scaling }) => {
    const y = product(graph, x, w, 1, b);
    if (!a || !up) return y;
    const low = product(graph, product(graph, x, a, 1), up, 1);
    return graph.add("Add", [y, graph.add("Mul", [low, graph.scalar(scaling!)], y.shape)], y.shape);
  },
  project: (graph, [x, p]) => product(graph, x, p, 0),
  norm: (graph, [x, w, b], { eps }) => b ? layernorm(graph, x, w, b, eps) : rmsnorm(graph, x, w, eps),
  rotary: (graph, [x, cos, sin]) => rotary(graph, x, cos, sin),
  attention: (graph, [q, k, v], options) => attentionNodes(graph, q, k, v, options),
  activate: (graph, [x], { kind }) => activate(graph, x, kind),
  swiglu: (graph, [gate, up]) => graph.add("Mul", [activate(graph, gate, "silu"), up], up.shape),
  add: (graph, [x, y]) => graph.add("Add", [tableName(graph, x), tableName(graph, y)], x.shape),
  scale: (graph, [x], { factor }) => graph.add("Mul", [x, graph.scalar(factor)], x.shape),
  gather: (graph, [x], { index }) => gather(graph, x, index),
  merge: (graph, [base, features], { source }) => merge(graph, base, features, source),
  pool: (graph, [x], { groups }) => pool(graph, x, groups),
  mix: (graph, [x], { matrix }) => mix(graph, x, matrix),
};

/** Adds an op's nodes and returns its result. */
export function writeOp<K extends OpName>(
  graph: Graph,
  op: K,
  inputs: readonly (Value | undefined)[],
  options: OpOptions[K],
): Value {
  return OPS[op](graph, inputs as readonly Value[], options); // each looks before it uses what may be missing
}

/** The same elements under another shape. */
export function reshape(graph: Graph, x: Value, shape: readonly number[]): Value {
  if (x.shape.join() === shape.join()) return x;
  return isStored(x) ? { ...x, shape } : graph.add("Reshape", [x, graph.ints(shape)], shape);
}

const tableName = (graph: Graph, x: Value): string => graph.use(x, { kind: "table" });

function product(graph: Graph, x: Value, w: Value, transB: 0 | 1, b?: Value): Computed {
  const axis = transB === 1 ? 0 : 1, weight = graph.use(w, { kind: "weight", axis });
  return graph.add("Gemm", [tableName(graph, x), weight, ...(b ? [b] : [])], [x.shape[0], w.shape[axis]], {
    transB,
  });
}

function layernorm(graph: Graph, x: Value, w: Value, b: Value, eps: number): Computed {
  return graph.add("LayerNormalization", [x, w, b], x.shape, { axis: -1, epsilon: { float: eps } });
}

function rmsnorm(graph: Graph, x: Value, w: Value, eps: number): Computed {
  const row = [x.shape[0], 1], square = graph.add("Mul", [x, x], x.shape);
  const mean = graph.add("ReduceMean", [square], row, { axes: [-1], keepdims: 1 });
  const root = graph.add("Sqrt", [graph.add("Add", [mean, graph.scalar(eps)], row)], row);
  return graph.add("Mul", [graph.add("Div", [x, root], x.shape), w], x.shape);
}

function rotary(graph: Graph, x: Value, cos: Value, sin: Value): Value {
  const [T, C] = x.shape, half = cos.shape[1], H = C / (2 * half), part = [T, H, half];
  const [a, b] = graph.split(reshape(graph, x, [T, H, 2 * half]), 2, [part, part]);
  const [c, s] = [cos, sin].map((table) => reshape(graph, table, [T, 1, half]));
  const times = (x: Value, y: Value) => graph.add("Mul", [x, y], part);
  const turned = [
    graph.add("Sub", [times(a, c), times(b, s)], part),
    graph.add("Add", [times(b, c), times(a, s)], part),
  ];
  return reshape(graph, graph.add("Concat", turned, [T, H, 2 * half], { axis: 2 }), x.shape);
}

/** The formulas of core/reference/activation.ts. */
function activate(graph: Graph, x: Value, kind: ActivationKind): Computed {
  const { shape } = x, node = (op: string, ...inputs: (Value | string)[]) => graph.add(op, inputs, shape);
  const times = (x: Value, factor: number) => node("Mul", x, graph.scalar(factor));
  if (kind === "silu") return node("Mul", x, node("Sigmoid", x));
  if (kind === "quick_gelu") return node("Mul", x, node("Sigmoid", times(x, 1.702)));
  let inner: Computed;
  if (kind === "gelu") inner = node("Erf", times(x, Math.SQRT1_2));
  else {
    const cube = node("Mul", node("Mul", x, x), x);
    inner = node("Tanh", times(node("Add", x, times(cube, 0.044715)), Math.sqrt(2 / Math.PI)));
  }
  return node("Mul", times(x, 0.5), node("Add", inner, graph.scalar(1)));
}

function gather(graph: Graph, x: Value, index: ArrayLike<number>): Value {
  const shape = [index.length, x.shape[1]];
  return isStored(x)
    ? storedRows(x, Array.from(index))
    : graph.add("Gather", [x, graph.indices(index)], shape, { axis: 0 });
}

/** Rows of what is stored are stored: of a vocabulary only the prompt's rows are read and written. */
function storedRows(x: Stored, index: readonly number[]): Stored {
  const C = x.shape[1];
  if (index.length === x.shape[0] && index.every((row, i) => row === i)) return x;
  return computedTable(`${x.key}[${index}]`, [index.length, C], async () => {
    const out = new Float32Array(index.length * C), rows = new Map<number, Float32Array>();
    for (const [i, row] of index.entries()) {
      if (!rows.has(row)) rows.set(row, await x.range(row * C, (row + 1) * C));
      out.set(rows.get(row)!, i * C);
    }
    return out;
  });
}

/** Values that are worked out from stored ones when the file is written; the key may be long, the name is not. */
function computedTable(
  key: string,
  shape: readonly number[],
  load: () => Promise<Float32Array<ArrayBuffer>>,
): Stored {
  return { key, shape, range: async (from, to) => (await load()).slice(from, to) };
}

function merge(graph: Graph, base: Value, features: Value, source: Int32Array): Value {
  const [P, C] = features.shape, kept = [...source.keys()].filter((t) => source[t] < 0);
  let next = P;
  const order = Array.from(source, (row) => row < 0 ? next++ : row);
  const rest = kept.length ? [gather(graph, base, kept)] : [];
  const all = graph.add("Concat", [features, ...rest].map((part) => tableName(graph, part)), [next, C], {
    axis: 0,
  });
  return gather(graph, all, order);
}

function pool(graph: Graph, x: Value, groups: readonly Uint32Array[]): Value {
  const C = x.shape[1];
  const means = groups.map((rows) => {
    const chosen = gather(graph, x, rows);
    return rows.length === 1 ? chosen : graph.add("ReduceMean", [chosen], [1, C], { axes: [0], keepdims: 1 });
  });
  return means.length === 1 ? means[0] : graph.add("Concat", means, [means.length, C], { axis: 0 });
}

function mix(graph: Graph, x: Value, { starts, entries, weights, columns }: SparseRows): Value {
  const C = x.shape[1], R = starts.length - 1, shape = [R, C];
  const each = (visit: (row: number, column: number, weight: number) => void) => {
    for (let r = 0; r < R; r++) {
      for (let e = starts[r]; e < starts[r + 1]; e++) visit(r, entries[e], weights?.[e] ?? 1);
    }
  };
  if (!isStored(x)) {
    const dense = new Float32Array(R * columns);
    each((row, column, weight) => dense[row * columns + column] += weight);
    const matrix = computedTable(`mix ${entries} ${weights}`, [R, columns], () => Promise.resolve(dense));
    return graph.add("MatMul", [matrix, x], shape);
  }
  return computedTable(`mix ${entries} ${weights} of ${x.key}`, shape, async () => {
    const table = await x.range(0, sizeOf(x.shape)), out = new Float32Array(R * C);
    each((row, column, weight) => {
      for (let c = 0; c < C; c++) out[row * C + c] += weight * table[column * C + c];
    });
    return out;
  });
}
