/**
 * Intervals for the sound AUROC that lost: jackknife, bootstrap, corrected resampling, DeLong by person, people drawn anew. For
 * coverage.ts only; they take people who all have as many rows, in the same scenes, the seen first.
 */
import { type Design, type FeatureMatrix, groupPeople, prepareRows } from "../../core/probe/design.ts";
import { logisticSolver } from "../../core/probe/logistic.ts";
import { auroc } from "../../core/probe/metrics.ts";
import type { SoundResult } from "../../core/probe/sound.ts";
import { personPartitions } from "../../core/probe/splits.ts";
import { Random } from "../../core/random.ts";

export type Interval = [number, number];

/** One simulated study and what `sound` made of it. */
export interface World {
  x: FeatureMatrix;
  design: Design;
  observed: SoundResult;
  seed: number;
  partitions: number;
}

export const Z = 1.959963984540054;
const PREPARED = { centerScenes: true, standardize: true }, REDRAWS = 60;

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] / values.length;
  return sum;
}

export function deviation(values: ArrayLike<number>): number {
  const middle = mean(values), { length } = values;
  let square = 0;
  for (let i = 0; i < length; i++) square += (values[i] - middle) ** 2 / (length - 1);
  return Math.sqrt(square);
}

/** Student's 97.5 % quantile by Cornish & Fisher's series, good to .01 from 6 degrees of freedom on. */
const student = (df: number): number =>
  Z + (Z ** 3 + Z) / (4 * df) + (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / (96 * df ** 2);

/** The standard error is brought to the logit scale by its derivative there. */
function onLogits(value: number, error: number, quantile: number): Interval {
  const inside = Math.min(0.999, Math.max(0.001, value)), at = Math.log(inside / (1 - inside));
  const half = quantile * error / (inside * (1 - inside));
  return [1 / (1 + Math.exp(half - at)), 1 / (1 + Math.exp(-at - half))];
}

interface Part {
  labels: Uint8Array;
  scores: Float64Array;
  /** Place of each row's person among those of the study. */
  who: number[];
}

/** The scores of tested people in every partition, for people in an order of which the first `seen` count as seen. */
function procedure(rows: ReturnType<typeof prepareRows>, people: readonly Int32Array[], seen: number) {
  const solver = logisticSolver(rows, Math.ceil(rows.n / 2)), labels = new Uint8Array(rows.n);
  return (slots: readonly number[], count: number, random: Random, gone = -1): Part[] => {
    labels.fill(0);
    for (const at of slots.slice(0, seen)) for (const row of people[at]) labels[row] = 1;
    return personPartitions(seen, slots.length - seen, count, random).map((half) => {
      const tested = slots.filter((at, slot) => !half[slot] && at !== gone);
      const rowsOf = (chosen: number[]) => Int32Array.from(chosen.flatMap((at) => [...people[at]]));
      const test = rowsOf(tested), scores = new Float64Array(test.length);
      solver.fit(rowsOf(slots.filter((at, slot) => half[slot] && at !== gone)), labels, 1e-3);
      solver.scores(test, scores);
      return {
        scores,
        labels: Uint8Array.from(test, (row) => labels[row]),
        who: tested.flatMap((at) => Array.from(people[at], () => at)),
      };
    });
  };
}

function open({ x, design }: Pick<World, "x" | "design">) {
  const { rows: people, seen: sides } = groupPeople(design);
  const seen = sides.reduce((sum, side) => sum + side, 0), order = people.map((_, i) => i);
  return { people, seen, order, run: procedure(prepareRows(x, design.scene, PREPARED), people, seen) };
}

const value = (parts: readonly Part[]): number =>
  mean(parts.map(({ labels, scores }) => auroc(labels, scores)));

/** As `sound` draws them for the truth. */
const truthStream = (seed: number): Random => new Random(seed, "sound").split(0);

/** The AUROC without each person in turn, the partitions as they are. */
function leftOut(world: World): Float64Array {
  const { order, run } = open(world);
  return Float64Array.from(
    order,
    (gone) => value(run(order, world.partitions, truthStream(world.seed), gone)),
  );
}

/** The jackknife's variance over people of both sides (Arvesen 1969). */
function jackknifeVariance(values: Float64Array, seen: number): number {
  return [values.subarray(0, seen), values.subarray(seen)].reduce(
    (sum, side) => sum + (side.length - 1) ** 2 / side.length * deviation(side) ** 2,
    0,
  );
}

/** Leave out one person in turn, Student's quantile, on logits. */
function jackknife(world: World): Interval {
  const values = leftOut(world), { seen } = open(world), { auroc } = world.observed;
  return onLogits(auroc, Math.sqrt(jackknifeVariance(values, seen)), student(values.length - 2));
}

/** The same of a difference of two arms. */
export function jackknifeDifference(a: World, b: World): Interval {
  const other = leftOut(b), gaps = leftOut(a).map((value, i) => value - other[i]);
  const half = student(gaps.length - 2) * Math.sqrt(jackknifeVariance(gaps, open(a).seen));
  const middle = a.observed.auroc - b.observed.auroc;
  return [middle - half, middle + half];
}

/** The spread over partitions, corrected for their overlap (Nadeau & Bengio 2003), on logits. */
function correctedResampling(world: World): Interval {
  const { order, run } = open(world);
  const parts = run(order, world.partitions, truthStream(world.seed));
  const values = parts.map((part) => value([part]));
  // Half of the people are tested for each half that is fitted.
  const error = Math.sqrt(1 / values.length + 1) * deviation(values);
  return onLogits(mean(values), error, student(values.length - 1));
}

/** DeLong's variance with people for its units: each one's share of right pairs, over the partitions in which he is tested. */
function byPerson(parts: readonly Part[], order: readonly number[], seen: number): number {
  const placed = order.map(() => [] as number[]);
  for (const { labels, scores, who } of parts) {
    const people = [...new Set(who)];
    for (const at of people) {
      const own = who.flatMap((other, i) => other === at ? [i] : []), side = labels[own[0]];
      const rows = [...own, ...who.flatMap((_, i) => labels[i] !== side ? [i] : [])];
      placed[at].push(auroc(rows.map((i) => labels[i]), rows.map((i) => scores[i])));
    }
  }
  const sides = [order.slice(0, seen), order.slice(seen)];
  return sides.reduce((sum, side) => {
    const values = side.filter((at) => placed[at].length).map((at) => mean(placed[at]));
    return sum + deviation(values) ** 2 / values.length;
  }, 0);
}

/** DeLong, DeLong & Clarke-Pearson 1988 by person, made larger by as much as the null draws' deviation exceeds its own, on logits. */
function delong(world: World): Interval {
  const { order, seen, run } = open(world), { observed, seed, partitions } = world;
  const random = new Random(seed, "delong");
  const nulls = Array.from({ length: 12 }, (_, draw) => {
    const stream = random.split(draw), slots = stream.shuffle(order);
    return byPerson(run(slots, partitions, stream), slots, seen);
  });
  const own = byPerson(run(order, partitions, truthStream(seed)), order, seen);
  const larger = deviation(observed.nullDraws) ** 2 / mean(nulls);
  return onLogits(observed.auroc, Math.sqrt(own * larger), Z);
}

/** People of either side drawn with replacement, copies kept together, everything fitted again; the deviation, on logits. */
function bootstrap(world: World): Interval {
  const { people, seen, order } = open(world), { observed, seed, partitions } = world;
  const random = new Random(seed, "bootstrap"), found: number[] = [];
  for (let draw = 0; draw < REDRAWS; draw++) {
    const stream = random.split(draw);
    const times = new Map<number, number>();
    for (const side of [order.slice(0, seen), order.slice(seen)]) {
      for (const _ of side) {
        const at = stream.pick(side);
        times.set(at, (times.get(at) ?? 0) + 1);
      }
    }
    const distinct = [...times.keys()].sort((a, b) => a - b), first = distinct.filter((at) => at < seen);
    if (first.length < 4 || distinct.length - first.length < 4) continue;
    const copies = distinct.map((at) =>
      Int32Array.from(Array.from({ length: times.get(at)! }, () => [...people[at]]).flat())
    );
    const again = procedure(prepareRows(world.x, world.design.scene, PREPARED), copies, first.length);
    found.push(value(again(copies.map((_, i) => i), partitions, stream)));
  }
  return onLogits(observed.auroc, deviation(found), Z);
}

/**
 * New people of the same kind: every one a random mixture of all people's deviations, which has their covariance, the seen moved by a part of the
 * observed difference of means. Moves give expectations and deviations; all expectations are kept that the observed value does not contradict.
 */
function drawnAnew(world: World): Interval {
  const { people, seen, order } = open(world), { x, design, observed, seed, partitions } = world;
  const { data } = prepareRows(x, design.scene, PREPARED), { n, dim } = x, all = order.length;
  const means = [0, 1].map((side) =>
    Float64Array.from({ length: dim }, (_, j) => {
      let sum = 0, count = 0;
      for (let i = 0; i < n; i++) if (design.labels[i] === side) sum += data[i * dim + j], count++;
      return sum / count;
    })
  );
  const away = data.map((entry, at) => entry - means[design.labels[Math.floor(at / dim)]][at % dim]);
  const curve = [0.25, 0.5, 1, 2].map((move) => {
    const found = Array.from({ length: REDRAWS / 2 }, (_, draw) => {
      const stream = new Random(seed, `anew/${draw}`), made = new Float64Array(n * dim);
      for (const to of order) {
        for (const from of order) {
          const weight = stream.normal() / Math.sqrt(all - 2);
          people[to].forEach((row, k) => {
            for (let j = 0; j < dim; j++) made[row * dim + j] += weight * away[people[from][k] * dim + j];
          });
        }
        if (to >= seen) continue;
        for (const row of people[to]) {
          for (let j = 0; j < dim; j++) made[row * dim + j] += move * (means[1][j] - means[0][j]);
        }
      }
      const rows = prepareRows({ n, dim, data: made }, design.scene, PREPARED);
      return value(procedure(rows, people, seen)(order, partitions, stream));
    });
    return { t: mean(found), s: deviation(found) };
  });
  const points = [
    { t: 0, s: 0 },
    { t: 0.5, s: deviation(observed.nullDraws) },
    ...curve.sort((a, b) => a.t - b.t).filter(({ t }) => t > 0.52),
    { t: 1, s: 0 },
  ];
  const at = (t: number): number => {
    if (t < 0.5) return at(1 - t);
    const next = points.findIndex((point) => point.t >= t), [a, b] = [points[next - 1], points[next]];
    return a.s + (b.s - a.s) * (t - a.t) / (b.t - a.t);
  };
  const kept = Array.from({ length: 1001 }, (_, k) => k / 1000).filter((t) =>
    Math.abs(observed.auroc - t) <= Z * at(t) + 5e-4
  );
  return [Math.min(...kept), Math.max(...kept)];
}

export const OTHERS: Record<string, (world: World) => Interval> = {
  jackknife,
  "corrected resampling": correctedResampling,
  "DeLong by person": delong,
  bootstrap,
  "drawn anew": drawnAnew,
};
