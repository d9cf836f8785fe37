/**
 * A study's probe numbers made a second time from the activations on the disk: plain loops, a solver of its own, nothing of
 * core/probe. It reads files in its own way too; only the seeded streams are shared.
 */
import type { Folder } from "../core/formats/folder.ts";
import { Random } from "../core/random.ts";

export interface Rows {
  /** One row a picture. */
  x: number[][];
  /** 1 for U1. */
  label: number[];
  person: string[];
  scene: string[];
}

/** Rows of one feature of an activations cell. */
export async function readRows(folder: Folder, feature: string): Promise<Rows> {
  const text = new TextDecoder().decode(await folder.read("samples.jsonl"));
  const samples = text.trim().split("\n").map((line) => JSON.parse(line));
  const bytes = await folder.read("activations-00001-of-00001.safetensors"),
    view = new DataView(bytes.buffer);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const { shape: [n, dim], data_offsets: [from] } = header[feature];
  const x = Array.from(
    { length: n },
    (_, i) =>
      Array.from({ length: dim }, (_, j) => view.getFloat32(8 + length + from + 4 * (i * dim + j), true)),
  );
  return {
    x,
    label: samples.map(({ set }) => set === "U1" ? 1 : 0),
    person: samples.map(({ person }) => person),
    scene: samples.map(({ scene }) => scene),
  };
}

const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const pick = <T>(items: T[], at: number[]): T[] => at.map((i) => items[i]);
const where = (n: number, test: (i: number) => boolean): number[] =>
  Array.from({ length: n }, (_, i) => i).filter(test);

/** Every scene's mean taken away, then every column to mean 0 and deviation 1. */
export function prepared({ x, scene }: Rows, center: boolean, standardize: boolean): number[][] {
  let out = x.map((row) => [...row]);
  if (center) {
    out = out.map((row, i) => {
      const same = where(x.length, (k) => scene[k] === scene[i]);
      return row.map((value, j) => value - mean(same.map((k) => x[k][j])));
    });
  }
  if (!standardize) return out;
  const columns = out[0].map((_, j) => out.map((row) => row[j]));
  const means = columns.map(mean);
  const scales = columns.map((column, j) => Math.sqrt(mean(column.map((v) => (v - means[j]) ** 2))));
  return out.map((row) => row.map((value, j) => (value - means[j]) / scales[j]));
}

/** Gaussian elimination with pivoting. */
function solve(a: number[][], b: number[]): number[] {
  const m = a.map((row, i) => [...row, b[i]]), n = b.length;
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(m[i][k]) > Math.abs(m[best][k])) best = i;
    [m[k], m[best]] = [m[best], m[k]];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = m[i][k] / m[k][k];
      for (let j = k; j <= n; j++) m[i][j] -= factor * m[k][j];
    }
  }
  return m.map((row, i) => row[n] / row[i]);
}

/** Logistic regression by Newton's method: sum of losses + |w|^2 / (2 C), the last weight an unpenalised intercept. */
export function logistic(x: number[][], y: number[], c: number): number[] {
  const P = x[0].length + 1;
  let w = new Array<number>(P).fill(0);
  for (let step = 0; step < 50; step++) {
    const gradient = w.map((value, j) => j < P - 1 ? value / c : 0);
    const hessian = w.map((_, i) => w.map((_, j) => i === j && i < P - 1 ? 1 / c : 0));
    x.forEach((row, i) => {
      const full = [...row, 1], score = full.reduce((sum, value, j) => sum + value * w[j], 0);
      const p = 1 / (1 + Math.exp(-score));
      for (let a = 0; a < P; a++) {
        gradient[a] += (p - y[i]) * full[a];
        for (let b = 0; b < P; b++) hessian[a][b] += p * (1 - p) * full[a] * full[b];
      }
    });
    const move = solve(hessian, gradient);
    w = w.map((value, j) => value - move[j]);
    if (Math.max(...move.map(Math.abs)) < 1e-12) break;
  }
  return w;
}

/** Share of pairs in the right order. */
export function pairs(y: number[], score: number[]): number {
  let right = 0, all = 0;
  for (let i = 0; i < y.length; i++) {
    for (let j = 0; j < y.length; j++) {
      if (y[i] !== 1 || y[j] !== 0) continue;
      all++;
      right += score[i] > score[j] ? 1 : score[i] === score[j] ? 0.5 : 0;
    }
  }
  return right / all;
}

