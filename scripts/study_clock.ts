/**
 * The time that a study still takes, from the cells it has done: each kind has a speed of its own, since asking costs
 * many short passes and tuning few long ones. Before any cell is done it says nothing.
 */
import type { Cell, CellKind } from "../core/study/cells.ts";

export interface Clock {
  /** Told of every cell that was run, and how long it took. */
  done(cell: Cell, seconds: number): void;
  /** Seconds for the cells that are left; undefined before there is anything to tell it by. */
  left(): number | undefined;
}

/** @param units of work, in proportion within a kind */
export function createClock(cells: readonly Cell[], units: (cell: Cell) => number): Clock {
  const left = new Map(cells.map((cell) => [cell.id, cell]));
  const rates = new Map<CellKind, { units: number; seconds: number }>();
  return {
    done(cell, seconds) {
      left.delete(cell.id);
      const rate = rates.get(cell.kind) ?? { units: 0, seconds: 0 };
      rates.set(cell.kind, { units: rate.units + units(cell), seconds: rate.seconds + seconds });
    },
    left() {
      const all = [...rates.values()].filter((rate) => rate.units > 0);
      if (all.length === 0) return undefined;
      const perUnit = all.reduce((sum, { seconds }) => sum + seconds, 0) /
        all.reduce((sum, rate) => sum + rate.units, 0);
      let seconds = 0;
      for (const cell of left.values()) {
        const rate = rates.get(cell.kind);
        seconds += units(cell) * (rate?.units ? rate.seconds / rate.units : perUnit);
      }
      return seconds;
    },
  };
}
