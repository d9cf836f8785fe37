/**
 * Named dimensions: `dims("T C", x, "C", w)` binds letters to sizes, so that an op opens by saying its shapes.
 * Refuses a tensor of another rank and a letter bound to two sizes.
 */
export interface Shaped {
  readonly shape: readonly number[];
}

const parsed = new Map<string, string[]>();

/** Letters bound by every (pattern, tensor) pair. @throws RangeError naming the pattern, the shape and the conflict */
export function dims(...pairs: (string | Shaped)[]): Record<string, number> {
  const bound: Record<string, number> = {};
  for (let i = 0; i < pairs.length; i += 2) {
    const pattern = pairs[i] as string, { shape } = pairs[i + 1] as Shaped;
    let letters = parsed.get(pattern);
    if (!letters) parsed.set(pattern, letters = pattern.split(" "));
    if (letters.length !== shape.length) {
      throw new RangeError(`Cannot bind (${pattern}) to the shape (${shape.join(", ")})`);
    }
    for (let k = 0; k < letters.length; k++) {
      const name = letters[k], size = shape[k];
      const fixed = /^\d+$/.test(name) ? Number(name) : bound[name];
      if (fixed !== undefined && fixed !== size) {
        throw new RangeError(
          `Cannot bind (${pattern}) to the shape (${
            shape.join(", ")
          }): ${name} is ${size}, expected ${fixed}`,
        );
      }
      bound[name] = size;
    }
  }
  return bound;
}

/** The number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
