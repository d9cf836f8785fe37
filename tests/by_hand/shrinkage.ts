/**
 * Whether a calibration that is drawn in does better with few people: by hand, a minute: `deno run -A tests/by_hand/shrinkage.ts [worlds]`.
 * Platt's sigmoid as it is, with targets by the count of people, with a penalty on the slope, and one fitted to 300 other people's scores.
 */
import { calibrate, calibrated, reliability } from "../../core/probe/calibration.ts";
import { logisticSolver, narrowRows } from "../../core/probe/logistic.ts";
import { brier, sigmoid } from "../../core/probe/metrics.ts";
import { crossedFolds, heldOutScores, momentsOf, scaledRows } from "../../core/probe/single.ts";
import { Random } from "../../core/random.ts";
import { simulate } from "../simulated_people.ts";
import { deviation } from "./intervals.ts";

const WORLDS = Number(Deno.args[0] ?? 12), PARTS = { people: 4, scenes: 3 }, DIM = 4;

/** A sigmoid by Newton's method: mean loss a row times `weight`, and slope^2 / 2 times `penalty`; it never descends. */
function sigmoidOf(
  labels: readonly number[],
  scores: readonly number[],
  { high = 1, low = 0, penalty = 0, weight = 1 },
): (score: number) => number {
  const unit = deviation(scores) || 1, share = weight / labels.length;
  let a = 0, b = 0;
  for (let step = 0; step < 60; step++) {
    let ga = penalty * a, gb = 0, haa = penalty + 1e-9, hbb = 1e-9, hab = 0;
    labels.forEach((label, i) => {
      const s = scores[i] / unit, p = sigmoid(a * s + b), w = share * p * (1 - p);
      ga += share * (p - (label ? high : low)) * s;
      gb += share * (p - (label ? high : low));
      haa += w * s * s;
      hab += w * s;
      hbb += w;
    });
    const det = haa * hbb - hab * hab;
    a -= (hbb * ga - hab * gb) / det;
    b -= (haa * gb - hab * ga) / det;
  }
  return (score) => a < 0 ? 0.5 : sigmoid(a * score / unit + b);
}

for (const people of [8, 20]) {
  for (const shared of [0, 1, 2]) {
    const found = new Map<string, { ece: number; brier: number }>();
    for (let k = 0; k < WORLDS; k++) {
      const { x, design } = simulate(new Random(9, `people/${k}`), { people, scenes: 24, dim: DIM, shared });
      const other = simulate(new Random(77, `others/${k}`), { people: 150, scenes: 6, dim: DIM, shared });
      const { mean: center, scale } = momentsOf(x),
        rows = scaledRows(x, center, scale),
        random = new Random(k);
      const others = scaledRows(other.x, center, scale);
      const solver = logisticSolver(narrowRows(rows), Math.ceil(x.n / 2));
      const labels: number[] = [], probabilities = new Map<string, number[]>();
      for (const [f, { train, test }] of crossedFolds(design, random.split("judged"), PARTS).entries()) {
        const pick = (list: ArrayLike<number>) => Int32Array.from(train, (row) => list[row]);
        const rest = {
          labels: Uint8Array.from(pick(design.labels)),
          person: pick(design.person),
          scene: pick(design.scene),
        };
        const folds = crossedFolds(rest, random.split("calibrated", f), PARTS).map((fold) => ({
          train: fold.train.map((at) => train[at]),
          test: fold.test.map((at) => train[at]),
        }));
        const held = heldOutScores(solver, design.labels, folds), scores = new Float64Array(test.length);
        const own = Array.from(held.tested, (row) => design.labels[row]), theirs = Array.from(held.scores);
        const known = new Set(rest.person).size, side = known / 2;
        const targets = { high: (side + 1) / (side + 2), low: 1 / (side + 2), weight: known };
        const { coef, intercept } = solver.fit(train, design.labels);
        const far = Array.from(
          { length: others.n },
          (_, i) => coef.reduce((sum, w, j) => sum + w * others.data[i * DIM + j], intercept),
        );
        solver.scores(test, scores);
        const platt = calibrate("platt", own, theirs, known);
        const ways = {
          "as it is": (score: number) => calibrated(platt, score).probability,
          "targets by people": sigmoidOf(own, theirs, targets),
          "penalty on the slope": sigmoidOf(own, theirs, { penalty: 1, weight: known }),
          both: sigmoidOf(own, theirs, { ...targets, penalty: 1 }),
          "300 other people": sigmoidOf([...other.design.labels], far, {}),
        };
        for (const row of test) labels.push(design.labels[row]);
        for (const [name, way] of Object.entries(ways)) {
          probabilities.set(name, [...probabilities.get(name) ?? [], ...Array.from(scores, way)]);
        }
      }
      for (const [name, list] of probabilities) {
        const so = found.get(name) ?? { ece: 0, brier: 0 };
        found.set(name, {
          ece: so.ece + reliability(labels, list).ece / WORLDS,
          brier: so.brier + brier(labels, list) / WORLDS,
        });
      }
    }
    const cells = [...found].map(([name, { ece, brier }]) =>
      `${name} ${ece.toFixed(3)} (${brier.toFixed(4)})`
    );
    console.log(`| ${people} + ${people}, shift ${shared} | ${cells.join(" | ")} |`);
  }
}
