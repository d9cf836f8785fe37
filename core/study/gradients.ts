/**
 * What a study says about gradients of matched mini-batches: cosines and norm ratios with intervals, differences paired
 * by mini-batch, the gradient-noise scale, alignment with a direction. Refuses sizes that leave fewer than two batches.
 */
import { meanWithInterval } from "../probe/student.ts";
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import { cosineOf, type InnerProducts, normRatio, sumProducts } from "./products.ts";
import type { Estimate, GradientResult } from "./results.ts";

/** Of a version's gradient with the clean one. */
export interface Measure {
  cosine: number;
  ratio: number;
}

/** One mini-batch, as it is kept while a cell is at work. */
export interface BatchLine {
  batch: number;
  index: number;
  /** By version, then by parameter set; a set whose gradient is zero is missing. */
  measures: Record<string, Record<string, Measure>>;
  /** |gradient|^2 over "all", of the clean and the private version. */
  squares: Record<string, number>;
  /** Cosines with the direction of private content. */
  alignment: Record<string, number>;
  /** What the measures were worked out from: each version by the clean gradient. */
  products?: Record<string, SetProducts>;
  /** What squares and alignment were worked out from, over "all": each version by the clean gradient, and by the direction. */
  whole?: Record<string, InnerProducts>;
  directed?: Record<string, InnerProducts>;
}

/** By parameter set: of everything laid end to end, or tensor by tensor where these are averaged. */
export type SetProducts = Record<string, InnerProducts[]>;

/** One step of two trainings in lockstep. */
export interface TrajectoryLine {
  arm: string;
  step: number;
  measures: Record<string, Measure>;
  /** Of the clean training and the arm's: what the training of either alone reports. */
  losses: [number, number];
  norms: [number, number];
  /** What the measures were worked out from. */
  products?: SetProducts;
}

export interface MiniBatch {
  batch: number;
  index: number;
  /** Whose pictures it has; the direction that it is compared with comes from the other half. */
  half: 0 | 1;
  pictures: number[];
}

export interface BatchPlan {
  pictures: number;
  halves: [number[], number[]];
  /** The first half's before the second's. */
  batches: MiniBatch[];
}

/**
 * Mini-batches of every size from two halves of the pictures. Those of one size are disjoint, so that they are
 * independent; where there are too few pictures, there are fewer of them. @throws InputError for fewer than two
 */
export function planBatches(
  seed: number,
  available: number,
  { batchSizes, batches }: { batchSizes: readonly number[]; batches: number },
): BatchPlan {
  const random = new Random(seed, "study/gradients");
  const most = Math.max(...batchSizes) * Math.ceil(batches / 2);
  const size = Math.min(most, Math.floor(available / 2));
  const all = random.split("halves").shuffle(Array.from({ length: 2 * size }, (_, i) => i));
  const halves: [number[], number[]] = [all.slice(0, size), all.slice(size)];
  const plan: MiniBatch[] = [];
  for (const half of [0, 1] as const) {
    for (const batch of batchSizes) {
      const order = random.split("order", batch, half).shuffle([...halves[half]]);
      const wanted = half === 0 ? Math.ceil(batches / 2) : Math.floor(batches / 2);
      const count = Math.min(wanted, Math.floor(size / batch));
      for (let k = 0; k < count; k++) {
        const pictures = order.slice(k * batch, (k + 1) * batch);
        plan.push({ batch, index: 2 * k + half, half, pictures });
      }
    }
  }
  for (const batch of batchSizes) {
    const count = plan.filter((entry) => entry.batch === batch).length;
    if (count < 2) {
      throw new InputError(
        `Cannot compare gradients of batches of ${batch}: ${available} pictures and "batches" ${batches} give ${count} of them, expected 2 or more that share no picture`,
      );
    }
  }
  return { pictures: 2 * size, halves, batches: plan };
}

/** Parameters that are compared together, as places in a list of all trained ones. */
export interface ParameterSet {
  name: string;
  members: number[];
}

/** Products of a set laid end to end, or of each of its tensors. */
export function unitsOf(
  parts: readonly InnerProducts[],
  { members }: ParameterSet,
  joined: "concatenated" | "per-tensor",
): InnerProducts[] {
  const chosen = members.map((i) => parts[i]);
  return joined === "concatenated" ? [sumProducts(chosen)] : chosen;
}

/** The mean over those that have a gradient; undefined where none has. */
export function measureOf(units: readonly InnerProducts[]): Measure | undefined {
  const found = units.flatMap((unit) => {
    const cosine = cosineOf(unit), ratio = normRatio(unit);
    return cosine === undefined || ratio === undefined ? [] : [{ cosine, ratio }];
  });
  if (found.length === 0) return undefined;
  const mean = (key: keyof Measure) => found.reduce((sum, unit) => sum + unit[key], 0) / found.length;
  return { cosine: mean("cosine"), ratio: mean("ratio") };
}

