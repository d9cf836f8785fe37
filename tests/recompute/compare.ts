/**
 * A report beside the one made again, leaf by leaf. It refuses a number that differs, and one that nobody makes again: whoever adds
 * a number to the report has to add how it is checked.
 */
import assert from "node:assert/strict";

/** Rounding in other orders of summation, relative to the larger of 1 and the value. */
export const TOLERANCE = 1e-9;

export interface Compared {
  numbers: number;
  /** Largest difference, and where. */
  worst: number;
  at: string;
}

/** @param onDiffer told of every leaf that differs, instead of the first being thrown @throws AssertionError naming the path */
export function compareReports(
  actual: unknown,
  remade: unknown,
  onDiffer?: (path: string, message: string) => void,
): Compared {
  const found: Compared = { numbers: 0, worst: 0, at: "" };
  const check = (path: string, test: () => void): void => {
    try {
      test();
    } catch (error) {
      if (!onDiffer || !(error instanceof assert.AssertionError)) throw error;
      onDiffer(path, error.message);
    }
  };
  const number = (a: number, b: unknown, path: string): void => {
    assert.equal(typeof b, "number", `${path} is ${a}: nobody makes this number again (found ${b})`);
    const off = Math.abs(a - (b as number)) / Math.max(1, Math.abs(a));
    found.numbers++;
    if (off > found.worst) [found.worst, found.at] = [off, path];
    assert.ok(off <= TOLERANCE, `${path} is ${a}, made again ${b}`);
  };
  const walk = (a: unknown, b: unknown, path: string): void => {
    if (typeof b === "function") {
      check(path, () => b(a, path));
    } else if (typeof a === "number") {
      check(path, () => number(a, b, path));
    } else if (Array.isArray(a)) {
      const others = (b ?? []) as unknown[];
      if (b !== undefined && b !== null) {
        check(path, () => assert.equal(a.length, others.length, `${path} has another length`));
      }
      a.forEach((one, i) => walk(one, others[i], `${path}[${i}]`));
    } else if (a !== null && typeof a === "object") {
      const other = (b ?? {}) as Record<string, unknown>;
      const missing = Object.keys(other).filter((name) => other[name] !== undefined && !(name in a));
      check(path, () => assert.deepEqual(missing, [], `${path} lacks what was made again`));
      for (const [name, one] of Object.entries(a)) walk(one, other[name], path ? `${path}.${name}` : name);
    } else if (b !== undefined || a === null) {
      check(path, () => assert.deepEqual(a, b ?? null, path));
    }
  };
  walk(actual, remade, "");
  return found;
}
