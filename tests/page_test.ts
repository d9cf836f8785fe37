/**
 * The page without a browser: what is served and under which policy, the curve's geometry, the words for each answer.
 * What a browser makes of it is gone through by hand, with `tests/by_hand/page.ts`.
 */
import assert from "node:assert/strict";
import { chart, layerLabel, scoreRange, ticks } from "../functions/page/chart.js";
import { aboutProbe, failure, headline, legend, meaning, meansNot } from "../functions/page/words.js";
import { withService } from "./service_probe.ts";

Deno.test("the page and its files come from here, load nothing else, and keep to a strict policy", () =>
  withService({}, async (url) => {
    const seen = new Set<string>(), left = ["/"];
    for (let path = left.shift(); path !== undefined; path = left.shift()) {
      if (seen.has(path)) continue;
      seen.add(path);
      const answer = await fetch(url + path), text = await answer.text();
      assert.equal(answer.status, 200, path);
      const policy = answer.headers.get("content-security-policy")!;
      assert.match(policy, /default-src 'none'/, path);
      assert(!/unsafe|\*|https?:/.test(policy), policy);
      const kind = path.endsWith(".js")
        ? /^text\/javascript/
        : path.endsWith(".css")
        ? /^text\/css/
        : /html|svg/;
      assert.match(answer.headers.get("content-type")!, kind, path);
      assert.deepEqual(text.match(/https?:\/\/(?!www\.w3\.org\/2000\/svg)\S+/g), null, path);
      if (path === "/") {
        assert(!/\son\w+=|<script(?![^>]*src=)|\sstyle=|<style/.test(text), "inline script or style");
      }
      for (const [, file] of text.matchAll(/(?:src|href|from) ?=? ?"([^"]+\.(?:js|css|svg))"/g)) {
        left.push(new URL(file, `${url}${path}`).pathname);
      }
    }
    assert.deepEqual([...seen].sort(), [
      "/",
      "/page/chart.js",
      "/page/icon.svg",
      "/page/page.css",
      "/page/page.js",
      "/page/words.js",
    ]);
    const wrong = await fetch(`${url}/`, { method: "POST" });
    assert.equal(wrong.status, 405);
    await wrong.body?.cancel();
  }));

const layer = (feature: string, score: number, more = {}) => ({
  feature,
  reduction: feature.split("@")[1],
  score,
  probability: 0.5,
  calibrated: true,
  interval: { low: 0.25, high: 0.75, level: 0.95 },
  threshold: 2,
  flagged: score > 2,
  beyond: false,
  ...more,
});
const LAYERS = [
  layer("layers.0.resid_post@last", -1),
  layer("layers.1.resid_post@last", 4),
  layer("layers.2.resid_post@last", 1, { threshold: null, flagged: null, interval: null }),
  layer("layers.0.resid_post@image-mean", 0, { beyond: true }),
];
type Tree = [string, Record<string, string | number>, ...(Tree | string)[]];
const elements = (tree: Tree | string): Tree[] =>
  typeof tree === "string" ? [] : [tree, ...tree.slice(2).flatMap((child) => elements(child as Tree))];

Deno.test("the curve: one point a layer in both panels, thresholds, intervals and breaks where they belong", () => {
  const all = elements(chart(LAYERS, "layers.1.resid_post@last", 400) as Tree);
  const of = (name: string, kind: string) =>
    all.filter(([tag, { class: c }]) => tag === name && String(c).split(" ")[0] === kind).map(([, given]) =>
      given
    );
  const points = of("circle", "point"),
    thresholds = of("line", "threshold"),
    intervals = of("line", "interval");
  assert.deepEqual([points.length, thresholds.length, intervals.length, of("circle", "ring").length], [
    8,
    3,
    3,
    2,
  ]);
  const [scores, shares] = [points.slice(0, 4), points.slice(4)];
  // By hand: the axis goes from -1 - 8 % to 4 + 8 % of 5, over 120 pixels that end at 146.
  scores.forEach(({ cy }, i) => {
    const expected = 146 - (([-1, 4, 1, 0][i] + 1.4) / 5.8) * 120;
    assert(Math.abs(Number(cy) - expected) < 1e-9, `${cy} ${expected}`);
  });
  assert.deepEqual(scoreRange(LAYERS), [-1.4, 4.4]);
  assert(Math.abs(Number(thresholds[0].y1) - (146 - (3.4 / 5.8) * 120)) < 1e-9);
  assert.equal(new Set(shares.map(({ cy }) => cy)).size, 1);
  assert.equal(Number(intervals[0].y1) - Number(intervals[0].y2), 60);
  assert.deepEqual(scores.map(({ class: c }) => c), ["point", "point yes", "point", "point beyond"]);
  for (const { cx } of points) assert(Number(cx) > 44 && Number(cx) < 390);
  const curves = of("polyline", "curve").map(({ points }) => String(points).split(" ").length);
  assert.deepEqual(curves, [3, 1, 3, 1], "another reduction is another curve");
  const [, , name] = all.find(([tag]) => tag === "title")!;
  assert.match(String(name), /^Scores of 4 layers, 1 of them flagged; .* has 4 against a threshold of 2/);
  // A hundred layers on a phone: labels that would touch are left out.
  const many = Array.from({ length: 100 }, (_, i) => layer(`layers.${i}.resid_post@last`, i / 50));
  const labels = elements(chart(many, many[0].feature, 320) as Tree).filter(([tag, { y }, text]) =>
    tag === "text" && Number(y) > 320 && /^\d+$/.test(String(text))
  ).map(([, { x }]) => Number(x));
  assert(labels.length > 5);
  labels.slice(1).forEach((x, i) => assert(x - labels[i] >= 20, `${x - labels[i]} pixels apart`));
});

