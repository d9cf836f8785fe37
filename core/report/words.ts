/**
 * Numbers as the report says them: AUROCs to two places, p-values never rounded to zero, intervals with both ends.
 * The same words are used in tables, charts and conclusions, so that they can be compared by eye.
 */
import type { Interval } from "./schema.ts";

const minus = (text: string): string => text.replace("-", "−");

export const fixed = (value: number, digits = 2): string => minus(value.toFixed(digits));
export const signed = (value: number, digits = 2): string => (value < 0 ? "" : "+") + fixed(value, digits);
export const between = ([low, high]: Interval, digits = 2): string =>
  `${fixed(low, digits)} to ${fixed(high, digits)}`;

/** An interval where there is little room. */
export const range = ([low, high]: Interval, digits = 2): string =>
  `${fixed(low, digits)}–${fixed(high, digits)}`;

/** A p-value; the smallest that the number of draws allows is marked as such. */
export function pValue(p: number, draws: number): string {
  const small = Number(p.toPrecision(1)), digits = -Math.floor(Math.log10(small));
  const text = p < 0.0005 ? small.toFixed(digits) : p.toFixed(p < 0.0995 ? 3 : 2);
  return p <= 1 / (draws + 1) + 1e-12 ? `${text}, the least that ${draws} draws can give` : text;
}

/** "a", "a and b", "a, b and c". */
export function list(items: string[]): string {
  return items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

export const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`;
