/**
 * Membership attacks beside the probe: statistics that a model's outputs or gradients give for each person, judged by
 * permuting over people who counts as seen. Refuses fewer than two people a set.
 */
import { InputError } from "../errors.ts";
import { type Permuted } from "../probe/inference.ts";
import { auroc } from "../probe/metrics.ts";
import { personPartitions } from "../probe/splits.ts";
import { hash32, Random } from "../random.ts";
import { logSoftmax } from "../sampling.ts";

/** The entropies' orders and the share of tokens of MaxRényi-K %. */
export const RENYI_ORDERS = [0.5, 1, 2, Infinity], RENYI_SHARE = 0.1;

/** Rényi entropies in nats of softmax(logits), log(sum p^a) / (1 - a); Shannon's at 1, -log max p at infinity. Rényi 1961. */
export function renyiEntropies(logits: ArrayLike<number>, orders: readonly number[]): number[] {
  const logP = logSoftmax(logits);
  return orders.map((order) => {
    if (order === Infinity) return -logP.reduce((a, b) => Math.max(a, b), -Infinity);
    if (order === 1) return logP.reduce((sum, x) => x === -Infinity ? sum : sum - Math.exp(x) * x, 0);
    return Math.log(logP.reduce((sum, x) => sum + Math.exp(order * x), 0)) / (1 - order);
  });
}

/** Mean of the largest `share` of a text's token entropies, one at least (Li et al. 2024, MaxRényi-K %). Low for members. */
export function maxRenyi(entropies: readonly number[], share: number): number {
  if (!entropies.length) throw new InputError("Cannot give MaxRényi-K %: there is no token");
  const n = Math.max(1, Math.floor(share * entropies.length));
  return [...entropies].sort((a, b) => b - a).slice(0, n).reduce((sum, x) => sum + x, 0) / n;
}

/** Who counts as seen, draw by draw; draw 0 is the truth. */
export interface PeopleDraws {
  /** People by slot in each draw: the first `seen` slots count as seen. */
  slots: number[][];
  seen: number;
  people: number;
  seed: number;
  plan: number;
}

/** The permutations of the sound probe with this seed over people in this order, those of the first set seen. */
export function drawPeople(seen: number, unseen: number, draws: number, seed: number): PeopleDraws {
  if (seen < 2 || unseen < 2) {
    throw new InputError(
      `Cannot permute ${seen} seen and ${unseen} unseen people: expected at least 2 of each`,
    );
  }
  const order = Array.from({ length: seen + unseen }, (_, at) => at), random = soundStream(seed);
  const slots = Array.from(
    { length: draws + 1 },
    (_, draw) => draw === 0 ? order : random.split(draw).shuffle(order),
  );
  return { slots, seen, people: order.length, seed, plan: hash32(seed, draws, seen, unseen) };
}

const soundStream = (seed: number) => new Random(seed, "sound");

/** Any statistic of people as slots have them, first the truth's, then every draw's. */
export function permuted(
  { slots, plan }: PeopleDraws,
  statistic: (slots: readonly number[], draw: number) => number,
): Permuted {
  const [observed, ...nullDraws] = slots.map(statistic);
  return { observed, nullDraws: Float64Array.from(nullDraws), plan };
}

/** AUROC of a score a person, large for members. */
export function scoreAttack(scores: readonly number[], draws: PeopleDraws): Permuted {
  const labels = Uint8Array.from({ length: draws.people }, (_, slot) => slot < draws.seen ? 1 : 0);
  return permuted(draws, (slots) => auroc(labels, slots.map((at) => scores[at])));
}

/** Mean of the seen people's values less that of the unseen. */
export function meanDifference(values: readonly number[], draws: PeopleDraws): Permuted {
  const mean = (list: readonly number[]) => list.reduce((sum, at) => sum + values[at], 0) / list.length;
  return permuted(draws, (slots) => mean(slots.slice(0, draws.seen)) - mean(slots.slice(draws.seen)));
}

/**
 * Gradient alignment: half of the seen people's gradients are averaged, and everyone of the other halves of both sets is
 * scored by the cosine of the own gradient with that average. AUROC, averaged over partitions, which every draw makes anew.
 * @param dots (people, people) scalar products of the people's gradients
 */
export function alignmentAttack(
  dots: readonly ArrayLike<number>[],
  draws: PeopleDraws,
  partitions: number,
): Permuted {
  const { seen, people, seed } = draws, random = soundStream(seed);
  return permuted(draws, (slots, draw) => {
    const stream = random.split(draw);
    if (draw > 0) stream.shuffle(slots); // the partitions follow the shuffle in the stream, as they do in the probe
    const parts = personPartitions(seen, people - seen, partitions, stream).map((fitted) => {
      const known = slots.filter((_, slot) => slot < seen && fitted[slot] === 1);
      const tested = [...slots.keys()].filter((slot) => fitted[slot] === 0);
      // The average's own length is the same for all.
      const scores = tested.map((slot) => {
        const at = slots[slot], length = Math.sqrt(dots[at][at]);
        return length ? known.reduce((sum, other) => sum + dots[at][other], 0) / length : 0;
      });
      return auroc(Uint8Array.from(tested, (slot) => slot < seen ? 1 : 0), scores);
    });
    return parts.reduce((sum, value) => sum + value, 0) / partitions;
  });
}
