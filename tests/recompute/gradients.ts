/**
 * The comparison of gradients made again from inner products, mini-batch by mini-batch: cosines, ratios of norms, their paired
 * difference, noise scale (McCandlish et al. 2018), alignment, two trajectories. Each from its definition.
 */
import type { Cell } from "../../core/study/cells.ts";
import { distinct, mean, overSeeds, studentInterval } from "./numbers.ts";
import { readJsonOf, readLinesOf, type StudyFiles } from "./read.ts";

interface Products {
  ab: number;
  aa: number;
  bb: number;
  dd: number;
}

interface BatchLine {
  batch: number;
  index: number;
  products: Record<string, Record<string, Products[]>>;
  whole: Record<string, Products>;
  directed?: Record<string, Products>;
}

interface StepLine {
  arm: string;
  step: number;
  products: Record<string, Products[]>;
}

interface Estimate {
  value: number;
  ci95: [number, number];
}

/** By the scalar product; of gradients less than 60 degrees apart by the law of cosines, which keeps their digits. */
function cosine({ ab, aa, bb, dd }: Products): number {
  const plain = ab / Math.sqrt(aa * bb);
  return plain > 0.5 ? Math.min(1, (aa + bb - dd) / (2 * Math.sqrt(aa * bb))) : plain;
}

const has = ({ aa, bb }: Products) => aa > 0 && bb > 0;

const estimate = (values: number[]): Estimate => ({ value: mean(values), ci95: studentInterval(values) });
/** A mean of cosines lies within -1 and 1. */
function estimateCosine(values: number[]): Estimate {
  const { value, ci95: [low, high] } = estimate(values);
  return { value, ci95: [Math.max(-1, low), Math.min(1, high)] };
}

/** tr(S) / |G|^2 from E|g_b|^2 = |G|^2 + tr(S) / b at two sizes; log r = log of the ratio of means, by the delta method. */
function noiseScale(b: number, small: number[], B: number, large: number[]) {
  const log = Math.log(mean(small) / mean(large));
  const relative = (values: number[]) => (studentInterval(values)[1] - mean(values)) / mean(values);
  const half = Math.sqrt(relative(small) ** 2 + relative(large) ** 2);
  const scale = (x: number) => {
    const r = Math.exp(x);
    if (r <= 1) return 0;
    return r < B / b ? (r - 1) / (1 / b - r / B) : null;
  };
  return { value: scale(log), ci95: [scale(log - half), scale(log + half)] };
}

