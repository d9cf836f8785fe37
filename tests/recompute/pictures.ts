/**
 * What the report draws: principal components by another algorithm, heat maps from a probe fitted anew. t-SNE is a descent whose
 * path no other code repeats: it is held to what it is for, near rows near each other, by the divergence that it descends.
 */
import assert from "node:assert/strict";
import type { Cell } from "../../core/study/cells.ts";
import { planArm } from "../../core/study/arms.ts";
import { logistic, principal, standardised } from "./linear.ts";
import { range, sum } from "./numbers.ts";
import { readActivationsOf, readJsonOf, readTensorsOf, rowsOf, type StudyFiles } from "./read.ts";

/** The compared arm, the highest rate of U1's watermarks, one reading and one positive control. */
export function drawnArms({ config: { arms, comparedTo } }: StudyFiles): string[] {
  const plans = arms.map((arm) => planArm(arm));
  const rates = plans.filter(({ role, marks }) => role === "watermark" && marks === "U1");
  const one = (role: string) => plans.find((plan) => plan.role === role);
  return [
    comparedTo,
    ...[rates[rates.length - 1], one("reading"), one("positive")].flatMap((plan) => plan?.name ?? []),
  ];
}

/** Coordinates have five digits. */
const five = (value: number) => Number(value.toPrecision(5));

type Pairs = [number, number][];

/** Squared distances of all rows. */
const distances = (x: readonly (readonly number[])[]): number[][] =>
  x.map((a) => x.map((b) => sum(a.map((value, j) => (value - b[j]) ** 2))));

/** Neighbourhoods of that perplexity, made symmetric (van der Maaten & Hinton 2008). */
function neighbourhoods(x: number[][], perplexity: number): number[][] {
  const n = x.length, d = distances(x);
  const rows = d.map((row, i) => {
    const at = (beta: number) => {
      const w = row.map((value, j) => i === j ? 0 : Math.exp(-beta * value)), total = sum(w);
      return w.map((value) => value / total);
    };
    const entropy = (p: number[]) => -sum(p.map((value) => value > 0 ? value * Math.log(value) : 0));
    let low = 0, high = 1e6;
    for (let k = 0; k < 60; k++) {
      const middle = (low + high) / 2;
      if (entropy(at(middle)) > Math.log(perplexity)) low = middle;
      else high = middle;
    }
    return at(low);
  });
  return rows.map((row, i) => row.map((value, j) => (value + rows[j][i]) / (2 * n)));
}

/** Kullback-Leibler divergence of a picture from the neighbourhoods. */
function divergence(p: number[][], y: Pairs): number {
  const q = distances(y).map((row, i) => row.map((value, j) => i === j ? 0 : 1 / (1 + value)));
  const total = sum(q.flat());
  return sum(
    p.flatMap((row, i) => row.map((value, j) => value > 0 ? value * Math.log(value * total / q[i][j]) : 0)),
  );
}

/** The picture is far better than the components that it starts from, and than itself with two rows in each other's place. */
function isEmbedding(x: number[][], start: number[][], actual: unknown, path: string): void {
  const y = actual as Pairs, p = neighbourhoods(x, Math.min(30, (x.length - 1) / 3)), own = divergence(p, y);
  const tiny = start.map(([a, b]): [number, number] => [a * 1e-4, b * 1e-4]);
  assert.ok(own < 0.7 * divergence(p, tiny), `${path}: divergence ${own}, from ${divergence(p, tiny)}`);
  // Sixteen rows in the place of another: hardly any exchange may help.
  const tried = range(16).map((k) => Math.floor(k * (y.length - 1) / 16));
  const better = tried.filter((i) => {
    const swapped = [...y];
    [swapped[i], swapped[i + 1]] = [y[i + 1], y[i]];
    return divergence(p, swapped) < own;
  });
  assert.ok(better.length <= 2, `${path}: ${better.length} of 16 exchanges of rows make it better`);
}

interface Shown {
  pictures: { id: string; person: string; grid: [number, number] | null }[];
}

export async function picturesOf(study: StudyFiles, probes: readonly Cell[], primary: string) {
  const scatters: unknown[] = [], heatMaps: unknown[] = [];
  for (const arm of drawnArms(study)) {
    const cell = probes.find(({ key }) => key.arm === arm && key.seed === study.config.seeds[0]);
    if (!cell) continue;
    const { model, data, batch, seed } = cell.key, place = { model, data, batch, seed, arm };
    const parent = study.cells.find(({ id }) => id === cell.parents[0])!;
    const { samples, features } = await readActivationsOf(study, parent);
    const { x } = features.get(primary)!, { rows, explained } = principal(x);
    scatters.push({
      ...{ ...place, feature: primary },
      sets: samples.map(({ set }) => set),
      people: samples.map(({ person }) => person),
      pca: rows.map((row) => row.map(five)),
      explained,
      tsne: (actual: unknown, path: string) => isEmbedding(x, rows, actual, path),
    });
    const { pictures } = await readJsonOf<Shown>(study, parent, "shown.json");
    const tokens = await readTensorsOf(study, parent, "shown.safetensors");
    const seenBy = `${primary.split("@")[0]}@image-mean`, read = features.get(seenBy);
    for (const [i, picture] of pictures.entries()) {
      const own = tokens.get(String(i));
      heatMaps.push({ ...place, ...picture, ...(read && own && evidence(study, read, rowsOf(own), seenBy)) });
    }
  }
  return { scatters, heatMaps };
}

/** What each token adds to the log-odds of a probe fitted on all rows as they are; with the intercept the score. */
function evidence(
  { config: { probe: { c, standardize } } }: StudyFiles,
  { x, label }: { x: number[][]; label: number[] },
  tokens: number[][],
  feature: string,
) {
  const { rows, means, scales } = standardize
    ? standardised(x)
    : { rows: x, means: x[0].map(() => 0), scales: x[0].map(() => 1) };
  const w = logistic(rows, label, c);
  const values = tokens.map((token) =>
    sum(token.map((value, j) => w[j] * (value - means[j]) / scales[j])) / tokens.length
  );
  return { feature, values, score: sum(values) + w[w.length - 1] };
}
