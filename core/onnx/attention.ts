/**
 * Attention over ranges of keys as ONNX nodes: blocks that do not see each other become a batch, what is left of the
 * ranges a mask. Refuses queries that see no key, for ONNX's softmax knows no empty row.
 */
import type { Ranges } from "../ranges.ts";
import { type Computed, type Graph, isStored, type Value } from "./graph.ts";

/** Added to the scores of keys that a query does not see: exp of it is 0 beside any score. */
const UNSEEN = -1e30;

export interface AttentionNodesOptions {
  ranges: Ranges;
  headDim: number;
  scale: number;
}

/** Ranges in n equal blocks; a block's ranges count from its own start and are undefined where all keys are seen. */
interface Blocks {
  n: number;
  lo?: number[];
  hi?: number[];
}

/**
 * The most equal blocks of T queries and S keys that see only themselves, and all alike.
 * @throws RangeError for a query with an empty range
 */
export function blocksOf({ queryLo, queryHi }: Pick<Ranges, "queryLo" | "queryHi">, S: number): Blocks {
  const T = queryLo.length;
  const empty = queryLo.findIndex((lo, t) => lo >= queryHi[t]);
  if (empty >= 0) throw new RangeError(`Cannot export attention: query ${empty} of ${T} sees no key`);
  for (let n = Math.min(T, S); n >= 1; n--) {
    if (T % n || S % n) continue;
    const rows = T / n, keys = S / n;
    const alike = queryLo.every((lo, t) => {
      const start = Math.floor(t / rows) * keys, first = t % rows;
      return lo - start === queryLo[first] && queryHi[t] - start === queryHi[first] && queryHi[first] <= keys;
    });
    if (!alike) continue;
    const lo = Array.from(queryLo.subarray(0, rows)), hi = Array.from(queryHi.subarray(0, rows));
    return lo.every((from) => from === 0) && hi.every((to) => to === keys) ? { n } : { n, lo, hi };
  }
  throw new Error("One block always fits");
}

/** q (T, H*D), k and v (S, K*D): (T, H*D). @throws RangeError for a query with an empty range */
export function attentionNodes(
  graph: Graph,
  q: Value,
  k: Value,
  v: Value,
  { ranges, headDim: D, scale }: AttentionNodesOptions,
): Computed {
  const [T, Q] = q.shape, [S, C] = k.shape, K = C / D, G = Q / C;
  const { n, lo, hi } = blocksOf(ranges, S), rows = T / n, keys = S / n;
  const node = (op: string, inputs: (Value | string)[], shape: number[], attributes = {}) =>
    graph.add(op, inputs, shape, attributes);
  const cut = (x: Value, shape: number[]) =>
    isStored(x) ? { ...x, shape } : node("Reshape", [x, graph.ints(shape)], shape);
  // Heads are in groups of G that share keys: (n, K, G, rows, D), the keys once for the group.
  const scaled = node("Mul", [q, graph.scalar(scale)], [T, Q]);
  const queries = node("Transpose", [cut(scaled, [n, rows, K, G, D])], [n, K, G, rows, D], {
    perm: [0, 2, 3, 1, 4],
  });
  const far = node("Transpose", [cut(k, [n, keys, K, 1, D])], [n, K, 1, D, keys], { perm: [0, 2, 3, 4, 1] });
  const values = node("Transpose", [cut(v, [n, keys, K, 1, D])], [n, K, 1, keys, D], {
    perm: [0, 2, 3, 1, 4],
  });
  let scores = node("MatMul", [queries, far], [n, K, G, rows, keys]);
  if (lo && hi) scores = node("Add", [scores, mask(graph, lo, hi, keys)], [n, K, G, rows, keys]);
  const shares = node("Softmax", [scores], [n, K, G, rows, keys], { axis: -1 });
  const mixed = node("MatMul", [shares, values], [n, K, G, rows, D]);
  const back = node("Transpose", [mixed], [n, rows, K, G, D], { perm: [0, 3, 1, 2, 4] });
  return node("Reshape", [back, graph.ints([T, Q])], [T, Q]);
}

/** 0 where a query sees a key, (rows, keys); worked out from the bounds, which are small, when a runtime loads the file. */
function mask(graph: Graph, lo: number[], hi: number[], keys: number): Computed {
  const shape = [lo.length, keys], at = graph.indices([...Array(keys).keys()], [1, keys]);
  const before = graph.add("Less", [at, graph.indices(hi, [hi.length, 1])], shape);
  const early = graph.add("Less", [at, graph.indices(lo, [lo.length, 1])], shape);
  const seen = graph.add("And", [before, graph.add("Not", [early], shape)], shape);
  return graph.add("Where", [seen, graph.scalar(0), graph.scalar(UNSEEN)], shape);
}
