/**
 * The charts of a study's report: curves over layers with their null bands, points with intervals, reliability, scatters
 * and heat maps. Like the demo's they take the page's colours and speak as a whole to those who do not see them.
 */
import { drawChart, seriesColor } from "./charts.ts";
import { type Markup, markup } from "./markup.ts";
import type { HeatMap } from "./study_input.ts";
import type { Calibration } from "./study_json.ts";
import type { FeatureNumbers } from "./study_numbers.ts";
import { between, fixed } from "./words.ts";

const SHAPES = ["circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right"];
const DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3]];

/** "layers.12.resid_post" as an axis says it. */
export function siteLabel(site: string): string {
  return site.replace(/^layers\.(\d+)\.resid_post$/, "L$1").replace(/^layers\.(\d+)\./, "L$1 ");
}

/** AUROCs of one arm over the sites of one reduction: means over seeds, every seed's points, the null band of the mean. */
export function layerChart(rows: readonly FeatureNumbers[], lowest: number, width: number): Promise<Markup> {
  const labels = rows.map(({ site }) => siteLabel(site));
  const values = rows.map(({ mean, together }, i) => ({
    site: labels[i],
    faithful: mean.faithful.value,
    sound: mean.sound.value,
    low: together.null95[0],
    high: together.null95[1],
  }));
  const seeds = rows.flatMap((row, i) => row.seeds.map(({ sound }) => ({ site: labels[i], sound })));
  const x = {
    field: "site",
    type: "ordinal",
    sort: null,
    title: null,
    axis: { labelAngle: 0, grid: false, labelOverlap: true, domain: false },
    scale: { type: "point", padding: 0.5 },
  };
  const y = {
    type: "quantitative",
    title: "AUROC",
    scale: { domain: [Math.floor(lowest * 10) / 10, 1] },
    axis: { values: [0.1, 0.3, 0.5, 0.7, 0.9], format: ".1f" },
  };
  const layer = (mark: unknown, field: string, more = {}) => ({
    mark,
    encoding: { x, y: { ...y, field }, ...more },
  });
  // A line or an area through a single site would not be seen.
  const band = rows.length > 1
    ? layer({ type: "area", color: "var(--band)", opacity: 1 }, "low", { y2: { field: "high" } })
    : layer({ type: "bar", width: 24, color: "var(--band)" }, "low", { y2: { field: "high" } });
  return drawChart({
    width: width - 70,
    height: 170,
    data: { values },
    layer: [
      band,
      {
        data: { values: [{ half: 0.5 }] },
        mark: { type: "rule", strokeDash: [4, 3], color: "var(--quiet)" },
        encoding: { y: { ...y, field: "half" } },
      },
      {
        ...layer({ type: "point", size: 14, filled: true, color: "var(--sound)", opacity: 0.45 }, "sound"),
        data: { values: seeds },
      },
      layer({ type: "line", color: "var(--faithful)", strokeWidth: 1.6, strokeDash: [5, 3] }, "faithful"),
      layer({ type: "point", shape: "diamond", size: 45, color: "var(--faithful)", opacity: 1 }, "faithful"),
      layer({ type: "line", color: "var(--sound)", strokeWidth: 2 }, "sound"),
      layer({ type: "point", filled: true, size: 55, color: "var(--sound)", opacity: 1 }, "sound"),
    ],
  }, {
    title: `AUROC of arm ${rows[0].arm} by layer`,
    description: values.map((v) =>
      `${v.site}: faithful ${fixed(v.faithful)}, sound ${fixed(v.sound)}, null band ${
        between([v.low, v.high])
      }`
    ).join("; "),
  });
}

export interface PointRow {
  x: string | number;
  series: string;
  value: number;
  ci95: [number, number] | null;
}

/** Points with intervals, side by side for every x, one colour and shape a series. */
export function pointsChart(
  rows: readonly PointRow[],
  { title, xTitle, yTitle, zero }: { title: string; xTitle: string; yTitle: string; zero?: number },
  width: number,
): Promise<Markup> {
  const values = rows.map(({ x, series, value, ci95 }) => ({
    x,
    series,
    value,
    low: ci95?.[0] ?? value,
    high: ci95?.[1] ?? value,
  }));
  const names = [...new Set(rows.map(({ series }) => series))];
  const legend = { columns: width < 500 ? 2 : 4 };
  const x = {
    field: "x",
    type: "ordinal",
    sort: null,
    title: xTitle,
    axis: { labelAngle: width < 500 && typeof rows[0]?.x === "string" ? -60 : 0, grid: false },
    scale: { paddingInner: 0.35 },
  };
  const xOffset = { field: "series", type: "nominal", sort: names };
  const y = {
    type: "quantitative",
    title: yTitle,
    scale: { zero: false, nice: true },
    axis: { tickCount: 6 },
  };
  const color = {
    field: "series",
    type: "nominal",
    sort: names,
    scale: { domain: names, range: names.map((_, i) => seriesColor(i)) },
    legend,
  };
  const shape = { ...color, scale: { domain: names, range: names.map((_, i) => SHAPES[i % SHAPES.length]) } };
  return drawChart({
    width: width - 75,
    height: 240,
    data: { values },
    layer: [
      ...(zero === undefined ? [] : [{
        data: { values: [{ zero }] },
        mark: { type: "rule", strokeDash: [4, 3], color: "var(--quiet)" },
        encoding: { y: { ...y, field: "zero" } },
      }]),
      {
        mark: { type: "rule", strokeWidth: 1.6 },
        encoding: { x, xOffset, color, y: { ...y, field: "low" }, y2: { field: "high" } },
      },
      {
        mark: { type: "point", filled: true, size: 45, opacity: 1 },
        encoding: { x, xOffset, color, shape, y: { ...y, field: "value" } },
      },
    ],
  }, {
    title,
    description: rows.map(({ x, series, value, ci95 }) =>
      `${x}, ${series}: ${fixed(value, 3)}${ci95 ? ` (${between(ci95, 3)})` : ""}`
    ).join("; "),
  });
}

