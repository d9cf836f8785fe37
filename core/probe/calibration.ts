/**
 * From log-odds to probabilities that mean what they say: Platt's sigmoid or isotonic regression, fitted on people left out of the probe.
 * Refuses scores of one class; a score beyond those it was fitted on is answered with the nearest, and flagged.
 */
import { z } from "zod";
import { InputError } from "../errors.ts";
import { sigmoid } from "./metrics.ts";

const share = z.number().min(0).max(1);
const range = z.tuple([z.number(), z.number()]);
const seenIn = {
  /** Least and largest score of the fit: beyond them nothing is known. */
  scores: range,
  /** People whose pictures it was fitted on. */
  people: z.number().int().positive(),
  /** Points [score, low, high], ascending: between low and high lies the probability in 95 % of redraws of the people. */
  band: z.array(z.tuple([z.number(), share, share])).min(1).optional(),
};

/** How a score becomes a probability; a part of stored probes. */
export const calibrationSchema = z.discriminatedUnion("method", [
  /** probability = 1 / (1 + exp(-(slope score + offset))) */
  z.object({ method: z.literal("platt"), slope: z.number(), offset: z.number(), ...seenIn }),
  /** Linear between knots, which ascend in both coordinates. */
  z.object({
    method: z.literal("isotonic"),
    knots: z.array(z.tuple([z.number(), z.number().min(0).max(1)])).min(1),
    ...seenIn,
  }),
]);
export type Calibration = z.infer<typeof calibrationSchema>;

/** Fixed before any result: steps need many independent people, and each brings one label however many pictures. */
export const ISOTONIC_PEOPLE = 100;

/** The method that the number of people decides. */
export const calibrationMethod = (people: number): Calibration["method"] =>
  people >= ISOTONIC_PEOPLE ? "isotonic" : "platt";

/** Fits one method to scores of pictures of so many people. @throws InputError for labels of one class */
export function calibrate(
  method: Calibration["method"],
  labels: ArrayLike<number>,
  scores: ArrayLike<number>,
  people: number,
): Calibration {
  return (method === "isotonic" ? fitIsotonic : fitPlatt)(labels, scores, people);
}

/**
 * Platt 1999: a sigmoid of the score by maximum likelihood, its targets drawn in by one count of either class as in his paper.
 * It never descends. Newton's method with halved steps (Lin, Lin & Weng 2007). @throws InputError for labels of one class
 */
export function fitPlatt(labels: ArrayLike<number>, scores: ArrayLike<number>, people: number): Calibration {
  const { n, positive, bounds } = check(labels, scores);
  const high = (positive + 1) / (positive + 2), low = 1 / (n - positive + 2);
  // Scores are brought to unit spread, so that the ridge of the Hessian means the same for all.
  const unit = Math.max(Math.abs(bounds[0]), Math.abs(bounds[1])) || 1;
  const loss = (a: number, b: number) => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const f = a * scores[i] / unit + b, t = labels[i] ? high : low;
      sum += Math.max(f, 0) + Math.log1p(Math.exp(-Math.abs(f))) - t * f;
    }
    return sum;
  };
  let a = 0, b = Math.log((positive + 1) / (n - positive + 1)), value = loss(a, b);
  for (let iteration = 0; iteration < 100; iteration++) {
    let ga = 0, gb = 0, haa = 1e-12, hbb = 1e-12, hab = 0;
    for (let i = 0; i < n; i++) {
      const s = scores[i] / unit, p = sigmoid(a * s + b), r = p - (labels[i] ? high : low), w = p * (1 - p);
      ga += r * s;
      gb += r;
      haa += w * s * s;
      hab += w * s;
      hbb += w;
    }
    const det = haa * hbb - hab * hab;
    const da = -(hbb * ga - hab * gb) / det, db = -(haa * gb - hab * ga) / det, slope = ga * da + gb * db;
    if (!(slope < -1e-14 * (1 + value))) {
      // The loss shows no more gain, but the last step still doubles the digits.
      if (slope <= 0) [a, b] = [a + da, b + db];
      break;
    }
    let step = 1, next = loss(a + da, b + db);
    while (next > value + 1e-4 * step * slope && step > 1e-10) {
      step /= 2;
      next = loss(a + step * da, b + step * db);
    }
    if (!(next < value)) break;
    a += step * da;
    b += step * db;
    value = next;
  }
  // No score may lower the probability: where the best sigmoid descends, the best that does not is level.
  if (a < 0) [a, b] = [0, logit((positive * high + (n - positive) * low) / n)];
  return { method: "platt", slope: a / unit, offset: b, scores: bounds, people };
}

