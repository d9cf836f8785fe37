/**
 * What is drawn by seed, from the streams that docs/study.md names: who is called seen, who is fitted, which rows are tested.
 * numpy's legacy generator and scikit-learn's split are written down anew from their descriptions.
 */
import { Random } from "../../core/random.ts";
import { distinct, range, where } from "./numbers.ts";
import type { Rows } from "./read.ts";

/** People in the order in which rows name them. */
export const peopleOf = ({ person }: Pick<Rows, "person">): string[] => distinct(person);

export const isSeen = ({ person, label }: Rows, name: string): boolean => label[person.indexOf(name)] === 1;

/** Rows labelled by a lot over people, as many seen as truly are. */
export function lotLabels(rows: Rows, random: Random): number[] {
  const names = peopleOf(rows), lot = random.shuffle(names.map((name) => isSeen(rows, name)));
  return rows.person.map((name) => Number(lot[names.indexOf(name)]));
}

/** Half of either kind of slot is fitted, the larger half of an odd kind; every second partition is the mirror of the one before. */
export function halves(seen: number, all: number, count: number, random: Random): boolean[][] {
  const out: boolean[][] = [];
  while (out.length < count) {
    const fitted = [[0, seen], [seen, all]].flatMap(([from, to]) =>
      random.shuffle(range(to - from).map((i) => from + i)).slice(0, Math.ceil((to - from) / 2))
    );
    const half = range(all).map((slot) => fitted.includes(slot));
    out.push(half, half.map((is) => !is));
  }
  return out.slice(0, count);
}

/** People, the seen first, then as every permutation of stream "sound" has them; and each draw's partitions. */
export function soundDraws(
  names: readonly string[],
  seen: number,
  { seed, draws, partitions }: { seed: number; draws: number; partitions: number },
): { people: string[]; parts: boolean[][] }[] {
  const random = new Random(seed, "sound");
  return range(draws + 1).map((draw) => {
    const stream = random.split(draw), people = draw === 0 ? [...names] : stream.shuffle(names);
    return { people, parts: halves(seen, names.length, partitions, stream) };
  });
}

export interface Fold {
  train: number[];
  test: number[];
}

/** People and scenes in so many parts each: a fold for every pair tests its rows on what met neither. */
export function crossed(rows: Rows, random: Random, most: { people: number; scenes: number }): Fold[] {
  const n = rows.person.length, names = peopleOf(rows);
  const kinds = [false, true].map((side) => names.filter((name) => isSeen(rows, name) === side));
  const people = Math.min(most.people, ...kinds.map(({ length }) => length)), who = new Map<string, number>();
  for (const kind of kinds) random.shuffle(kind).forEach((name, i) => who.set(name, i % people));
  const shuffled = random.shuffle(distinct(rows.scene)), scenes = Math.min(most.scenes, shuffled.length);
  const part = new Map(shuffled.map((name, i) => [name, i % scenes]));
  return range(scenes).flatMap((s) =>
    range(people).map((p) => {
      const same = (i: number) => [who.get(rows.person[i]) === p, part.get(rows.scene[i]) === s];
      return {
        train: where(n, (i) => !same(i)[0] && (scenes === 1 || !same(i)[1])),
        test: where(n, (i) => same(i).every(Boolean)),
      };
    })
  );
}

/** Mersenne Twister (Matsumoto & Nishimura 1998) and numpy's `RandomState.permutation(n)` upon it. */
function legacyPermutations(seed: number): (n: number) => number[] {
  const state = [seed >>> 0];
  for (let i = 1; i < 624; i++) {
    state.push((Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i) >>> 0);
  }
  let at = 624;
  const word = () => {
    if (at === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
        state[k] = (state[(k + 397) % 624] ^ (y >>> 1) ^ (y % 2 ? 0x9908b0df : 0)) >>> 0;
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
  const upTo = (most: number) => {
    const bits = 2 ** Math.ceil(Math.log2(most + 1)) - 1;
    for (;;) {
      const value = (word() & bits) >>> 0;
      if (value <= most) return value;
    }
  };
  return (n) => {
    const out = range(n);
    for (let i = n - 1; i > 0; i--) {
      const j = upTo(i), kept = out[i];
      out[i] = out[j];
      out[j] = kept;
    }
    return out;
  };
}

/** scikit-learn's `train_test_split(range(n), test_size=share, random_state=seed, stratify=labels)`, as sets of rows. */
export function stratified(labels: readonly number[], share: number, seed: number): Fold {
  const permutation = legacyPermutations(seed), n = labels.length, tested = Math.ceil(share * n);
  const classes = [0, 1].map((side) => where(n, (i) => labels[i] === side));
  /** The floor of each class's share, then one more for the largest remainders, ties by lot. */
  const allot = (counts: number[], wanted: number) => {
    const total = counts.reduce((a, b) => a + b, 0), exact = counts.map((count) => count / total * wanted);
    const out = exact.map(Math.floor), rest = exact.map((value, i) => value - out[i]);
    let left = wanted - out.reduce((a, b) => a + b, 0);
    for (const value of distinct(rest).sort((a, b) => b - a)) {
      if (left <= 0) break;
      const tied = where(rest.length, (i) => rest[i] === value);
      for (const i of permutation(tied.length).slice(0, left)) out[tied[i]]++;
      left -= Math.min(left, tied.length);
    }
    return out;
  };
  const trained = allot(classes.map(({ length }) => length), n - tested);
  const held = allot(classes.map(({ length }, i) => length - trained[i]), tested);
  const parts = classes.map((rows, side) => {
    const order = permutation(rows.length).map((i) => rows[i]), end = trained[side] + held[side];
    return { train: order.slice(0, trained[side]), test: order.slice(trained[side], end) };
  });
  return { train: parts.flatMap(({ train }) => train), test: parts.flatMap(({ test }) => test) };
}
