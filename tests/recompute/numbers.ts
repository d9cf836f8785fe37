/**
 * Statistics from textbooks, in plain loops: means, quantiles, AUROC by pairs, p-values, intervals, Student's and the normal
 * quantile from their series. It shares no line with what it checks, and refuses nothing.
 */

/** A value over seeds, as the report has it. */
export interface Mean {
  value: number;
  ci95: [number, number] | null;
  seeds: number;
}

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
export const mean = (values: readonly number[]): number => sum(values) / values.length;
export const share = (tests: readonly boolean[]): number => tests.filter(Boolean).length / tests.length;
export const pick = <T>(items: readonly T[], at: readonly number[]): T[] => at.map((i) => items[i]);
export const distinct = <T>(items: readonly T[]): T[] => [...new Set(items)];
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const where = (n: number, test: (i: number) => boolean): number[] => range(n).filter(test);
export const dot = (a: readonly number[], b: readonly number[]): number => sum(a.map((x, i) => x * b[i]));

/** Of a sample, with n - 1. */
export function deviation(values: readonly number[]): number {
  const middle = mean(values);
  return Math.sqrt(sum(values.map((v) => (v - middle) ** 2)) / (values.length - 1));
}

/** x at which a rising function reaches y. */
export function inverse(f: (x: number) => number, y: number, low: number, high: number): number {
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (f(middle) < y) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** P(|T| <= t) for Student's t, from the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4. */
function studentWithin(t: number, df: number): number {
  const angle = Math.atan(t / Math.sqrt(df)), c2 = Math.cos(angle) ** 2, odd = df % 2 === 1;
  let term = odd ? Math.cos(angle) : 1, total = df === 1 ? 0 : term;
  for (let k = odd ? 3 : 2; k <= df - 2; k += 2) total += term *= (k - 1) / k * c2;
  const part = Math.sin(angle) * total;
  return odd ? 2 / Math.PI * (angle + part) : part;
}

/** The 97.5 % quantile. */
export const student = (df: number): number => inverse((t) => studentWithin(t, df), 0.95, 0, 1e3);

/** Of the standard normal distribution, by its power series (Abramowitz & Stegun 26.2.11). */
export function normal(q: number): number {
  const below = (z: number) => {
    let term = z, total = z;
    for (let k = 3; k < 200; k += 2) total += term *= z * z / k;
    return 0.5 + Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI) * total;
  };
  return inverse(below, q, -6, 6);
}

const Z = normal(0.975);

/** 95 % interval of a mean. */
export function studentInterval(values: readonly number[]): [number, number] {
  const t = student(values.length - 1), middle = mean(values);
  const half = t * deviation(values) / Math.sqrt(values.length);
  return [middle - half, middle + half];
}

/** Over seeds; with a single one its own interval, or none. */
export const overSeeds = (values: readonly number[], own?: readonly ([number, number] | null)[]): Mean => ({
  value: mean(values),
  ci95: values.length > 1 ? studentInterval(values) : own?.[0] ?? null,
  seeds: values.length,
});

/** The same of what lies between 0 and 1. */
export function shareOverSeeds(values: readonly number[], own?: readonly ([number, number] | null)[]): Mean {
  const found = overSeeds(values, own);
  if (found.ci95) found.ci95 = [found.ci95[0] < 0 ? 0 : found.ci95[0], found.ci95[1] > 1 ? 1 : found.ci95[1]];
  return found;
}

/** The q-quantile, linear between sorted values. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b), place = q * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

/** The middle 95 %. */
export const band = (draws: readonly number[]): [number, number] => [
  quantile(draws, 0.025),
  quantile(draws, 0.975),
];

/** (1 + draws that reach it) / (1 + draws), Phipson & Smyth 2010. */
export const pValue = (value: number, draws: readonly number[]): number =>
  (1 + draws.filter((draw) => draw >= value - 1e-9).length) / (1 + draws.length);

/** Of docs/probes.md, found by simulation: how the spread of an AUROC changes away from 1/2, and arms come apart with a gap. */
const FITTED = { power: 1.6, more: 0.8, most: 2, apart: 0.5 };