/** One line a series. */
export function linesChart(
  series: readonly { name: string; points: { x: number; y: number }[] }[],
  { title, xTitle, yTitle }: { title: string; xTitle: string; yTitle: string },
  width: number,
): Promise<Markup> {
  const names = series.map(({ name }) => name);
  const values = series.flatMap(({ name, points }) => points.map((point) => ({ ...point, series: name })));
  const scale = (range: unknown[]) => ({ domain: names, range });
  const of = { field: "series", type: "nominal", sort: null, legend: { columns: width < 500 ? 3 : 6 } };
  return drawChart({
    width: width - 65,
    height: 220,
    data: { values },
    mark: { type: "line", strokeWidth: 2 },
    encoding: {
      x: { field: "x", type: "quantitative", title: xTitle, axis: { grid: false, tickCount: 6 } },
      y: { field: "y", type: "quantitative", title: yTitle, scale: { zero: false, nice: true } },
      color: { ...of, scale: scale(names.map((_, i) => seriesColor(i))) },
      strokeDash: { ...of, scale: scale(names.map((_, i) => DASHES[i % DASHES.length])) },
    },
  }, {
    title,
    description: series.map(({ name, points }) =>
      `${name} from ${fixed(points[0]?.y ?? NaN)} to ${fixed(points.at(-1)?.y ?? NaN)}`
    ).join("; "),
  });
}

/** Observed shares against predicted probabilities; the size of a point says how many pictures it stands for. */
export function reliabilityChart({ arm, bins }: Calibration, width: number): Promise<Markup> {
  // Copies: Vega marks the rows it is given.
  const values = bins.filter(({ n }) => n > 0).map((bin) => ({ ...bin }));
  const axis = { values: [0, 0.2, 0.4, 0.6, 0.8, 1], format: ".1f" }, scale = { domain: [0, 1] };
  const x = { type: "quantitative", title: "predicted", scale, axis: { ...axis, grid: false } };
  const y = { type: "quantitative", title: "observed", scale, axis };
  return drawChart({
    width: width - 70,
    height: 190,
    data: { values },
    layer: [
      {
        data: { values: [{ from: 0 }, { from: 1 }] },
        mark: { type: "line", strokeDash: [4, 3], color: "var(--quiet)" },
        encoding: { x: { ...x, field: "from" }, y: { ...y, field: "from" } },
      },
      {
        mark: { type: "point", filled: true, color: "var(--sound)", opacity: 0.85 },
        encoding: {
          x: { ...x, field: "predicted" },
          y: { ...y, field: "observed" },
          size: { field: "n", type: "quantitative", legend: null, scale: { range: [15, 180] } },
        },
      },
    ],
  }, {
    title: `Reliability in arm ${arm}`,
    description: values.map(({ predicted, observed, n }) =>
      `${fixed(predicted)} predicted, ${fixed(observed)} observed, ${n} pictures`
    ).join("; "),
  });
}

/** Points of two sets in a plane. */
export function scatterChart(
  points: readonly [number, number][],
  sets: readonly string[],
  { title, axes }: { title: string; axes: [string, string] },
  width: number,
): Promise<Markup> {
  const names = [...new Set(sets)].sort();
  const values = points.map(([x, y], i) => ({ x, y, set: sets[i] }));
  const axis = { labels: false, ticks: false, grid: false };
  const of = { field: "set", type: "nominal", sort: names };
  return drawChart({
    width: width - 45,
    height: width - 60,
    data: { values },
    mark: { type: "point", size: 22, opacity: 0.75, strokeWidth: 1.3 },
    encoding: {
      x: { field: "x", type: "quantitative", title: axes[0], axis, scale: { zero: false } },
      y: { field: "y", type: "quantitative", title: axes[1], axis, scale: { zero: false } },
      color: { ...of, scale: { domain: names, range: [seriesColor(0), seriesColor(1)] } },
      shape: { ...of, scale: { domain: names, range: ["circle", "diamond"] } },
    },
  }, { title, description: `${points.length} pictures, ${names.join(" and ")}` });
}

/** The picture with a square for every image token, and the watermark's box; `most` is the largest evidence of the row. */
export function heatPicture(
  { marked, width, height, box, grid, values, person }: HeatMap,
  most: number,
): Markup {
  const [rows, columns] = grid ?? [0, 0], w = width / Math.max(1, columns), h = height / Math.max(1, rows);
  const cells = (values ?? []).map((value, i) =>
    markup`<rect x="${(i % columns) * w}" y="${
      Math.floor(i / columns) * h
    }" width="${w}" height="${h}" fill="${
      value > 0 ? "var(--heat-seen)" : "var(--heat-unseen)"
    }" fill-opacity="${(0.75 * Math.abs(value) / (most || 1)).toFixed(3)}"/>`
  );
  const line = Math.max(width, height) / 90;
  return markup`<svg class="heat" role="img" viewBox="0 0 ${width} ${height}"><title>Evidence over the picture with ${person}</title><image href="${marked}" width="${width}" height="${height}" style="image-rendering:pixelated"/>${cells}<rect x="${box.x}" y="${box.y}" width="${box.w}" height="${box.h}" fill="none" stroke="#fff" stroke-width="${
    line * 1.8
  }"/><rect x="${box.x}" y="${box.y}" width="${box.w}" height="${box.h}" fill="none" stroke="#000" stroke-width="${
    line * 0.8
  }" stroke-dasharray="${line * 2} ${line * 2}"/></svg>`;
}