/** Both of every set; a set without a gradient has products alone. */
export function measureSets(
  parts: readonly InnerProducts[],
  sets: readonly ParameterSet[],
  joined: "concatenated" | "per-tensor",
): { measures: Record<string, Measure>; products: SetProducts } {
  const measures: Record<string, Measure> = {}, products: SetProducts = {};
  for (const set of sets) {
    products[set.name] = unitsOf(parts, set, joined);
    const measure = measureOf(products[set.name]);
    if (measure) measures[set.name] = measure;
  }
  return { measures, products };
}

/** The mean with Student's 95 % interval over mini-batches, which share no picture. */
export function estimate(values: readonly number[]): Estimate {
  const { mean, ci95 } = meanWithInterval(values);
  return { value: mean, ci95 };
}

/** The same for cosines, whose mean lies within -1 and 1 as well. */
export function estimateCosine(values: readonly number[]): Estimate {
  const { value, ci95: [low, high] } = estimate(values);
  return { value, ci95: [Math.max(-1, low), Math.min(1, high)] };
}

/**
 * The gradient-noise scale tr(S) / |G|^2 in samples, from |gradient|^2 of mini-batches of two sizes: E|g_b|^2 is
 * |G|^2 + tr(S) / b (McCandlish et al. 2018, appendix A.1). It grows with r = E|g_b|^2 / E|g_B|^2 alone, so the 95 %
 * interval is that of log r by the delta method with Student's quantile, mapped. null is for no upper bound: r at or
 * beyond B / b. What the two sizes share in pictures makes the interval too wide rather than too narrow.
 */
export function noiseScale(
  small: { batch: number; squares: readonly number[] },
  large: { batch: number; squares: readonly number[] },
): { value: number | null; ci95: [number | null, number | null] } {
  const b = small.batch, B = large.batch;
  const [x, y] = [small, large].map(({ squares }) => {
    const { mean, ci95 } = meanWithInterval(squares);
    return { log: Math.log(mean), half: (ci95[1] - mean) / mean };
  });
  const log = x.log - y.log, half = Math.hypot(x.half, y.half);
  const scale = (log: number) => {
    const r = Math.exp(log), below = 1 / b - r / B;
    return r <= 1 ? 0 : below > 0 ? (r - 1) / below : null;
  };
  return { value: scale(log), ci95: [scale(log - half), scale(log + half)] };
}

/** What the lines of a finished cell come to. `sets` are those asked for, `versions` in the order to be listed. */
export function summariseGradients(
  lines: readonly BatchLine[],
  trajectory: readonly TrajectoryLine[],
  { seed, pictures, versions, sets }: {
    seed: number;
    pictures: number;
    versions: readonly string[];
    sets: readonly ParameterSet[];
  },
): GradientResult {
  const ordered = [...lines].sort((a, b) => a.batch - b.batch || a.index - b.index);
  const groups = [...Map.groupBy(ordered, ({ batch }) => batch)];
  const has = ({ name }: ParameterSet) =>
    ordered.every(({ measures }) => versions.every((version) => measures[version][name]));
  const compared = sets.filter(has);
  const rows = compared.flatMap(({ name }) =>
    versions.flatMap((version) =>
      groups.map(([batch, group]) => {
        const measures = group.map((line) => line.measures[version][name]);
        const cosines = measures.map(({ cosine }) => cosine);
        return {
          ...{ batch, version, parameters: name, batches: group.length, cosine: estimateCosine(cosines) },
          norm_ratio: estimate(measures.map(({ ratio }) => ratio)),
          cosines,
        };
      })
    )
  );
  const paired = versions.includes("private") && versions.includes("neutral");
  return {
    seed,
    pictures,
    rows,
    skipped: sets.filter((set) => !has(set)).map((set) => ({
      parameters: set.name,
      why: set.members.length ? "its gradient is zero at these weights" : "nothing of it is trained",
    })),
    private_minus_neutral: !paired ? [] : compared.flatMap(({ name }) =>
      groups.map(([batch, group]) => ({
        ...{ batch, parameters: name },
        difference: estimate(
          group.map(({ measures }) => measures.private[name].cosine - measures.neutral[name].cosine),
        ),
      }))
    ),
    noise_scale: noiseScales(groups),
    alignment: Object.keys(ordered[0].alignment).flatMap((version) =>
      groups.map(([batch, group]) => ({
        ...{ batch, version },
        cosine: estimateCosine(group.map(({ alignment }) => alignment[version])),
      }))
    ),
    trajectory: trajectory.flatMap(({ arm, step, measures }) =>
      Object.entries(measures).map(([parameters, { cosine, ratio }]) => ({
        ...{ arm, step, parameters, cosine },
        norm_ratio: ratio,
      }))
    ),
    seconds: 0,
  };
}

/** From the smallest and the largest batch size; none where there is but one. */
function noiseScales(groups: readonly [number, BatchLine[]][]): GradientResult["noise_scale"] {
  const [small, large] = [groups[0], groups.at(-1)!];
  if (small[0] === large[0]) return [];
  return Object.keys(small[1][0].squares).map((version) => {
    const of = ([batch, lines]: [number, BatchLine[]]) => ({
      batch,
      squares: lines.map(({ squares }) => squares[version]),
    });
    return { version, ...noiseScale(of(small), of(large)) };
  });
}
