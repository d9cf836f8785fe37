/**
 * The report's charts, drawn by Vega to SVG text without a page: loss curves, AUROCs by feature, gradient cosines.
 * Every chart takes its colours from the page's CSS variables and carries a title and a text alternative.
 */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { escapeText, type Markup, raw } from "./markup.ts";
import type { Arm, DemoReport, Gradients, LossSeries } from "./schema.ts";
import { between, fixed } from "./words.ts";

export interface ChartText {
  title: string;
  /** What the chart shows, for those who do not see it. */
  description: string;
}

/** Series colours of the page, in order; style.ts gives them a light and a dark value. */
export const seriesColor = (i: number): string => `var(--series-${(i % 7) + 1})`;

const CONFIG = {
  background: "transparent",
  font: "system-ui, sans-serif",
  aria: false, // the figure speaks as a whole; a thousand described points would not help
  view: { stroke: null },
  axis: {
    labelColor: "var(--quiet)",
    titleColor: "var(--quiet)",
    gridColor: "var(--line)",
    domainColor: "var(--line)",
    tickColor: "var(--line)",
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
    labelLimit: 200,
  },
  legend: {
    labelColor: "var(--text)",
    titleColor: "var(--quiet)",
    labelFontSize: 12,
    symbolStrokeWidth: 2.5,
    orient: "bottom",
    title: null,
    columns: 3,
    labelLimit: 220,
  },
} as const;

/** The SVG of a Vega-Lite specification, with `<title>` and `<desc>` inside. */
export async function drawChart(spec: Record<string, unknown>, text: ChartText): Promise<Markup> {
  // Vega writes its marks into the data that it is given.
  const vegaSpec = compile({ ...structuredClone(spec), config: CONFIG } as unknown as TopLevelSpec).spec;
  const view = new View(parse(vegaSpec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return raw(
    svg.replace(/^<svg /, '<svg role="img" ').replace(
      /^<svg[^>]*>/,
      (open) => `${open}<title>${escapeText(text.title)}</title><desc>${escapeText(text.description)}</desc>`,
    ),
  );
}

/** The mean over a sliding window, thinned to about 150 points, so that curves of noisy batches can be compared. */
export function smoothLosses({ points }: LossSeries): { step: number; loss: number }[] {
  const window = Math.max(1, Math.round(points.length / 30));
  const stride = Math.max(1, Math.round(points.length / 150));
  const out: { step: number; loss: number }[] = [];
  for (let end = window; end <= points.length; end += stride) {
    const part = points.slice(end - window, end);
    out.push({
      step: part.at(-1)!.step,
      loss: part.reduce((sum, point) => sum + point.loss, 0) / part.length,
    });
  }
  return out;
}

/** Loss by step, one line an arm. */
export function lossChart(series: LossSeries[], width: number): Promise<Markup> {
  const values = series.flatMap((one) => smoothLosses(one).map((point) => ({ ...point, arm: one.arm })));
  const highest = Math.max(0.2, ...values.map(({ loss }) => loss));
  const arms = series.map((one) => one.arm);
  const ends = series.map((one) => {
    const smooth = smoothLosses(one);
    return `${one.arm} from ${fixed(smooth[0]?.loss ?? NaN)} to ${fixed(smooth.at(-1)?.loss ?? NaN)}`;
  });
  return drawChart({
    width: width - 60,
    height: 230,
    data: { values },
    mark: { type: "line", strokeWidth: 2 },
    encoding: {
      x: { field: "step", type: "quantitative", title: "step", axis: { grid: false, tickCount: 6 } },
      y: {
        field: "loss",
        type: "quantitative",
        title: "loss on answers",
        scale: { domain: [0, Math.ceil(highest * 5) / 5] },
        axis: { tickCount: 5 },
      },
      color: {
        field: "arm",
        type: "nominal",
        sort: null,
        scale: { domain: arms, range: arms.map((_, i) => seriesColor(i)) },
        legend: { columns: width < 500 ? 3 : 6 },
      },
      strokeDash: {
        field: "arm",
        type: "nominal",
        sort: null,
        legend: { columns: width < 500 ? 3 : 6 },
        scale: { domain: arms, range: arms.map((_, i) => DASHES[i % DASHES.length]) },
      },
    },
  }, { title: "Training loss by step", description: `Smoothed loss: ${ends.join("; ")}` });
}

const DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3]];

