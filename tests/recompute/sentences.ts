/**
 * Numbers within sentences: a decimal number must be the rounding of one that was made again, to as many places as it is written
 * with, and "3 of 5" a count of seeds. The words around them are not checked, nor are other whole numbers.
 */
import assert from "node:assert/strict";
import type { FeatureRow } from "./features.ts";
import type { GradientRows } from "./gradients.ts";
import type { SaysRow } from "./says.ts";

/** All numbers of an object, however deep. */
function numbersIn(value: unknown): number[] {
  if (typeof value === "number") return [value];
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(numbersIn);
}

/** Limits that the rules name. */
const RULES = [0.05, 0.1, 0.5];

type Check = (actual: unknown, path: string) => void;

/** Checks a text, or all texts of an object. @param counts of seeds that may be told of `seeds` */
function sentences(known: unknown, counts: number[], seeds: number): Check {
  const all = [...numbersIn(known), ...RULES, 0];
  const check: Check = (actual, path) => {
    if (Array.isArray(actual)) return actual.forEach((one, i) => check(one, `${path}[${i}]`));
    if (actual !== null && typeof actual === "object") {
      return Object.entries(actual).forEach(([name, one]) => check(one, `${path}.${name}`));
    }
    assert.equal(typeof actual, "string", `${path} is no sentence`);
    const text = String(actual), fails = `which nothing made again gives: ${text}`;
    for (const [number, digits] of text.matchAll(/\d*\.(\d+)/g)) {
      const half = 0.5 * 10 ** -digits.length + 1e-9;
      const isKnown = all.some((value) => Math.abs(Math.abs(value) - Number(number)) <= half);
      assert.ok(isKnown, `${path} says ${number}, ${fails}`);
    }
    for (const [part, count, of] of text.matchAll(/(\d+) of (\d+)(?! batch)/g)) {
      assert.ok(counts.includes(Number(count)) && Number(of) === seeds, `${path} says ${part}, ${fails}`);
    }
  };
  return check;
}

/** What claims and findings may say. @param rows of the primary feature @param also what the first claim works out */
export function allowed(
  rows: readonly FeatureRow[],
  says: readonly SaysRow[],
  gradients: GradientRows | null,
  also: unknown,
): { claims: Check[]; findings: Check } {
  // deno-lint-ignore no-explicit-any
  const low = (of: (one: any) => number) =>
    rows.map(({ seeds }) => seeds.filter((one) => of(one) <= 0.05).length);
  const counts = [...low(({ p }) => p), ...low(({ p_all }) => p_all)], seeds = rows[0].seeds.length;
  const differences = rows.map(({ mean }) => mean.difference),
    gradientMeans = gradients?.difference.map(({ mean }) => mean);
  const reported = rows.map(({ mean: { sound, faithful } }) => [sound, faithful]);
  const exposed = says.map(({ exposure }) => exposure.map(({ difference }) => difference));
  return {
    claims: [also, gradientMeans, differences].map((known) => sentences(known, counts, seeds)),
    findings: sentences([reported, differences, exposed, gradientMeans], counts, seeds),
  };
}