function tested(x: number[][], y: number[], fit: number[], test: number[], c: number): number {
  const w = logistic(pick(x, fit), pick(y, fit), c);
  const score = test.map((i) => x[i].reduce((sum, value, j) => sum + value * w[j], w.at(-1)!));
  return pairs(pick(y, test), score);
}

/** The published way, split by scene. */
export function faithfulAuroc(
  rows: Rows,
  partitions: number,
  share: number,
  seed: number,
  c: number,
): number {
  const n = rows.x.length;
  return mean(Array.from({ length: partitions }, (_, k) => {
    const order = new Random(seed, `scenes/${k}`).shuffle([...new Set(rows.scene)]);
    const out = order.slice(0, Math.ceil(share * order.length));
    return tested(
      rows.x,
      rows.label,
      where(n, (i) => !out.includes(rows.scene[i])),
      where(n, (i) => out.includes(rows.scene[i])),
      c,
    );
  }));
}

/** The sound way: the observed AUROC, then one for every permutation of people. */
export function soundAurocs(
  rows: Rows,
  { partitions, draws, seed, c, center }: {
    partitions: number;
    draws: number;
    seed: number;
    c: number;
    center: boolean;
  },
): number[] {
  const x = prepared(rows, center, true), n = x.length, names = [...new Set(rows.person)];
  const isSeen = (name: string) => rows.label[rows.person.indexOf(name)] === 1;
  const order = [...names.filter(isSeen), ...names.filter((name) => !isSeen(name))];
  const seen = names.filter(isSeen).length, random = new Random(seed, "sound");
  return Array.from({ length: draws + 1 }, (_, draw) => {
    const stream = random.split(draw);
    const people = draw === 0 ? order : stream.shuffle(order);
    const y = rows.person.map((name) => people.indexOf(name) < seen ? 1 : 0);
    const aurocs: number[] = [];
    while (aurocs.length < partitions) {
      const half = [[0, seen], [seen, people.length]].flatMap(([from, to]) => {
        const slots = stream.shuffle(Array.from({ length: to - from }, (_, i) => from + i));
        return slots.slice(0, Math.ceil(slots.length / 2));
      });
      const first = where(n, (i) => half.includes(people.indexOf(rows.person[i])));
      const second = where(n, (i) => !first.includes(i));
      aurocs.push(tested(x, y, first, second, c), tested(x, y, second, first, c));
    }
    return mean(aurocs.slice(0, partitions));
  });
}

/** (1 + draws that reach it) / (1 + draws). */
export function pOf(value: number, draws: number[]): number {
  return (1 + draws.filter((draw) => draw >= value - 1e-9).length) / (1 + draws.length);
}

/** The middle 95 %, linear between draws. */
export function bandOf(draws: number[]): [number, number] {
  const sorted = [...draws].sort((a, b) => a - b);
  const at = (q: number) => {
    const place = q * (sorted.length - 1), low = Math.floor(place);
    return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
  };
  return [at(0.025), at(0.975)];
}

export function deviation(values: number[]): number {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (values.length - 1));
}

/** All t that a measurement of this deviation at 1/2 does not exclude, found by halving. */
export function intervalOf(observed: number, draws: number[]): [number, number] {
  const s = deviation(draws),
    far = (t: number) => Math.abs(observed - t) > 1.959963984540054 * s * 2 * Math.sqrt(t * (1 - t));
  const edge = (inside: number, outside: number) => {
    for (let i = 0; i < 80; i++) {
      const middle = (inside + outside) / 2;
      if (far(middle)) outside = middle;
      else inside = middle;
    }
    return inside;
  };
  return [edge(observed, 0), edge(observed, 1)];
}

/** Largest of all tests, draw by draw, each brought to its own mean and deviation over truth and draws. */
export function correctedPs(tests: number[][]): number[] {
  const scaled = tests.map((all) => all.map((value) => (value - mean(all)) / (deviation(all) || 1)));
  const largest = scaled[0].slice(1).map((_, i) => Math.max(...scaled.map((all) => all[i + 1])));
  return scaled.map(([value]) => pOf(value, largest));
}