const logit = (p: number): number => Math.log(p / (1 - p));

/** The least-squares ascending fit, by pooling adjacent violators; ties are one point. @throws InputError for labels of one class */
export function fitIsotonic(
  labels: ArrayLike<number>,
  scores: ArrayLike<number>,
  people: number,
): Calibration {
  const { n, bounds } = check(labels, scores);
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => scores[i] - scores[j]);
  const blocks: { sum: number; count: number; from: number; to: number }[] = [];
  for (let at = 0; at < n;) {
    const score = scores[order[at]], block = { sum: 0, count: 0, from: score, to: score };
    for (; at < n && scores[order[at]] === score; at++, block.count++) block.sum += labels[order[at]];
    blocks.push(block);
    while (blocks.length > 1) {
      const [left, right] = blocks.slice(-2);
      if (left.sum * right.count < right.sum * left.count) break;
      blocks.splice(-2, 2, {
        sum: left.sum + right.sum,
        count: left.count + right.count,
        from: left.from,
        to: right.to,
      });
    }
  }
  const knots = blocks.flatMap(({ sum, count, from, to }): [number, number][] =>
    (from === to ? [from] : [from, to]).map((score) => [score, sum / count])
  );
  return { method: "isotonic", knots, scores: bounds, people };
}

export interface CalibratedScore {
  probability: number;
  /** Whether the score lies beyond those that calibration has seen: better abstain. */
  beyond: boolean;
}

/** The probability of a score; one beyond the range gets the nearest score's. */
export function calibrated(calibration: Calibration, score: number): CalibratedScore {
  const [low, high] = calibration.scores, inside = Math.min(high, Math.max(low, score));
  return { probability: probabilityOf(calibration, inside), beyond: inside !== score };
}

function probabilityOf(calibration: Calibration, score: number): number {
  if (calibration.method === "platt") return sigmoid(calibration.slope * score + calibration.offset);
  const { knots } = calibration, next = knots.findIndex(([at]) => at >= score);
  if (next <= 0) return knots[next === 0 ? 0 : knots.length - 1][1];
  const [from, low] = knots[next - 1], [to, high] = knots[next];
  return low + (high - low) * (score - from) / (to - from);
}

export interface ReliabilityBin {
  low: number;
  high: number;
  n: number;
  /** Mean probability, and share of seen, of the bin's pictures. */
  predicted: number;
  observed: number;
}

/** Probabilities in ten bins of equal width, empty ones left out, and the expected calibration error (Naeini et al. 2015). */
export function reliability(
  labels: ArrayLike<number>,
  probabilities: ArrayLike<number>,
  count = 10,
): { bins: ReliabilityBin[]; ece: number } {
  const bins = Array.from({ length: count }, (_, k) => ({
    low: k / count,
    high: (k + 1) / count,
    n: 0,
    predicted: 0,
    observed: 0,
  }));
  const total = labels.length;
  for (let i = 0; i < total; i++) {
    const bin = bins[Math.min(count - 1, Math.floor(probabilities[i] * count))];
    bin.n++;
    bin.predicted += probabilities[i];
    bin.observed += labels[i];
  }
  const filled = bins.filter(({ n }) => n).map((bin) => ({
    ...bin,
    predicted: bin.predicted / bin.n,
    observed: bin.observed / bin.n,
  }));
  const ece = filled.reduce((sum, bin) => sum + bin.n / total * Math.abs(bin.predicted - bin.observed), 0);
  return { bins: filled, ece };
}

function check(labels: ArrayLike<number>, scores: ArrayLike<number>) {
  const n = labels.length;
  let positive = 0, low = Infinity, high = -Infinity;
  for (let i = 0; i < n; i++) {
    positive += labels[i];
    low = Math.min(low, scores[i]);
    high = Math.max(high, scores[i]);
  }
  if (n !== scores.length || positive === 0 || positive === n) {
    throw new InputError(
      `Cannot calibrate ${scores.length} scores with ${n} labels: ${positive} are seen, need both classes`,
    );
  }
  return { n, positive, bounds: [low, high] as [number, number] };
}
