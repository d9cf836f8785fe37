/**
 * How often intervals of the sound probe hold the truth, and controls are rejected, over a grid of simulated studies: by hand, an hour or so:
 * `deno run -A tests/by_hand/coverage.ts [--people 8,16,30,49] [--worlds 2000] [--nulls 60] [--only "alike"] [--others]`.
 *
 * The truth is the AUROC that the same procedure gives on average with as many people, drawn anew: the mean over all worlds. Null draws, which
 * take nearly all the time, are made in the first `nulls` worlds and lent to the others in turn: an AUROC and its null's deviation are independent
 * (correlations of -.2 to .1 in ten settings of 300 worlds, and coverages with own and with lent draws that differ by at most .8 points).
 * `--others` measures the intervals of intervals.ts as well, in the worlds with draws of their own.
 */
import { parseArgs } from "node:util";
import { difference } from "../../core/probe/inference.ts";
import { differenceInterval, nullDeviation, scoreInterval } from "../../core/probe/interval.ts";
import { sound, type SoundResult } from "../../core/probe/sound.ts";
import { Random } from "../../core/random.ts";
import { simulate, type Simulated } from "../simulated_people.ts";
import { deviation, type Interval, jackknifeDifference, mean, OTHERS, Z } from "./intervals.ts";

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "8,16,30,49" },
    worlds: { type: "string", default: "2000" },
    nulls: { type: "string", default: "60" },
    partitions: { type: "string", default: "8" },
    draws: { type: "string", default: "100" },
    only: { type: "string", default: "" },
    others: { type: "boolean", default: false },
  },
});
const worlds = Number(values.worlds), nulls = Number(values.nulls), draws = Number(values.draws);
const options = { centerScenes: true, standardize: true, partitions: Number(values.partitions) };

/** Effects at 0, small, medium and large, of people who differ little, as much as their pictures, and more; many dimensions; arms alike. */
const KINDS: Record<string, Simulated & { shifts: number[] }> = {
  "people .8": { shifts: [0, 0.7, 1.5, 3] },
  "people .3": { own: 0.3, shifts: [0, 0.4, 0.8, 1.6] },
  "people 2": { own: 2, shifts: [0, 1.5, 3, 6] },
  "24 dimensions": { dim: 24, shifts: [0, 1, 2, 3.5] },
  "arms alike": { alike: 0.97, shifts: [0, 0.7, 1.5, 3] },
  "both arms": { alike: 0.8, shifts: [1.5, 3] },
  "half carry it": { carriers: 0.5, alike: 0.8, shifts: [2, 4] },
};

/** Of one kind of interval: how many held the truth, the sum of their widths, and how many there were. */
type Tally = Record<"held" | "width" | "count", number>;

function add(tallies: Map<string, Tally>, name: string, [low, high]: Interval, truth: number): void {
  const { held, width, count } = tallies.get(name) ?? { held: 0, width: 0, count: 0 };
  const holds = Number(low <= truth && truth <= high);
  tallies.set(name, { held: held + holds, width: width + high - low, count: count + 1 });
}

const show = (tallies: Map<string, Tally>): string =>
  [...tallies].map(([name, { held, width, count }]) =>
    `${name} ${percent(held / count)} (${(width / count).toFixed(2)})`
  ).join(" | ");

const percent = (share: number) => (100 * share).toFixed(1);

/** One row of the table. */
async function measure(kind: string, shared: number, others: Simulated): Promise<void> {
  const settings = { ...others, shared, otherShared: kind === "both arms" ? shared : 0 };
  const name = `${kind}/${settings.people}/${shared}`, tallies = new Map<string, Tally>();
  const make = (k: number) => simulate(new Random(1, `${name}/${k}`), settings);
  const pairs: [SoundResult, SoundResult][] = [];
  for (let k = 0; k < worlds; k++) {
    const { x, other, design } = make(k), how = { ...options, draws: k < nulls ? draws : 1, seed: k };
    pairs.push([await sound(x, design, how), await sound(other, design, how)]);
  }
  const truth = mean(pairs.map(([{ auroc }]) => auroc));
  const gap = truth - mean(pairs.map(([, { auroc }]) => auroc));
  let rejected = 0;
  for (const [k, pair] of pairs.entries()) {
    const lender = pairs[k % nulls];
    const [a, b] = pair.map(({ auroc }, i) => ({ observed: auroc, nullDraws: lender[i].nullDraws, plan: 0 }));
    add(tallies, "AUROC", scoreInterval(a.observed, a.nullDraws), truth);
    add(tallies, "difference", differenceInterval(a, b), gap);
    add(tallies, "AUROC, share", wilson(a.observed, nullDeviation(a.nullDraws)), truth);
    const half = Z * deviation(a.nullDraws.map((value, i) => value - b.nullDraws[i]));
    add(tallies, "difference, null", around(a.observed - b.observed, half), gap);
    // The other arm has no trace; in arms with the same one the gap has none.
    const control = kind === "both arms" ? difference(...pair) : pair[1];
    if (k < nulls && control.p <= 0.05) rejected++;
    if (k >= nulls || !values.others) continue;
    const { x, other, design } = make(k);
    const study = { design, seed: k, partitions: options.partitions };
    const worlds = [{ ...study, x, observed: pair[0] }, { ...study, x: other, observed: pair[1] }];
    for (const [name, interval] of Object.entries(OTHERS)) add(tallies, name, interval(worlds[0]), truth);
    add(tallies, "difference, jackknife", jackknifeDifference(worlds[0], worlds[1]), gap);
  }
  console.log(
    `| ${settings.people} | ${kind}, ${shared} | ${truth.toFixed(3)} | ${gap.toFixed(3)} | ${
      show(tallies)
    } | ${rejected} of ${nulls} |`,
  );
}

const around = (middle: number, half: number): Interval => [middle - half, middle + half];

/** The score interval with the deviation of a share, s 2 sqrt(t (1 - t)). */
function wilson(observed: number, s: number): Interval {
  const q = (2 * Z * s) ** 2, middle = (observed + q / 2) / (1 + q);
  const half = Math.sqrt(Math.max(0, middle ** 2 - observed ** 2 / (1 + q)));
  return [middle - half, middle + half];
}

for (const people of values.people.split(",").map(Number)) {
  for (const [kind, { shifts, ...settings }] of Object.entries(KINDS)) {
    if (!kind.includes(values.only)) continue;
    for (const shared of shifts) await measure(kind, shared, { ...settings, people });
  }
}
