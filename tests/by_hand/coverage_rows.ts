/**
 * Coverage again on rows of a real model instead of drawn ones, by hand: `deno run -A tests/by_hand/coverage_rows.ts STUDY [worlds] [nulls]`.
 * People are drawn from those of all seeds of a finished study; arm r0 gets a shift along one fixed direction, base none.
 */
import { readActivations } from "../../core/probe/activations.ts";
import { differenceInterval, nullDeviation, scoreInterval } from "../../core/probe/interval.ts";
import { featureRows, selectRows } from "../../core/probe/selection.ts";
import { sound } from "../../core/probe/sound.ts";
import { Random } from "../../core/random.ts";
import { DiskFolder } from "../../scripts/folder.ts";
import { cellFolder } from "../../scripts/study_cell.ts";
import { readStudy } from "../../scripts/study_run.ts";
import { deviation, mean, Z } from "./intervals.ts";

const FEATURE = "layers.0.resid_post@image-mean", PEOPLE = 8, SCENES = 8, SHIFTS = [0, 0.5, 1, 2];
const [path, worlds = 800, nulls = 25] = [Deno.args[0], ...Deno.args.slice(1).map(Number)];
const folder = new DiskFolder(path), { cells } = await readStudy(folder);

/** Rows by person and scene, every scene centred within its seed, in units of each dimension's deviation. */
async function peopleOf(arm: string): Promise<number[][][]> {
  const people: number[][][] = [];
  for (const cell of cells.filter(({ kind, key }) => kind === "activations" && key.arm === arm)) {
    const set = await readActivations(cellFolder(folder, cell)), { dim } = set.features.get(FEATURE)!;
    const { rows, person, scene } = selectRows(set.samples, "U1", "U2");
    const data = featureRows(set.features.get(FEATURE)!, rows);
    const row = (i: number) => Array.from(data.subarray(i * dim, (i + 1) * dim));
    const all = Array.from(rows, (_, i) => i), own: number[][][] = [];
    for (const place of new Set(scene)) {
      const same = all.filter((i) => scene[i] === place).map(row);
      const middle = same[0].map((_, j) => mean(same.map((values) => values[j])));
      for (const i of all.filter((i) => scene[i] === place)) {
        (own[person[i]] ??= []).push(row(i).map((value, j) => value - middle[j]));
      }
    }
    people.push(...own.filter(Boolean));
  }
  const flat = people.flat(), scale = flat[0].map((_, j) => deviation(flat.map((values) => values[j])));
  return people.map((rows) => rows.map((values) => values.map((value, j) => value / scale[j])));
}

const arms = [await peopleOf("r0"), await peopleOf("base")],
  dim = arms[0][0][0].length,
  n = 2 * PEOPLE * SCENES;
const lot = new Random(9, "direction"),
  direction = Array.from({ length: dim }, () => lot.normal() / Math.sqrt(dim));
const person = Int32Array.from({ length: n }, (_, i) => i % (2 * PEOPLE));
const scene = Int32Array.from({ length: n }, (_, i) => Math.floor(i / (2 * PEOPLE)));
const design = { person, scene, labels: Uint8Array.from(person, (at) => Number(at < PEOPLE)) };
console.log(`${arms[0].length} people, ${dim} dimensions`);
for (const shift of SHIFTS) {
  const pairs: { observed: number; nullDraws: Float64Array; plan: number }[][] = [];
  for (let k = 0; k < worlds; k++) {
    const random = new Random(3, `${shift}/${k}`);
    const who = random.shuffle([...arms[0].keys()]), where = random.shuffle([...arms[0][0].keys()]);
    const how = { centerScenes: true, standardize: true, partitions: 8, draws: k < nulls ? 60 : 1, seed: k };
    pairs.push(
      await Promise.all(arms.map(async (people, arm) => {
        const data = Float64Array.from({ length: n * dim }, (_, at) => {
          const i = Math.floor(at / dim), j = at % dim, value = people[who[person[i]]][where[scene[i]]][j];
          return value + (arm === 0 && design.labels[i] ? shift * direction[j] : 0);
        });
        const { auroc, nullDraws } = await sound({ n, dim, data }, design, how);
        return { observed: auroc, nullDraws, plan: 0 };
      })),
    );
  }
  const truth = mean(pairs.map(([a]) => a.observed)), gap = truth - mean(pairs.map(([, b]) => b.observed));
  const held = [0, 0, 0];
  for (const [k, pair] of pairs.entries()) {
    const [a, b] = pair.map((one, i) => ({ ...one, nullDraws: pairs[k % nulls][i].nullDraws }));
    const ends = [
      [scoreInterval(a.observed, a.nullDraws), truth],
      [differenceInterval(a, b), gap],
    ] as const;
    ends.forEach(([[low, high], value], i) => held[i] += Number(low <= value && value <= high) / worlds);
    const half = Z * nullDeviation(a.nullDraws.map((value, i) => value - b.nullDraws[i]));
    held[2] += Number(Math.abs(a.observed - b.observed - gap) <= half) / worlds;
  }
  const shares = held.map((share) => (100 * share).toFixed(1));
  console.log(
    `shift ${shift}: AUROC ${truth.toFixed(3)} ${shares[0]}, gap ${gap.toFixed(3)} ${
      shares[1]
    } (paired null ${shares[2]})`,
  );
}
