/**
 * The instrument's controls made again: selectivity (Hewitt & Liang 2019), description length (Voita & Titov 2020), power by
 * the moments of an analysis of variance. Streams are named in docs/study.md.
 */
import { Random } from "../../core/random.ts";
import { halves, isSeen, lotLabels, peopleOf, stratified } from "./draws.ts";
import { logistic, prepared, scoreOf } from "./linear.ts";
import { accuracy, deviation, distinct, mean, normal, pick, range, student, sum, where } from "./numbers.ts";
import { type Probe, tested } from "./probe.ts";
import type { Rows } from "./read.ts";

export interface Selectivity {
  task: number;
  control: number;
  value: number;
  ci95: [number, number];
}

/** Accuracy on the sets less that on people labelled by lot, five splits by image each. */
export function selectivityOf(rows: Rows, { c, faithful, controlTasks }: Probe, seed: number): Selectivity {
  const x = prepared(rows, faithful.centerScenes, faithful.standardize), random = new Random(seed, "control");
  const reached = (y: number[]) =>
    mean(
      range(5).map((k) => {
        const { train, test } = stratified(y, faithful.testSize, faithful.seed + k);
        const held = tested(x, y, train, test, c);
        return accuracy(held.y, held.score);
      }),
    );
  const task = reached(rows.label);
  const controls = range(controlTasks).map((k) => reached(lotLabels(rows, random.split(k))));
  const control = mean(controls), value = task - control;
  const t = student(controlTasks - 1);
  const half = t * deviation(controls) * Math.sqrt(1 + 1 / controlTasks);
  return { task, control, value, ci95: [value - half, value + half] };
}

/** Bits of labels sent person by person, the kinds spread evenly, in blocks that double what is known. */
function bitsOf(rows: Rows, x: number[][], y: number[], c: number, random: Random): number {
  const groups = peopleOf(rows).map((name) => where(x.length, (i) => rows.person[i] === name));
  const placed = [0, 1].flatMap((side) => {
    const own = random.shuffle(groups.filter(([first]) => y[first] === side));
    return own.map((group, i) => ({ group, at: (i + random.float()) / own.length }));
  });
  const order = placed.sort((a, b) => a.at - b.at).map(({ group }) => group);
  const both = 1 + order.findIndex(([first]) => y[first] !== y[order[0][0]]);
  const head = Math.max(Math.ceil(order.length / 16), both);
  const lengths = [1, 0.1, 0.01, 0.001].map((part) => {
    let bits = 0;
    for (let known = head; known < order.length; known *= 2) {
      const before = order.slice(0, known).flat(), w = logistic(pick(x, before), pick(y, before), c * part);
      for (const i of order.slice(known, 2 * known).flat()) {
        bits += Math.log2(1 + Math.exp((y[i] ? -1 : 1) * scoreOf(w, x[i])));
      }
    }
    return bits;
  });
  return order.slice(0, head).flat().length + 2 + Math.min(...lengths);
}

export interface Description {
  bits: number;
  control: number;
  uniform: number;
  compression: number;
}

/** Means over eight orders, and over eight labellings by lot. */
export function descriptionOf(
  rows: Rows,
  { c, centerScenes, standardize }: Probe,
  seed: number,
): Description {
  const x = prepared(rows, centerScenes, standardize), random = new Random(seed, "description");
  const bits = mean(range(8).map((k) => bitsOf(rows, x, rows.label, c, random.split("order", k))));
  const control = mean(
    range(8).map((k) => {
      const stream = random.split("control", k);
      return bitsOf(rows, x, lotLabels(rows, stream.split("labels")), c, stream);
    }),
  );
  return { bits, control, uniform: x.length, compression: x.length / bits };
}

/** Share of the variance of scores that lies between people, by a one-way analysis of variance with random groups. */
function betweenShare(groups: number[][]): number {
  const n = sum(groups.map(({ length }) => length)), k = groups.length, all = mean(groups.flat());
  const inside = sum(groups.map((group) => sum(group.map((value) => (value - mean(group)) ** 2)))) / (n - k);
  const outside = sum(groups.map((group) => group.length * (mean(group) - all) ** 2)) / (k - 1);
  const size = (n - sum(groups.map(({ length }) => length ** 2)) / n) / (k - 1);
  const between = Math.max(0, (outside - inside) / size);
  return between / (between + inside);
}

export interface Power {
  people: number;
  scenes: number;
  detectable: number;
}

/** The smallest AUROC that 80 % of studies of other sizes find at the level .05. @param nulls the sound probe's draws */
export function powerOf(
  rows: Rows,
  { c, centerScenes, standardize }: Probe,
  seed: number,
  nulls: number[],
): Power[] {
  const x = prepared(rows, centerScenes, standardize), names = peopleOf(rows), n = x.length;
  const seen = names.filter((name) => isSeen(rows, name)).length, random = new Random(seed, "power");
  const between = mean(
    range(12).flatMap((k) => {
      const stream = random.split(k), y = lotLabels(rows, stream.split("labels"));
      const isOne = (name: string) => y[rows.person.indexOf(name)] === 1;
      const order = [...names.filter(isOne), ...names.filter((name) => !isOne(name))];
      return halves(seen, names.length, 2, stream).map((fitted) => {
        const isFitted = (i: number) => fitted[order.indexOf(rows.person[i])], fit = where(n, isFitted);
        const w = logistic(pick(x, fit), pick(y, fit), c);
        const groups = order.filter((_, slot) => !fitted[slot]);
        return betweenShare(
          groups.map((name) => where(n, (i) => rows.person[i] === name).map((i) => scoreOf(w, x[i]))),
        );
      });
    }),
  );
  const scenes = distinct(rows.scene).length, people = Math.min(seen, names.length - seen);
  const spread = (count: number) => between + (1 - between) / count;
  const sizes = distinct([Math.ceil(scenes / 4), scenes, 4 * scenes]);
  return [4, 8, 16, 32, 64].flatMap((each) =>
    sizes.map((count) => {
      const s = deviation(nulls) * Math.sqrt(people / each * spread(count) / spread(scenes));
      const bound = 0.5 + (mean(nulls) - 0.5) * people / each + normal(0.95) * s;
      // t - z s 2 sqrt(t (1 - t)) = bound is a square equation; the larger root is meant.
      const q = (2 * normal(0.8) * s) ** 2, middle = (bound + q / 2) / (1 + q);
      const root = middle + Math.sqrt(Math.max(0, middle ** 2 - bound ** 2 / (1 + q)));
      return { people: each, scenes: count, detectable: bound >= 1 ? 1 : Math.min(1, root) };
    })
  );
}