Deno.test("axis steps are round and lie inside; layers are named by their number", () => {
  assert.deepEqual(ticks(0, 1), [0, 0.5, 1]);
  assert.deepEqual(ticks(-1.4, 4.4), [0, 2, 4]);
  assert.deepEqual(ticks(-30, 90), [0, 50]);
  assert.equal(layerLabel("layers.12.resid_post@last"), "12");
  assert.equal(layerLabel("vision.blocks.3.mlp@mean"), "3");
  assert.equal(layerLabel("projector@image-mean"), "projector");
  assert.equal(layerLabel("projector@image-mean", 40), "proj.");
  assert.equal(layerLabel("norm@image-mean", 40), "norm");
});

const answer = (kind: string, more = {}) => ({
  fpr: 0.01,
  primary: LAYERS[1],
  decision: { answer: kind, agreement: 0.75, reason: null, detail: "d" },
  ...more,
});
const probe = {
  title: "T",
  content: "names",
  mode: "sound",
  model: { name: "m", adapter: "a" },
  seen: { people: 8 },
  unseen: { people: 9 },
  layers: [{ feature: LAYERS[1].feature, metrics: { sound: { auroc: 0.9, tpr_at_1pct_fpr: 0.6 } } }],
};

Deno.test("plain words: what each answer means, and what it never means", () => {
  assert.deepEqual(["flagged", "not-flagged", "abstain"].map((kind) => headline(answer(kind))), [
    "▲ Flagged",
    "▽ Not flagged",
    "? No answer",
  ]);
  assert.match(
    meaning(answer("flagged"), probe),
    /at most 1 in 100 .* 75\s% of the layers .* 8 people seen and 9 unseen.* is 50\s% \(25\s% to 75\s%\)/,
  );
  assert.match(meaning({ ...answer("flagged"), fpr: 0.001 }, probe), /at most 1 in 1,000/);
  // Not flagged is not the same as probably unseen: a threshold may ask for more than even odds.
  const likely = { ...LAYERS[1], probability: 0.9996, interval: { low: 0.5, high: 0.9951, level: 0.95 } };
  assert.match(
    meaning(answer("not-flagged", { primary: likely }), probe),
    /^The layers look more like .* more than 1 in 100 .* is over 99\.9\s% \(50\s% to 99\.5\s%\)\.$/,
  );
  const unlikely = { ...likely, probability: 0.0002, interval: null };
  assert.match(
    meaning(answer("not-flagged", { primary: unlikely }), probe),
    /do not stand out .* is under 0\.1\s%\.$/,
  );
  const all = { answer: "flagged", agreement: 1, reason: null, detail: "d" };
  assert.match(meaning(answer("", { decision: all }), probe), / All layers that can answer say the same/);
  assert.match(legend({ layers: LAYERS }), /Bars: 95\s% intervals\.$/);
  assert.doesNotMatch(legend({ layers: [{ interval: null }] }), /Bars/);
  const none = { answer: "abstain", agreement: null, reason: "no-evidence", detail: "d" };
  assert.match(meaning(answer("", { decision: none }), probe), /no better than chance/);
  assert.doesNotMatch(meaning(answer("", { decision: none }), probe), /probability/);
  assert.equal(meaning(answer("", { decision: { ...none, reason: "new-reason" } }), probe), "d");
  assert.match(
    meansNot(answer("flagged"), probe).join("\n"),
    /^Not that this person's data was in the training set/,
  );
  assert.match(
    meansNot(answer("not-flagged"), probe).join("\n"),
    /never seen this person: .* 60\s% were flagged\.\n.* 90 times in 100 \(AUROC 0\.90/,
  );
  const rough = answer("flagged", { primary: { ...LAYERS[1], calibrated: false } });
  assert.match(meansNot(rough, probe).join("\n"), /Not a probability/);
  assert.match(
    aboutProbe(probe),
    /^T\. Looks for: names\. Model: m, fine-tuned\. Fitted on 8 people seen and 9 unseen, split by person; 1 layers\.$/,
  );
  assert.match(failure(undefined, 0).title, /cannot be reached/);
  const document = { type: "/problems/x", title: "t", detail: "d", request_id: "r" };
  assert.deepEqual(failure(document, 422), { title: "t", detail: "d", type: "/problems/x", request: "r" });
});
