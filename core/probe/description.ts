/**
 * Description length of the labels (Voita & Titov 2020, the online code): bits to send who is seen to one who has the activations.
 * People come one after the other with all their rows, so what is learnt about one says nothing about the next but by what they share.
 */
import type { Random } from "../random.ts";
import {
  checkDesign,
  type Design,
  type FeatureMatrix,
  groupPeople,
  prepareRows,
  type ProbeOptions,
} from "./design.ts";
import { controlLabels } from "./controls.ts";
import { type LogisticSolver, logisticSolver, narrowRows } from "./logistic.ts";

export interface DescriptionOptions extends ProbeOptions {
  /** Orders of the people averaged for the labels; 8 unless told. */
  orders?: number;
  /** Random labellings of people, each with an order of its own; 8 unless told. */
  tasks?: number;
  /** What is kept together: "person" unless told; "row" lets the receiver recognise people, which is what it must not do. */
  unit?: "person" | "row";
  /** Where each fit stops, see `LogisticOptions`; 1e-3 unless told. */
  tolerance?: number;
}

export interface Description {
  /** Of all rows' labels, mean over orders. */
  bits: number;
  /** The same for people labelled by lot. */
  control: number;
  /** One bit a row. */
  uniform: number;
  /** uniform / bits: above 1 where the sets have something in common that can be read off. */
  compression: number;
}

/** Penalties that the sender may choose from, as parts of C: naming one costs 2 bits. */
const STRENGTHS = [1, 1e-1, 1e-2, 1e-3];

/** Lengths of the labels and of the control task. @throws InputError for a wrong design */
export function descriptionLength(
  x: FeatureMatrix,
  design: Design,
  options: DescriptionOptions,
  random: Random,
): Description {
  const { c = 1, orders = 8, tasks = 8, unit = "person", tolerance = 1e-3 } = options;
  checkDesign(x, design);
  const people = groupPeople(design), n = x.n;
  const rows = narrowRows(prepareRows(x, design.scene, options));
  const solvers = STRENGTHS.map((part) => logisticSolver(rows, Math.ceil(n / 2), c * part));
  const units = unit === "person" ? people.rows : Array.from({ length: n }, (_, i) => Int32Array.of(i));
  const mean = (count: number, name: string, labelsOf: (stream: Random) => Uint8Array) => {
    let sum = 0;
    for (let k = 0; k < count; k++) {
      const stream = random.split(name, k), labels = labelsOf(stream.split("labels"));
      sum += codeLength(solvers, labels, balancedOrder(units, labels, stream), tolerance) / count;
    }
    return sum;
  };
  const bits = mean(orders, "order", () => design.labels);
  const control = mean(tasks, "control", (stream) => controlLabels(people, n, stream));
  return { bits, control, uniform: n, compression: n / bits };
}

/**
 * Bits of the labels in this order of units: the first sixteenth at one bit a row, then blocks that double what is known, each by a
 * probe fitted on all before it. The penalty that does best is named first.
 */
function codeLength(
  solvers: readonly LogisticSolver[],
  labels: Uint8Array,
  order: Int32Array[],
  tolerance: number,
): number {
  const lengths = solvers.map(() => Math.log2(solvers.length));
  // Both kinds must be known before a probe can be: with a balanced order the first two units are enough.
  const first = Math.max(
    Math.ceil(order.length / 16),
    1 + Math.max(...[0, 1].map((side) => order.findIndex(([row]) => labels[row] === side))),
  );
  const flat = (units: Int32Array[]) => Int32Array.from(units.flatMap((unit) => [...unit]));
  const head = flat(order.slice(0, first)).length;
  for (let known = first; known < order.length; known *= 2) {
    const train = flat(order.slice(0, known)), block = flat(order.slice(known, 2 * known));
    const scores = new Float64Array(block.length);
    solvers.forEach((solver, k) => {
      solver.fit(train, labels, tolerance);
      solver.scores(block, scores);
      block.forEach((row, i) => lengths[k] += bitsOf(labels[row] ? scores[i] : -scores[i]));
    });
  }
  return head + Math.min(...lengths);
}

/** -log2 of the logistic function, without overflow. */
const bitsOf = (margin: number): number =>
  (Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin)))) / Math.LN2;

/** Units in random order, the kinds spread evenly: after any number of them their shares are as in the whole. */
function balancedOrder(units: readonly Int32Array[], labels: Uint8Array, random: Random): Int32Array[] {
  return [0, 1].flatMap((side) => {
    const own = random.shuffle(units.filter(([row]) => labels[row] === side));
    return own.map((unit, i) => ({ unit, at: (i + random.float()) / own.length }));
  }).sort((a, b) => a.at - b.at).map(({ unit }) => unit);
}