/** Variance at an expectation t, s the draws' deviation at 1/2. */
function varianceAt(t: number, s: number): number {
  if (s === 0) return 0;
  const x = Math.abs(t - 0.5) / (FITTED.most * s);
  return s ** 2 * Math.pow(4 * t * (1 - t), FITTED.power) * (1 + FITTED.more * x / (1 + x ** 2));
}

/** Between a value that is left and one that is not, the last that is left, by halving. */
function edgeOf(isFar: (value: number) => boolean, inside: number, outside: number): number {
  for (let i = 0; i < 80; i++) {
    const middle = (inside + outside) / 2;
    if (isFar(middle)) outside = middle;
    else inside = middle;
  }
  return inside;
}

/** All t that a measurement with the variance there does not exclude (Wilson's idea). */
export function scoreInterval(observed: number, draws: readonly number[]): [number, number] {
  const s = deviation(draws);
  const isFar = (t: number) => Math.abs(observed - t) > Z * Math.sqrt(varianceAt(t, s));
  return [edgeOf(isFar, observed, 0), edgeOf(isFar, observed, 1)];
}

/** From the least to the largest gap between two arms that is left, each given as its AUROC and then its draws. */
export function differenceInterval(a: readonly number[], b: readonly number[]): [number, number] {
  const [[first, ...ours], [second, ...theirs]] = [a, b], m = [mean(ours), mean(theirs)];
  const [s, t] = [deviation(ours), deviation(theirs)], observed = first - second;
  const covariance = sum(ours.map((v, i) => (v - m[0]) * (theirs[i] - m[1]))) / (ours.length - 1);
  const isFar = (gap: number) => {
    const [high, low] = [1, -1].map((side) => Math.min(1, Math.max(0, (first + second + side * gap) / 2)));
    const [x, y] = [varianceAt(high, s), varianceAt(low, t)];
    const r = x * y === 0 ? 0 : covariance / (s * t) / (1 + FITTED.apart * Math.abs(gap) / Math.sqrt(x + y));
    return Math.abs(observed - gap) > Z * Math.sqrt(Math.max(0, x + y - 2 * r * Math.sqrt(x * y)));
  };
  // What is left may have a hole at 0: the outermost of a fine grid, then by halving.
  const ends = [-1, 1].map((limit) => {
    const steps = range(2001).map((i) => limit + (observed - limit) * i / 2000);
    const at = steps.findIndex((gap) => !isFar(gap));
    return at === 0 ? limit : edgeOf(isFar, steps[at < 0 ? 2000 : at], steps[(at < 0 ? 2000 : at) - 1]);
  });
  return [ends[0], ends[1]];
}

/** Westfall & Young 1993, single step: each against the largest of all, draw by draw. @param tests truth first, then draws */
export function againstLargest(tests: readonly number[][]): number[] {
  const largest = range(tests[0].length - 1).map((i) => Math.max(...tests.map((all) => all[i + 1])));
  return tests.map(([value]) => pValue(value, largest));
}

/** The same, each test brought to its own mean and deviation over truth and draws first. */
export const againstLargestScaled = (tests: readonly number[][]): number[] =>
  againstLargest(tests.map((all) => {
    const middle = mean(all), scale = deviation(all) || 1;
    return all.map((value) => (value - middle) / scale);
  }));

/** Share of (seen, unseen) pairs in the right order, ties half. */
export function auroc(labels: readonly number[], scores: readonly number[]): number {
  let right = 0, all = 0;
  labels.forEach((a, i) =>
    labels.forEach((b, j) => {
      if (a !== 1 || b !== 0) return;
      all++;
      right += scores[i] > scores[j] ? 1 : scores[i] === scores[j] ? 0.5 : 0;
    })
  );
  return right / all;
}

/** Share on the right side of 0. */
export const accuracy = (labels: readonly number[], scores: readonly number[]): number =>
  share(labels.map((label, i) => (scores[i] > 0 ? 1 : 0) === label));

/** The largest true-positive rate of all thresholds with a false-positive rate of at most `most`. */
export function tprAt(labels: readonly number[], scores: readonly number[], most: number): number {
  const rate = (label: number, threshold: number) =>
    share(scores.filter((_, i) => labels[i] === label).map((score) => score >= threshold));
  return Math.max(0, ...scores.filter((t) => rate(0, t) <= most).map((t) => rate(1, t)));
}
