/**
 * How often intervals of the sound probe hold the truth, and controls are rejected, over a grid of simulated studies: by hand, for hours on
 * two cores: `deno run -A tests/by_hand/coverage.ts [--people 8,16,30,49] [--worlds 300] [--only "far"] [--others]`.
 *
 * The truth is the AUROC that the same procedure gives on average with as many people, drawn anew, estimated in other worlds than
 * those in which intervals are judged. `--others` measures the intervals of intervals.ts as well, which takes much longer.
 */
import { parseArgs } from "node:util";
import { difference } from "../../core/probe/inference.ts";
import { differenceInterval, nullDeviation, scoreInterval } from "../../core/probe/interval.ts";
import { sound } from "../../core/probe/sound.ts";
import { Random } from "../../core/random.ts";
import { simulate, type Simulated } from "../simulated_people.ts";
import { deviation, type Interval, jackknifeDifference, mean, OTHERS, type World, Z } from "./intervals.ts";

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "8,16,30,49" },
    worlds: { type: "string", default: "300" },
    truths: { type: "string", default: "2000" },
    partitions: { type: "string", default: "8" },
    draws: { type: "string", default: "100" },
    only: { type: "string", default: "" },
    others: { type: "boolean", default: false },
  },
});
const worlds = Number(values.worlds), truths = Number(values.truths), draws = Number(values.draws);
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

interface Tally {
  held: number;
  width: number;
}

/** Counts whether an interval holds the truth. */
function count(tallies: Map<string, Tally>, name: string, [low, high]: Interval, truth: number): void {
  const tally = tallies.get(name) ?? { held: 0, width: 0 };
  tally.held += Number(low <= truth && truth <= high) / worlds;
  tally.width += (high - low) / worlds;
  tallies.set(name, tally);
}

const percent = (share: number) => (100 * share).toFixed(1);

/** One row of the table. */
async function measure(kind: string, shared: number, others: Simulated): Promise<void> {
  const settings = { ...others, otherShared: kind === "both arms" ? shared : 0 };
  const name = `${kind}/${settings.people}/${shared}`, first: number[] = [], second: number[] = [];
  for (let k = 0; k < truths; k++) {
    const { x, other, design } = simulate(new Random(1, `truth/${name}/${k}`), { ...settings, shared });
    const quick = { ...options, draws: 1, seed: k };
    first.push((await sound(x, design, quick)).auroc);
    second.push((await sound(other, design, quick)).auroc);
  }
  const truth = mean(first), gap = truth - mean(second), tallies = new Map<string, Tally>();
  let rejected = 0;
  for (let k = 0; k < worlds; k++) {
    const { x, other, design } = simulate(new Random(2, `world/${name}/${k}`), { ...settings, shared });
    const how = { ...options, draws, seed: k };
    const a = await sound(x, design, how), b = await sound(other, design, how);
    count(tallies, "AUROC", scoreInterval(a.auroc, a.nullDraws), truth);
    count(tallies, "difference", differenceInterval(a, b), gap);
    count(tallies, "AUROC, share", wilson(a.auroc, nullDeviation(a.nullDraws)), truth);
    const half = Z * deviation(a.nullDraws.map((value, i) => value - b.nullDraws[i]));
    count(tallies, "difference, null", around(a.auroc - b.auroc, half), gap);
    // The other arm has no trace; in arms with the same one the gap has none.
    const control = kind === "both arms" ? difference(a, b) : b;
    rejected += Number(control.p <= 0.05) / worlds;
    if (!values.others) continue;
    const study = { design, seed: k, partitions: options.partitions };
    const world: World = { ...study, x, observed: a };
    for (const [name, interval] of Object.entries(OTHERS)) count(tallies, name, interval(world), truth);
    const second = { ...study, x: other, observed: b };
    count(tallies, "difference, jackknife", jackknifeDifference(world, second), gap);
  }
  const cells = [...tallies].map(([name, { held, width }]) =>
    `${name} ${percent(held)} (${width.toFixed(2)})`
  );
  console.log(
    `| ${settings.people} | ${kind}, ${shared} | ${truth.toFixed(3)} | ${gap.toFixed(3)} | ` +
      `${cells.join(" | ")} | ${percent(rejected)} |`,
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
