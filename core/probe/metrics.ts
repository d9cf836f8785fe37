/**
 * How well scores tell seen from unseen: the usual measures, with scikit-learn's conventions for ties and thresholds.
 * Refuses labels of one class only, for which a rate is not defined.
 */

/** n labels, 1 for seen and 0 for unseen, and as many scores, larger for "seen". */
type Labels = ArrayLike<number>;
type Scores = ArrayLike<number>;

/** How many are seen and unseen. @throws RangeError for one class only */
function countSides(labels: Labels, scores: Scores): { seen: number; unseen: number } {
  if (labels.length !== scores.length) {
    throw new RangeError(`Cannot rate ${scores.length} scores: there are ${labels.length} labels`);
  }
  let seen = 0;
  for (let i = 0; i < labels.length; i++) seen += labels[i];
  if (seen === 0 || seen === labels.length) {
    throw new RangeError(
      `Cannot rate scores: ${seen} of ${labels.length} are labelled seen, need both classes`,
    );
  }
  return { seen, unseen: labels.length - seen };
}

/**
 * Area under the ROC curve: the share of (seen, unseen) pairs in the right order, ties half (Mann-Whitney's U).
 * @throws RangeError for one class only
 */
export function auroc(labels: Labels, scores: Scores): number {
  const { seen, unseen } = countSides(labels, scores);
  // Two sorts without a comparator are several times faster than one of indices: the null draws ask for thousands.
  const ours = new Float64Array(seen), others = new Float64Array(unseen);
  for (let i = 0, s = 0, u = 0; i < labels.length; i++) {
    if (labels[i]) ours[s++] = scores[i];
    else others[u++] = scores[i];
  }
  ours.sort();
  others.sort();
  let pairs = 0, below = 0, upTo = 0; // unseen scores below, and up to and with, the present seen one
  for (const score of ours) {
    while (below < unseen && others[below] < score) below++;
    while (upTo < unseen && others[upTo] <= score) upTo++;
    pairs += (below + upTo) / 2;
  }
  return pairs / (seen * unseen);
}

/**
 * The largest true-positive rate at a false-positive rate of at most `fpr`, over the thresholds that the scores
 * offer (scikit-learn's `roc_curve` with `drop_intermediate=False`). @throws RangeError for one class only
 */
export function tprAtFpr(labels: Labels, scores: Scores, fpr: number): number {
  const { seen, unseen } = countSides(labels, scores);
  const order = Uint32Array.from(labels, (_, i) => i).sort((a, b) => scores[b] - scores[a]);
  let hits = 0, alarms = 0, best = 0;
  for (let i = 0; i < order.length; i++) {
    if (labels[order[i]]) hits++;
    else alarms++;
    const closesTie = i + 1 === order.length || scores[order[i + 1]] !== scores[order[i]];
    if (closesTie && alarms / unseen <= fpr) best = hits / seen;
  }
  return best;
}

/** Share of scores on the right side of `threshold`; a score equal to it counts as unseen. */
export function accuracy(labels: Labels, scores: Scores, threshold = 0): number {
  let right = 0;
  for (let i = 0; i < scores.length; i++) right += Number((scores[i] > threshold) === (labels[i] === 1));
  return right / scores.length;
}

/** The logistic function, without overflow. */
export function sigmoid(score: number): number {
  return score >= 0 ? 1 / (1 + Math.exp(-score)) : 1 - 1 / (1 + Math.exp(score));
}

/** Mean squared error of n probabilities (Brier 1950). */
export function brier(labels: Labels, probabilities: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) sum += (probabilities[i] - labels[i]) ** 2;
  return sum / probabilities.length;
}

/** Mean negative log-likelihood in nats of n probabilities, which are kept 2^-52 away from 0 and 1 as in scikit-learn. */
export function logLoss(labels: Labels, probabilities: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = Math.min(1 - Number.EPSILON, Math.max(Number.EPSILON, probabilities[i]));
    sum -= Math.log(labels[i] ? p : 1 - p);
  }
  return sum / probabilities.length;
}

/** Rates of one held-out part, or their means over several. */
export interface Rates {
  auroc: number;
  accuracy: number;
  /** True-positive rate at a false-positive rate of at most 0.1, 1 and 5 %. */
  tpr_at_01pct_fpr: number;
  tpr_at_1pct_fpr: number;
  tpr_at_5pct_fpr: number;
}

/** All rates of n scores. @throws RangeError for one class only */
export function rates(labels: Labels, scores: Scores): Rates {
  return {
    auroc: auroc(labels, scores),
    accuracy: accuracy(labels, scores),
    tpr_at_01pct_fpr: tprAtFpr(labels, scores, 0.001),
    tpr_at_1pct_fpr: tprAtFpr(labels, scores, 0.01),
    tpr_at_5pct_fpr: tprAtFpr(labels, scores, 0.05),
  };
}

/** Means over parts, of which there is at least one. */
export function meanRates(parts: readonly Rates[]): Rates {
  const mean = (of: (part: Rates) => number) => parts.reduce((sum, part) => sum + of(part), 0) / parts.length;
  return {
    auroc: mean((part) => part.auroc),
    accuracy: mean((part) => part.accuracy),
    tpr_at_01pct_fpr: mean((part) => part.tpr_at_01pct_fpr),
    tpr_at_1pct_fpr: mean((part) => part.tpr_at_1pct_fpr),
    tpr_at_5pct_fpr: mean((part) => part.tpr_at_5pct_fpr),
  };
}

/** The q-quantile of a sorted array, linear between its values (Hyndman & Fan's type 7, numpy's default). */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = q * (sorted.length - 1), below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
