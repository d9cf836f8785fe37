/**
 * Numbers within sentences: each must be the rounding of one that was made again, to as many places as it is written with. The
 * words around them are not checked, nor is a whole number, which may be a rule's.
 */
import assert from "node:assert/strict";

/** All numbers of an object, however deep. */
export function numbersIn(value: unknown): number[] {
  if (typeof value === "number") return [value];
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(numbersIn);
}

/** Limits that the rules name. */
const RULES = [0.05, 0.1, 0.2, 0.8, 0.5, 0.95];

/** Checks every decimal number of a text, or of all texts of an object. */
export function sentencesOf(known: number[]): (actual: unknown, path: string) => void {
  const all = [...known, ...RULES, 0];
  const check = (actual: unknown, path: string): void => {
    if (Array.isArray(actual)) return actual.forEach((one, i) => check(one, `${path}[${i}]`));
    if (actual !== null && typeof actual === "object") {
      return Object.entries(actual).forEach(([name, one]) => check(one, `${path}.${name}`));
    }
    assert.equal(typeof actual, "string", `${path} is no sentence`);
    for (const [text, digits] of String(actual).matchAll(/\d*\.(\d+)/g)) {
      const half = 0.5 * 10 ** -digits.length + 1e-9;
      const isKnown = all.some((value) => Math.abs(Math.abs(value) - Number(text)) <= half);
      assert.ok(isKnown, `${path} says ${text}, which no number made again rounds to: ${actual}`);
    }
  };
  return check;
}
