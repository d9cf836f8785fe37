/**
 * The mean of a few numbers with Student's 95 % interval: for cosines over mini-batches and results over seeds.
 */
import type { Interval } from "../report/schema.ts";

/** Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; beyond, 1.96 + 2.4 / df is within 0.001. */
const T975 = [
  12.706,
  4.303,
  3.182,
  2.776,
  2.571,
  2.447,
  2.365,
  2.306,
  2.262,
  2.228,
  2.201,
  2.179,
  2.160,
  2.145,
  2.131,
  2.120,
  2.110,
  2.101,
  2.093,
  2.086,
  2.080,
  2.074,
  2.069,
  2.064,
  2.060,
  2.056,
  2.052,
  2.048,
  2.045,
  2.042, // deno-fmt-ignore
];

/** @throws RangeError for fewer than two values: they have no interval */
export function meanWithInterval(values: readonly number[]): { mean: number; ci95: Interval } {
  const n = values.length;
  if (n < 2) throw new RangeError(`Cannot give an interval for ${n} values: need 2 or more`);
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const half = (T975[n - 2] ?? 1.96 + 2.4 / (n - 1)) * Math.sqrt(variance / n);
  return { mean, ci95: [mean - half, mean + half] };
}
