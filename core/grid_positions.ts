/**
 * Positions with more than one number: patches have a row and a column, tokens of Qwen2-VL a time, a height and a width.
 * Refuses image tokens that do not stand together picture by picture.
 */
import { InputError } from "./errors.ts";

/** Frames, rows and columns of patches. */
export type Grid = readonly [number, number, number];

/** One column of a rotary table: which of a token's numbers it turns by, and how fast. */
export interface TurnedBy {
  axis: number;
  frequency: number;
}

/** cos and sin, each (T, columns): column c turns by positions[axis] * frequency. Su et al. 2021, along several axes. */
export function axialTables(
  positions: readonly ArrayLike<number>[],
  columns: readonly TurnedBy[],
): { cos: Float32Array<ArrayBuffer>; sin: Float32Array<ArrayBuffer> } {
  const T = positions[0].length;
  const cos = new Float32Array(T * columns.length), sin = new Float32Array(T * columns.length);
  for (let t = 0, at = 0; t < T; t++) {
    for (const { axis, frequency } of columns) {
      const angle = Math.fround(positions[axis][t] * frequency);
      cos[at] = Math.cos(angle);
      sin[at++] = Math.sin(angle);
    }
  }
  return { cos, sin };
}

/** Row and column of every patch, (P) each, where squares of merge x merge patches follow one another. */
export function patchPositions(grids: readonly Grid[], merge: number): [number[], number[]] {
  const rows: number[] = [], columns: number[] = [];
  for (const [frames, height, width] of grids) {
    for (let i = 0; i < frames * height * width; i++) {
      const inside = i % merge ** 2, square = Math.floor(i / merge ** 2);
      const across = width / merge, down = height / merge;
      rows.push(Math.floor(square / across) % down * merge + Math.floor(inside / merge));
      columns.push(square % across * merge + inside % merge);
    }
  }
  return [rows, columns];
}

/** First patch of every frame and, last, the number of patches. */
export function frameStarts(grids: readonly Grid[]): number[] {
  const starts = [0];
  for (const [frames, height, width] of grids) {
    for (let frame = 0; frame < frames; frame++) starts.push(starts.at(-1)! + height * width);
  }
  return starts;
}

/**
 * Merged squares in the order of Qwen2.5-VL's attention windows of side x side squares, which are cut off at the right
 * and at the bottom; `starts` are the windows' first patches and, last, the number of patches.
 */
export function windowOrder(
  grids: readonly Grid[],
  merge: number,
  side: number,
): { order: Uint32Array<ArrayBuffer>; starts: number[] } {
  const order: number[] = [], starts = [0];
  let first = 0;
  for (const [frames, height, width] of grids) {
    const down = height / merge, across = width / merge;
    for (let frame = 0; frame < frames; frame++, first += down * across) {
      for (let y0 = 0; y0 < down; y0 += side) {
        for (let x0 = 0; x0 < across; x0 += side) {
          for (let y = y0; y < Math.min(y0 + side, down); y++) {
            for (let x = x0; x < Math.min(x0 + side, across); x++) order.push(first + y * across + x);
          }
          starts.push(order.length * merge ** 2);
        }
      }
    }
  }
  return { order: Uint32Array.from(order), starts };
}

/**
 * Time, height and width of every token, (T) each: equal in text, spread over its grid in a picture, after which text
 * goes on behind the largest. Wang et al. 2024 (Qwen2-VL), 2.1. @throws InputError for a picture torn apart
 */
export function mropePositions(
  { starts, isImage, positions: given }: {
    starts: readonly number[];
    isImage: ArrayLike<number>;
    /** Of each sample the first counts: where it starts, 0 when missing. */
    positions?: readonly number[];
  },
  grids: readonly Grid[],
  merge: number,
): [number[], number[], number[]] {
  const positions: [number[], number[], number[]] = [[], [], []];
  let picture = 0;
  for (let s = 0; s + 1 < starts.length; s++) {
    for (let t = starts[s], next = given?.[t] ?? 0; t < starts[s + 1];) {
      if (!isImage[t]) {
        for (const axis of positions) axis.push(next);
        next++;
        t++;
        continue;
      }
      const [frames, height, width] = grids[picture++];
      const down = height / merge, across = width / merge, tokens = frames * down * across;
      for (let i = 0; i < tokens; i++) {
        if (t + i >= starts[s + 1] || !isImage[t + i]) {
          throw new InputError(
            `Cannot place picture ${picture} of the micro-batch: ${i} of its ${tokens} image tokens stand together`,
          );
        }
        positions[0].push(next + Math.floor(i / (down * across)));
        positions[1].push(next + Math.floor(i / across) % down);
        positions[2].push(next + i % across);
      }
      t += tokens;
      next += Math.max(down, across);
    }
  }
  return positions;
}

/** The position of the token that would follow each sample: one beyond the largest number of any of its tokens. */
export function positionsAfter(
  { starts }: { starts: readonly number[] },
  positions: readonly (readonly number[])[],
): number[] {
  return starts.slice(1).map((end, s) => {
    let most = -1;
    for (const axis of positions) {
      for (let t = starts[s]; t < end; t++) most = Math.max(most, axis[t]);
    }
    return most + 1;
  });
}