async function ofSeed(study: StudyFiles, cell: Cell) {
  const settings = study.config.gradients!, { versions } = settings;
  const lines = await readLinesOf<BatchLine | StepLine>(study, cell, "gradients.jsonl");
  const batches = lines.filter((line): line is BatchLine => !("step" in line)).sort((a, b) =>
    a.index - b.index
  );
  const steps = lines.filter((line): line is StepLine => "step" in line);
  const sizes = distinct(batches.map(({ batch }) => batch)).sort((a, b) => a - b);
  const at = (size: number) => batches.filter(({ batch }) => batch === size);
  const used = versions.filter((version) => batches[0].products[version]);
  const names = Object.keys(batches[0].products[used[0]]);
  const whole = names.filter((set) =>
    batches.every(({ products }) => used.every((version) => products[version][set].some(has)))
  );
  const of = (line: BatchLine, version: string, set: string) => line.products[version][set].filter(has);
  const cosineOf = (line: BatchLine, version: string, set: string) =>
    mean(of(line, version, set).map(cosine));
  const ratioOf = (line: BatchLine, version: string, set: string) =>
    mean(of(line, version, set).map(({ aa, bb }) => Math.sqrt(aa / bb)));
  const squares = (version: string) => (line: BatchLine) =>
    version === "clean" ? line.whole[used[0]].bb : line.whole[version].aa;
  const excess = (version: string) => ({ directed, whole }: BatchLine) => {
    const own = directed![version], clean = directed!.clean;
    return (own.ab - clean.ab) / Math.sqrt(whole[version].dd * own.bb);
  };
  const aligned: [string, (line: BatchLine) => number][] = Object.keys(batches[0].directed ?? {})
    .flatMap((version): [string, (line: BatchLine) => number][] => [
      [version, ({ directed }) => cosine(directed![version])],
      ...(version === "clean"
        ? []
        : [[`${version} excess`, excess(version)] as [string, (line: BatchLine) => number]]),
    ]);
  const isPaired = used.includes("private") && used.includes("neutral");
  const scaled = ["clean", ...used.filter((version) => version === "private")];
  return {
    rows: whole.flatMap((parameters) =>
      used.flatMap((version) =>
        sizes.map((batch) => ({
          ...{ batch, version, parameters },
          cosine: estimateCosine(at(batch).map((line) => cosineOf(line, version, parameters))),
          norm_ratio: estimate(at(batch).map((line) => ratioOf(line, version, parameters))),
        }))
      )
    ),
    difference: !isPaired ? [] : whole.flatMap((parameters) =>
      sizes.map((batch) => ({
        ...{ batch, parameters },
        difference: estimate(
          at(batch).map((line) =>
            cosineOf(line, "private", parameters) - cosineOf(line, "neutral", parameters)
          ),
        ),
      }))
    ),
    noise_scale: sizes.length < 2 ? [] : scaled.map((version) => {
      const [b, B] = [sizes[0], sizes[sizes.length - 1]];
      return { version, ...noiseScale(b, at(b).map(squares(version)), B, at(B).map(squares(version))) };
    }),
    alignment: aligned.flatMap(([version, value]) =>
      sizes.map((batch) => ({ batch, version, cosine: estimateCosine(at(batch).map(value)) }))
    ),
    trajectory: steps.flatMap(({ arm, step, products }) =>
      Object.entries(products).filter(([, units]) => units.some(has)).map(([parameters, units]) => ({
        ...{ arm, step, parameters },
        cosine: mean(units.filter(has).map(cosine)),
        norm_ratio: mean(units.filter(has).map(({ aa, bb }) => Math.sqrt(aa / bb))),
      }))
    ),
  };
}

/** The report's gradients over seeds. @param cells one a seed, in their order */
export async function gradientsOf(study: StudyFiles, cells: Cell[]) {
  const found: Awaited<ReturnType<typeof ofSeed>>[] = [];
  for (const cell of cells) found.push(await ofSeed(study, cell));
  const over = (estimates: Estimate[]) =>
    overSeeds(estimates.map(({ value }) => value), estimates.map(({ ci95 }) => ci95));
  const [first] = found;
  // Trajectories come arm by arm, step by step; the report lists sets within an arm.
  const steps = [
    ...Map.groupBy(
      found.flatMap(({ trajectory }) => trajectory),
      ({ arm, step, parameters }) => JSON.stringify([arm, parameters, step]),
    ).values(),
  ];
  const { skipped } = await readJsonOf<{ skipped: { parameters: string; why: string }[] }>(
    study,
    cells[0],
    "gradients.json",
  );
  return {
    seeds: cells.map(({ key }) => key.seed),
    rows: first.rows.map(({ batch, version, parameters }, i) => ({
      ...{ batch, version, parameters },
      cosine: over(found.map(({ rows }) => rows[i].cosine)),
      norm_ratio: over(found.map(({ rows }) => rows[i].norm_ratio)),
    })),
    difference: first.difference.map(({ batch, parameters }, i) => {
      const estimates = found.map(({ difference }) => difference[i].difference);
      return { batch, parameters, estimates, mean: over(estimates) };
    }),
    noise_scale: first.noise_scale.map(({ version }, i) => ({
      version,
      seeds: found.map(({ noise_scale }) => noise_scale[i]),
    })),
    alignment: first.alignment.map(({ batch, version }, i) => {
      const estimates = found.map(({ alignment }) => alignment[i].cosine);
      return { batch, version, seeds: estimates.map(({ value }) => value), mean: over(estimates) };
    }),
    trajectory: steps.map((same) => ({
      ...{ arm: same[0].arm, step: same[0].step, parameters: same[0].parameters },
      cosine: overSeeds(same.map(({ cosine }) => cosine)),
      norm_ratio: overSeeds(same.map(({ norm_ratio }) => norm_ratio)),
    })),
    skipped,
  };
}
export type GradientRows = Awaited<ReturnType<typeof gradientsOf>>;
