/**
 * Control task and selectivity (Hewitt & Liang 2019): how well a probe that may know its people learns labels that mean nothing.
 * Refuses fewer than two control tasks, of which no spread can be told.
 */
import { InputError } from "../errors.ts";
import type { Random } from "../random.ts";
import {
  checkDesign,
  type Design,
  type FeatureMatrix,
  groupPeople,
  type People,
  prepareRows,
  type ProbeOptions,
} from "./design.ts";
import { type LogisticSolver, logisticSolver, narrowRows } from "./logistic.ts";
import { accuracy } from "./metrics.ts";
import { type Split, splitByImage } from "./splits.ts";
import { studentT } from "./student.ts";

export interface SelectivityOptions extends ProbeOptions {
  /** Control tasks: ways to call as many people seen as there are, by lot. */
  tasks: number;
  /** Share of the rows that is tested; 0.2 unless told. */
  testSize?: number;
  /** Splits by image averaged for the task and for each control alike; 5 unless told. */
  splits?: number;
  /** Of the first split, the next ones count up from it; 42 unless told. */
  seed?: number;
  /** Where each fit stops, see `LogisticOptions`; 1e-3 unless told. */
  tolerance?: number;
}

export interface Selectivity {
  /** Accuracy on the true sets, rows of the same people on both sides of the split. */
  task: number;
  /** Mean accuracy on the control tasks. */
  control: number;
  /** task - control */
  value: number;
  /** Over labellings of people: contains 0 in 95 % of studies whose sets are no more than another random labelling. */
  ci95: [number, number];
}

/**
 * Accuracy on the sets less the mean accuracy on people labelled by lot. Its interval is that of one more labelling against the mean of
 * `tasks` others, value +- t s sqrt(1 + 1/tasks), s the controls' deviation. @throws InputError for a wrong design
 */
export function selectivity(
  x: FeatureMatrix,
  design: Design,
  options: SelectivityOptions,
  random: Random,
): Selectivity {
  const { tasks, testSize = 0.2, splits = 5, seed = 42, c, tolerance = 1e-3 } = options;
  if (!(Number.isInteger(tasks) && tasks >= 2)) {
    throw new InputError(`Cannot measure selectivity with ${tasks} control tasks: expected at least 2`);
  }
  checkDesign(x, design);
  const people = groupPeople(design);
  const solver = logisticSolver(
    narrowRows(prepareRows(x, design.scene, options)),
    Math.ceil((1 - testSize) * x.n),
    c,
  );
  const score = (labels: Uint8Array) => {
    let sum = 0;
    for (let k = 0; k < splits; k++) {
      sum += splitAccuracy(solver, labels, splitByImage(labels, testSize, seed + k), tolerance);
    }
    return sum / splits;
  };
  const task = score(design.labels);
  const controls = Array.from(
    { length: tasks },
    (_, k) => score(controlLabels(people, x.n, random.split(k))),
  );
  const control = controls.reduce((sum, value) => sum + value, 0) / tasks;
  const deviation = Math.sqrt(
    controls.reduce((sum, value) => sum + (value - control) ** 2, 0) / (tasks - 1),
  );
  const half = studentT(tasks - 1) * deviation * Math.sqrt(1 + 1 / tasks), value = task - control;
  return { task, control, value, ci95: [value - half, value + half] };
}

function splitAccuracy(
  solver: LogisticSolver,
  labels: Uint8Array,
  { train, test }: Split,
  tolerance: number,
): number {
  const scores = new Float64Array(test.length);
  solver.fit(train, labels, tolerance);
  solver.scores(test, scores);
  return accuracy(Uint8Array.from(test, (row) => labels[row]), scores);
}

/** Rows labelled by a lot over people: as many are called seen as truly are; (n). */
export function controlLabels({ seen, rows }: People, n: number, random: Random): Uint8Array {
  const labels = new Uint8Array(n), lot = random.shuffle([...seen]);
  rows.forEach((list, at) => list.forEach((row) => labels[row] = lot[at]));
  return labels;
}
