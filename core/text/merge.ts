/**
 * Byte-pair merging as tiktoken and SentencePiece define it: of all neighbouring pairs the cheapest is joined first,
 * the leftmost of equals. It takes any parts and refuses none.
 */

interface Pair {
  cost: number;
  left: number;
  right: number;
  joined: string;
}

const isBefore = (a: Pair, b: Pair) => a.cost < b.cost || (a.cost === b.cost && a.left < b.left);

function push(heap: Pair[], pair: Pair): void {
  let at = heap.push(pair) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(pair, heap[parent])) break;
    heap[at] = heap[parent];
    at = parent;
  }
  heap[at] = pair;
}

function pop(heap: Pair[]): Pair {
  const first = heap[0], last = heap.pop()!;
  if (heap.length === 0) return first;
  let at = 0;
  for (let child = 1; child < heap.length; child = 2 * at + 1) {
    if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
    if (!isBefore(heap[child], last)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return first;
}

/**
 * The parts after merging; `costOf` gives what a joined text costs, undefined where it may not be made. Takes time
 * n log n in the number of parts.
 */
export function mergeParts(
  parts: readonly string[],
  costOf: (joined: string) => number | undefined,
): string[] {
  const texts: (string | undefined)[] = [...parts]; // undefined: joined to one on its left.
  const next = Int32Array.from(parts, (_, i) => i + 1), before = Int32Array.from(parts, (_, i) => i - 1);
  const heap: Pair[] = [];
  const offer = (left: number, right: number) => {
    if (left < 0 || right >= texts.length) return;
    const joined = texts[left]! + texts[right]!, cost = costOf(joined);
    if (cost !== undefined) push(heap, { cost, left, right, joined });
  };
  for (let i = 1; i < parts.length; i++) offer(i - 1, i);
  while (heap.length > 0) {
    const { left, right, joined } = pop(heap);
    // A pair is out of date when either part has grown or gone since.
    if (texts[left] === undefined || next[left] !== right || texts[left] + texts[right] !== joined) continue;
    texts[left] = joined;
    texts[right] = undefined;
    next[left] = next[right];
    if (next[right] < texts.length) before[next[right]] = left;
    offer(before[left], left);
    offer(left, next[left]);
  }
  return texts.filter((text) => text !== undefined);
}
