/**
 * The two ways to probe, made again from rows of activations: the published one, and the one by person with its permutations.
 * Fits go to the end, so a study to be checked must ask for that (`probe.tolerance` 1e-10).
 */
import { Random } from "../../core/random.ts";
import type { StudyConfig } from "../../core/study/config.ts";
import { isSeen, peopleOf, soundDraws, stratified } from "./draws.ts";
import { logistic, prepared, scoreOf } from "./linear.ts";
import { accuracy, auroc, distinct, mean, pick, range, sum, tprAt, where } from "./numbers.ts";
import type { Rows } from "./read.ts";

export type Probe = StudyConfig["probe"];

export interface Rates {
  auroc: number;
  accuracy: number;
  tpr1: number;
  tpr01: number;
}

function ratesOf(y: number[], score: number[]): Rates {
  return {
    auroc: auroc(y, score),
    accuracy: accuracy(y, score),
    tpr1: tprAt(y, score, 0.01),
    tpr01: tprAt(y, score, 0.001),
  };
}

const meanRates = (parts: Rates[]): Rates => ({
  auroc: mean(parts.map((part) => part.auroc)),
  accuracy: mean(parts.map((part) => part.accuracy)),
  tpr1: mean(parts.map((part) => part.tpr1)),
  tpr01: mean(parts.map((part) => part.tpr01)),
});

/** Labels and scores of the tested rows after a fit on the others. */
export function tested(x: number[][], y: number[], fit: number[], test: number[], c: number): {
  y: number[];
  score: number[];
} {
  const w = logistic(pick(x, fit), pick(y, fit), c);
  return { y: pick(y, test), score: test.map((i) => scoreOf(w, x[i])) };
}

/** The published way: rows are split by image or by scene, people are on both sides. */
export function faithfulRates(rows: Rows, { c, faithful }: Probe): Rates {
  const { split, testSize, seed, centerScenes, standardize } = faithful, n = rows.x.length;
  const x = prepared(rows, centerScenes, standardize);
  return meanRates(
    range(faithful.partitions ?? (split === "image" ? 1 : 10)).map((k) => {
      if (split === "image") {
        const { train, test } = stratified(rows.label, testSize, seed + k),
          held = tested(x, rows.label, train, test, c);
        return ratesOf(held.y, held.score);
      }
      const scenes = new Random(seed, `scenes/${k}`).shuffle(distinct(rows.scene));
      const out = scenes.slice(0, Math.ceil(testSize * scenes.length));
      const isOut = (i: number) => out.includes(rows.scene[i]);
      const held = tested(x, rows.label, where(n, (i) => !isOut(i)), where(n, isOut), c);
      return ratesOf(held.y, held.score);
    }),
  );
}

/**
 * The C of least log loss when every other fitted person of either kind, in the order of slots, is predicted by the rest and the
 * rest by them; the first where a kind has no two.
 */
function chosenC(
  x: number[][],
  y: number[],
  slot: number[],
  fitted: boolean[],
  seen: number,
  grid: readonly number[],
): number {
  const kinds = [true, false].map((is) => where(fitted.length, (s) => fitted[s] && (s < seen) === is));
  if (kinds.some(({ length }) => length < 2)) return grid[0];
  const quarters = [0, 1].map((side) => kinds.flatMap((kind) => kind.filter((_, i) => i % 2 === side)));
  const [one, other] = quarters.map((slots) => where(x.length, (i) => slots.includes(slot[i])));
  const losses = grid.map((c) =>
    [[one, other], [other, one]].reduce((total, [fit, test]) => {
      const held = tested(x, y, fit, test, c);
      // Probabilities of 0 and 1 are kept 2^-52 away, as scikit-learn keeps them.
      const right = held.score.map((s, i) => 1 / (1 + Math.exp(held.y[i] ? -s : s)));
      return total - sum(right.map((p) => Math.log(Math.min(1 - 2 ** -52, Math.max(2 ** -52, p)))));
    }, 0)
  );
  return grid[losses.indexOf(Math.min(...losses))];
}

/**
 * The sound way: the truth's rates, and the AUROCs of truth and every permutation of people.
 */
export function soundRates(
  rows: Rows,
  { c, partitions, draws, standardize, cGrid }: Probe,
  seed: number,
  center: boolean,
): Rates & { all: number[] } {
  const x = prepared(rows, center, standardize), n = x.length, names = peopleOf(rows);
  const seen = names.filter((name) => isSeen(rows, name));
  const order = [...seen, ...names.filter((name) => !seen.includes(name))];
  const plan = soundDraws(order, seen.length, { seed, draws, partitions });
  const found = plan.map(({ people, parts }) => {
    const slot = rows.person.map((name) => people.indexOf(name));
    const y = slot.map((at) => Number(at < seen.length));
    return parts.map((fitted) => {
      const own = cGrid.length > 1 ? chosenC(x, y, slot, fitted, seen.length, cGrid) : cGrid[0] ?? c;
      return tested(x, y, where(n, (i) => fitted[slot[i]]), where(n, (i) => !fitted[slot[i]]), own);
    });
  });
  return {
    ...meanRates(found[0].map(({ y, score }) => ratesOf(y, score))),
    all: found.map((parts) => mean(parts.map(({ y, score }) => auroc(y, score)))),
  };
}
