/**
 * The per-layer curve as a tree of SVG elements, `[name, attributes, ...children]`, drawn for a width in pixels.
 * Above the scores with their thresholds, below the probabilities with their intervals; it knows no document.
 */
const LEFT = 44, RIGHT = 10, TOP = 26, HEIGHT = 120, GAP = 46, TICK_WIDTH = 46, LETTER = 6.5;

const number = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");

/** "layers.3.resid_post@image-mean" is layer "3"; what has no number keeps its name, shortened to fit `room` pixels. */
export function layerLabel(feature, room = Infinity) {
  const name = /(?:layers|blocks|h)\.(\d+)/.exec(feature)?.[1] ?? feature.split(/[.@]/)[0];
  return name.length * LETTER <= room ? name : `${name.slice(0, 4)}.`;
}

/** Features that differ in their layer alone are one curve. */
const family = (feature) => feature.replace(/\d+/g, "#");

/** Round steps of 1, 2 or 5 that cut low..high into about `count` parts. */
export function ticks(low, high, count = 4) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((times) => times * power >= raw) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const all = [];
  for (let k = first; k * step <= high + step * 1e-9; k++) all.push(k * step + 0); // no -0
  return all;
}

/** The range of the score's axis: all scores and thresholds, and a little room. */
export function scoreRange(layers) {
  const values = layers.flatMap(({ score, threshold }) => threshold === null ? [score] : [score, threshold]);
  const low = Math.min(0, ...values), high = Math.max(0, ...values), room = (high - low || 1) * 0.08;
  return [low - room, high + room];
}

function panel(layers, { top, title, range, value, x, right, mark }) {
  const [low, high] = range, y = (v) => top + HEIGHT - ((v - low) / (high - low)) * HEIGHT;
  const axis = ticks(low, high).flatMap((tick) => [
    ["line", { class: "axis", x1: LEFT, x2: right, y1: y(tick), y2: y(tick) }],
    ["text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick)],
  ]);
  const curves = Map.groupBy(layers.map((layer, i) => ({ layer, i })), ({ layer }) => family(layer.feature));
  const lines = [...curves.values()].map((points) => [
    "polyline",
    { class: "curve", points: points.map(({ layer, i }) => `${x(i)},${y(value(layer))}`).join(" ") },
  ]);
  const marks = layers.flatMap((layer, i) => mark(layer, x(i), y));
  return [["text", { class: "title", x: 0, y: top - 10 }, title], ...axis, ...lines, ...marks];
}

const point = ({ flagged, beyond }, cx, cy) => [
  "circle",
  { class: `point${flagged ? " yes" : ""}${beyond ? " beyond" : ""}`, cx, cy, r: 4.5 },
];

/** The whole drawing. @param primary the feature that was named beforehand: it wears a ring */
export function chart(layers, primary, width) {
  const right = width - RIGHT, step = (right - LEFT) / layers.length, x = (i) => LEFT + step * (i + 0.5);
  const half = Math.min(14, step * 0.4), bottom = TOP + HEIGHT + GAP;
  const ring = ({ feature }, cx, cy) =>
    feature === primary ? [["circle", { class: "ring", cx, cy, r: 8 }]] : [];
  const scores = panel(layers, {
    top: TOP,
    title: "Score of each layer",
    range: scoreRange(layers),
    value: ({ score }) => score,
    x,
    right,
    mark: (layer, cx, y) => [
      ...(layer.threshold === null ? [] : [[
        "line",
        { class: "threshold", x1: cx - half, x2: cx + half, y1: y(layer.threshold), y2: y(layer.threshold) },
      ]]),
      point(layer, cx, y(layer.score)),
      ...ring(layer, cx, y(layer.score)),
    ],
  });
  const calibrated = layers.every((layer) => layer.calibrated);
  const shares = panel(layers, {
    top: bottom,
    title: calibrated ? "Probability of each layer" : "Probability of each layer, not calibrated",
    range: [0, 1],
    value: ({ probability }) => probability,
    x,
    right,
    mark: (layer, cx, y) => [
      ...(layer.interval === null ? [] : [[
        "line",
        { class: "interval", x1: cx, x2: cx, y1: y(layer.interval.low), y2: y(layer.interval.high) },
      ]]),
      point(layer, cx, y(layer.probability)),
      ...ring(layer, cx, y(layer.probability)),
    ],
  });
  // Labels that would touch are left out, each second, third and so on.
  const every = Math.ceil((TICK_WIDTH / 2) / step), base = bottom + HEIGHT + 18;
  const labels = layers.flatMap(({ feature }, i) =>
    i % every === 0
      ? [["text", { x: x(i), y: base, "text-anchor": "middle" }, layerLabel(feature, step * every * 1.5)]]
      : []
  );
  return [
    "svg",
    { viewBox: `0 0 ${width} ${base + 26}`, width, height: base + 26, role: "img" },
    ["title", {}, describe(layers, primary)],
    ...scores,
    ...shares,
    ...labels,
    ...groups(layers, x, base + 18, step),
  ];
}

/** Under each curve what its layers were read at, where there is room for it. */
function groups(layers, x, y, step) {
  const runs = [];
  layers.forEach(({ feature, reduction }, i) => {
    const name = family(feature);
    if (runs.at(-1)?.name === name) runs.at(-1).last = i;
    else runs.push({ name, text: reduction, first: i, last: i });
  });
  return runs.filter(({ text, first, last }) => (last - first + 1) * step > text.length * LETTER)
    .map((
      { text, first, last },
    ) => ["text", { x: (x(first) + x(last)) / 2, y, "text-anchor": "middle" }, text]);
}

/** The drawing for those who do not see it. */
function describe(layers, primary) {
  const flagged = layers.filter((layer) => layer.flagged).length;
  const { score, threshold } = layers.find(({ feature }) => feature === primary) ?? layers[0];
  const against = threshold === null ? "without a threshold" : `against a threshold of ${number(threshold)}`;
  return `Scores of ${layers.length} layers, ${flagged} of them flagged; the layer named beforehand has ${
    number(score)
  } ${against}. The table below has every number`;
}
