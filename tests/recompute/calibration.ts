/**
 * Calibration judged on people left out of fit and calibration, made again: Platt's sigmoid (1999) by Newton's method, from 100
 * people on isotonic regression by its min-max formula; ten bins, Brier score, abstention.
 */
import { Random } from "../../core/random.ts";
import { crossed, type Fold, peopleOf } from "./draws.ts";
import { standardised } from "./linear.ts";
import { distinct, mean, pick, range, share, sum } from "./numbers.ts";
import { type Probe, tested } from "./probe.ts";
import type { Rows } from "./read.ts";

export interface Bin {
  low: number;
  high: number;
  n: number;
  predicted: number;
  observed: number;
}

export interface CalibrationOfSeed {
  method: string;
  ece: number;
  brier: number;
  abstained: number;
  bins: Bin[];
}

const PARTS = { people: 4, scenes: 3 };

/** Slope and offset of greatest likelihood against targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2); never descending. */
function platt(y: number[], score: number[]): [number, number] {
  const ones = sum(y), zeros = y.length - ones, high = (ones + 1) / (ones + 2), low = 1 / (zeros + 2);
  const target = y.map((label) => label ? high : low);
  let slope = 0, offset = Math.log((ones + 1) / (zeros + 1));
  for (let step = 0; step < 200; step++) {
    const p = score.map((s) => 1 / (1 + Math.exp(-slope * s - offset)));
    const [ga, gb] = [sum(score.map((s, i) => (p[i] - target[i]) * s)), sum(p) - sum(target)];
    const w = p.map((value) => value * (1 - value));
    const haa = sum(score.map((s, i) => w[i] * s * s)),
      hab = sum(score.map((s, i) => w[i] * s)),
      hbb = sum(w);
    const det = haa * hbb - hab * hab, da = (hbb * ga - hab * gb) / det, db = (haa * gb - hab * ga) / det;
    // Far from the optimum a whole step may overshoot.
    const most = Math.max(1, Math.abs(db), Math.abs(da) * Math.max(...score.map(Math.abs)));
    slope -= da / most;
    offset -= db / most;
  }
  const level = mean(target);
  return slope < 0 ? [0, Math.log(level / (1 - level))] : [slope, offset];
}

const sigmoid = ([slope, offset]: [number, number]) => (score: number): number =>
  1 / (1 + Math.exp(-slope * score - offset));

/** The least-squares ascending fit by its min-max formula (Robertson, Wright & Dykstra 1988, theorem 1.4.4), linear between scores. */
function isotonic(y: number[], score: number[]): (score: number) => number {
  const at = distinct(score).sort((a, b) => a - b);
  const sums = [0], counts = [0];
  for (const s of at) {
    const own = y.filter((_, i) => score[i] === s);
    sums.push(sums[sums.length - 1] + sum(own));
    counts.push(counts[counts.length - 1] + own.length);
  }
  const level = (i: number, j: number) => (sums[j + 1] - sums[i]) / (counts[j + 1] - counts[i]);
  // max over i <= k of min over j >= k: the inner minimum from the right, the outer maximum as k grows.
  const value = at.map(() => -Infinity);
  for (let i = 0; i < at.length; i++) {
    let least = Infinity;
    for (let k = at.length - 1; k >= i; k--) {
      least = Math.min(least, level(i, k));
      value[k] = Math.max(value[k], least);
    }
  }
  return (s) => {
    const next = at.findIndex((entry) => entry >= s);
    if (next <= 0) return value[next === 0 ? 0 : at.length - 1];
    const share = (s - at[next - 1]) / (at[next] - at[next - 1]);
    return value[next - 1] + share * (value[next] - value[next - 1]);
  };
}

export function calibrationOf(rows: Rows, { c, standardize }: Probe, seed: number): CalibrationOfSeed {
  const isIsotonic = peopleOf(rows).length >= 100;
  const x = standardize ? standardised(rows.x).rows : rows.x, random = new Random(seed, "calibration");
  const far = x.map((row) => Math.sqrt(mean(row.map((value) => value ** 2))));
  const heldOut = (folds: Fold[]) =>
    folds.filter(({ train, test }) => test.length && new Set(pick(rows.label, train)).size === 2)
      .map(({ train, test }) => tested(x, rows.label, train, test, c));
  const judged = crossed(rows, random.split("judged"), PARTS).flatMap(({ train, test }, k) => {
    const rest: Rows = {
      x: [],
      label: pick(rows.label, train),
      person: pick(rows.person, train),
      scene: pick(rows.scene, train),
    };
    const inner = heldOut(
      crossed(rest, random.split("calibrated", k), PARTS).map((fold) => ({
        train: pick(train, fold.train),
        test: pick(train, fold.test),
      })),
    );
    const known = inner.flatMap(({ score }) => score), truth = inner.flatMap(({ y }) => y);
    const probability = isIsotonic ? isotonic(truth, known) : sigmoid(platt(truth, known));
    const low = Math.min(...known), high = Math.max(...known), farthest = Math.max(...pick(far, train));
    const { y, score } = tested(x, rows.label, train, test, c);
    return score.map((s, i) => {
      const inside = Math.min(high, Math.max(low, s));
      return {
        y: y[i],
        p: probability(inside),
        beyond: inside !== s || (standardize && far[test[i]] > farthest),
      };
    });
  });
  const bins = range(10).flatMap((k): Bin[] => {
    const own = judged.filter(({ p }) => Math.min(9, Math.floor(10 * p)) === k);
    if (own.length === 0) return [];
    return [{
      ...{ low: k / 10, high: (k + 1) / 10, n: own.length },
      predicted: mean(own.map(({ p }) => p)),
      observed: mean(own.map(({ y }) => y)),
    }];
  });
  return {
    method: isIsotonic ? "isotonic" : "platt",
    ece: sum(bins.map(({ n, predicted, observed }) => n * Math.abs(predicted - observed))) / judged.length,
    brier: mean(judged.map(({ y, p }) => (p - y) ** 2)),
    abstained: share(judged.map(({ beyond }) => beyond)),
    bins,
  };
}
