/**
 * Which rows fit a probe and which test it: by image exactly as scikit-learn splits, by scene, and by person.
 * Refuses sizes that leave a part, or a class within it, empty.
 */
import { InputError } from "../errors.ts";
import type { Random } from "../random.ts";
import { type RandomState, randomState } from "./numpy_random.ts";

/** Row numbers; no row is in both. */
export interface Split {
  train: Int32Array;
  test: Int32Array;
}

/**
 * scikit-learn's `train_test_split(arange(n), test_size=share, random_state=seed, stratify=labels)`, to the index.
 * @param labels (n) of 0 and 1 @throws InputError when a class or a part is too small
 */
export function splitByImage(labels: ArrayLike<number>, share = 0.2, seed = 42): Split {
  const n = labels.length, testSize = Math.ceil(share * n), trainSize = n - testSize;
  const classes = [0, 1].map((label) => rowsWhere(n, (i) => labels[i] === label));
  if (!(share > 0 && share < 1) || trainSize < 2 || testSize < 2 || classes.some((rows) => rows.length < 2)) {
    throw new InputError(
      `Cannot split ${n} rows (${
        classes[1].length
      } seen) with a test share of ${share}: each part and class needs 2`,
    );
  }
  const random = randomState(seed);
  const counts = classes.map((rows) => rows.length);
  const trainCounts = approximateMode(counts, trainSize, random);
  const testCounts = approximateMode(counts.map((count, i) => count - trainCounts[i]), testSize, random);
  const train: number[] = [], test: number[] = [];
  classes.forEach((rows, i) => {
    const order = random.permutation(rows.map((_, at) => at));
    const picked = Array.from(order, (at) => rows[at]);
    train.push(...picked.slice(0, trainCounts[i]));
    test.push(...picked.slice(trainCounts[i], trainCounts[i] + testCounts[i]));
  });
  return { train: random.permutation(train), test: random.permutation(test) };
}

/**
 * The most likely counts of a multivariate hypergeometric draw, ties broken at random: the floor of each class's
 * share, then one more for the largest remainders (scikit-learn's `_approximate_mode`).
 */
function approximateMode(counts: number[], draws: number, random: RandomState): number[] {
  const total = counts.reduce((a, b) => a + b, 0);
  const exact = counts.map((count) => count / total * draws);
  const out = exact.map(Math.floor);
  const remainders = exact.map((value, i) => value - out[i]);
  let missing = draws - out.reduce((a, b) => a + b, 0);
  for (const value of [...new Set(remainders)].sort((a, b) => b - a)) {
    if (missing <= 0) break;
    const tied = rowsWhere(counts.length, (i) => remainders[i] === value);
    const order = random.permutation(tied.map((_, at) => at));
    const chosen = order.subarray(0, Math.min(tied.length, missing));
    for (const at of chosen) out[tied[at]]++;
    missing -= chosen.length;
  }
  return out;
}

/** `share` of the scenes (rounded up) tested, the others fitted on. @throws InputError when there are too few scenes */
export function splitByScene(scene: ArrayLike<number>, share: number, random: Random): Split {
  const scenes = random.shuffle([...new Set(Array.from(scene))]);
  const testScenes = Math.ceil(share * scenes.length);
  if (!(share > 0 && share < 1) || testScenes >= scenes.length) {
    throw new InputError(
      `Cannot split ${scenes.length} scenes with a test share of ${share}: one part is empty`,
    );
  }
  const tested = new Set(scenes.slice(0, testScenes));
  return {
    train: Int32Array.from(rowsWhere(scene.length, (i) => !tested.has(scene[i]))),
    test: Int32Array.from(rowsWhere(scene.length, (i) => tested.has(scene[i]))),
  };
}

/**
 * Partitions of `seen` + `unseen` slots into a half to fit on (1) and a half to test (0), the same share of either
 * group in each; slots 0..seen-1 stand for seen people. They come in pairs, a partition and its mirror, so that over
 * an even number of them everybody is tested equally often (exactly so for groups of even size).
 * @throws InputError for a group of fewer than two people
 */
export function personPartitions(seen: number, unseen: number, count: number, random: Random): Uint8Array[] {
  if (seen < 2 || unseen < 2) {
    throw new InputError(
      `Cannot split ${seen} seen and ${unseen} unseen people: each side needs 2, one to fit on and one to test`,
    );
  }
  const out: Uint8Array[] = [];
  while (out.length < count) {
    const half = new Uint8Array(seen + unseen);
    for (const [from, size] of [[0, seen], [seen, unseen]]) {
      const slots = random.shuffle(Array.from({ length: size }, (_, i) => from + i));
      for (const slot of slots.slice(0, Math.ceil(size / 2))) half[slot] = 1;
    }
    out.push(half, half.map((fitted) => 1 - fitted));
  }
  return out.slice(0, count);
}

function rowsWhere(n: number, keep: (i: number) => boolean): number[] {
  return Array.from({ length: n }, (_, i) => i).filter(keep);
}