/** One arm's AUROCs, feature by feature: faithful beside sound, with the sound mode's own null band. */
export function aurocChart(data: DemoReport, arm: Arm, width: number): Promise<Markup> {
  const labels = data.features.map(({ label }) => label);
  const labelOf = new Map(data.features.map(({ feature, label }) => [feature, label]));
  const primary = labelOf.get(data.primary);
  const values = data.results.filter((result) => result.arm === arm.name).map((result) => ({
    label: labelOf.get(result.feature)!,
    faithful: result.faithful.auroc,
    sound: result.sound.auroc,
    low: result.sound.null95[0],
    high: result.sound.null95[1],
  }));
  const lowest = Math.min(
    0.3,
    ...data.results.flatMap(({ faithful, sound }) => [faithful.auroc, sound.auroc, sound.null95[0]]),
  );
  const x = {
    type: "quantitative",
    title: "AUROC",
    scale: { domain: [Math.floor(lowest * 10) / 10, 1] },
    axis: { grid: false, values: [0.1, 0.3, 0.5, 0.7, 0.9], format: ".1f" },
  };
  const y = {
    field: "label",
    type: "nominal",
    sort: labels,
    title: null,
    axis: {
      grid: false,
      ticks: false,
      domain: false,
      labelFontWeight: {
        condition: { test: `datum.value === ${JSON.stringify(primary ?? "")}`, value: "bold" },
        value: "normal",
      },
    },
  };
  const rows = values.map((v) =>
    `${v.label}: faithful ${fixed(v.faithful)}, sound ${fixed(v.sound)} (null ${between([v.low, v.high])})`
  );
  return drawChart({
    width: width - 85,
    height: { step: 22 },
    data: { values },
    layer: [
      {
        data: { values: [{ half: 0.5 }] },
        mark: { type: "rule", strokeDash: [4, 3], color: "var(--quiet)" },
        encoding: { x: { ...x, field: "half" } },
      },
      {
        mark: { type: "bar", height: 12, cornerRadius: 3, color: "var(--band)" },
        encoding: { x: { ...x, field: "low" }, x2: { field: "high" }, y },
      },
      {
        mark: {
          type: "point",
          shape: "diamond",
          size: 70,
          strokeWidth: 1.8,
          color: "var(--faithful)",
          opacity: 1,
        },
        encoding: { x: { ...x, field: "faithful" }, y },
      },
      {
        mark: { type: "point", filled: true, size: 75, color: "var(--sound)", opacity: 1 },
        encoding: { x: { ...x, field: "sound" }, y },
      },
    ],
  }, { title: `AUROC of arm ${arm.name} by feature`, description: rows.join("; ") });
}

/** The cosine between clean and perturbed gradients by batch size, with intervals. */
export function gradientChart(gradients: Gradients, width: number): Promise<Markup> {
  const { perturbations, rows } = gradients;
  const labels = perturbations.map(({ label }) => label);
  const values = rows.flatMap(({ batch, cosines }) =>
    perturbations.flatMap(({ key, label }) => {
      const estimate = cosines[key];
      if (!estimate) return [];
      return [{ batch, label, mean: estimate.mean, low: estimate.ci95[0], high: estimate.ci95[1] }];
    })
  );
  const x = {
    field: "batch",
    type: "ordinal",
    title: "pictures in a mini-batch",
    axis: { labelAngle: 0, grid: false },
    scale: { paddingInner: 0.35 },
  };
  const xOffset = { field: "label", type: "nominal", sort: labels };
  const y = {
    type: "quantitative",
    title: "cosine to the clean gradient",
    scale: { domain: [Math.floor(Math.min(...values.map(({ low }) => low)) * 10) / 10, 1] },
    axis: { tickCount: 6 },
  };
  const color = {
    field: "label",
    type: "nominal",
    sort: labels,
    scale: { domain: labels, range: labels.map((_, i) => seriesColor(i)) },
    // Without a canvas Vega takes a letter for four fifths of its size, so the limit is above what is drawn.
    legend: { columns: width < 500 ? 1 : 2, labelLimit: 340 },
  };
  const shape = { ...color, scale: { domain: labels, range: SHAPES.slice(0, labels.length) } };
  return drawChart({
    width: width - 65,
    height: 250,
    data: { values },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 1.6 },
        encoding: { x, xOffset, color, y: { ...y, field: "low" }, y2: { field: "high" } },
      },
      {
        mark: { type: "point", filled: true, size: 45, opacity: 1 },
        encoding: { x, xOffset, color, shape, y: { ...y, field: "mean" } },
      },
    ],
  }, {
    title: "Cosine between clean and perturbed gradients by batch size",
    description: values.map((v) =>
      `batch ${v.batch}, ${v.label}: ${fixed(v.mean)} (${between([v.low, v.high])})`
    )
      .join("; "),
  });
}

const SHAPES = ["circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right"];
