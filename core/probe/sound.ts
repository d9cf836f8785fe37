/**
 * The sound way to probe: fitted on some people of either set, tested on others, and judged by permuting over people who counts as seen.
 * Refuses fewer than two people a set; docs/probes.md gives the reasons for each choice.
 */
import { InputError } from "../errors.ts";
import { hash32, Random } from "../random.ts";
import {
  checkDesign,
  type Design,
  type FeatureMatrix,
  groupPeople,
  type HeldOut,
  type People,
  prepareRows,
  type ProbeOptions,
} from "./design.ts";
import { infer, type Inference, type Permuted } from "./inference.ts";
import { type LogisticSolver, logisticSolver, narrowRows } from "./logistic.ts";
import { auroc, logLoss, meanRates, type Rates, rates, sigmoid } from "./metrics.ts";
import { personPartitions } from "./splits.ts";

export interface SoundOptions extends ProbeOptions {
  /** Choose C of these in every partition, of truth and draws alike; `c` alone where there is none. */
  cGrid?: readonly number[];
  /** Partitions of the people averaged for the observed value and for each null draw alike; 24 unless told. */
  partitions?: number;
  /** Permutations of who counts as seen; 200 unless told. */
  draws?: number;
  /** Fixes partitions and permutations: equal for all features and arms over the same people; 0 unless told. */
  seed?: number;
  /** Where each fit stops, see `LogisticOptions`; 1e-3 unless told, for the observed value and the null draws alike. */
  tolerance?: number;
  /** Stops between two draws; what it throws is the signal's reason. */
  signal?: AbortSignal;
  /** Called after the observed value and after each draw. */
  onProgress?: (done: number, total: number) => void;
}

export interface SoundResult extends HeldOut, Inference, Permuted {
  centred: boolean;
  draws: number;
  /** How often each C of the grid was chosen for the observed value. */
  chosenC?: Record<string, number>;
}

/** The host breathes this often: signals are heard and progress is drawn. */
const BREATH_MS = 50;

/**
 * Held-out performance on people the probe never met, with its null. Under the null hypothesis people of both sets are exchangeable, so
 * observed value and draws are, and p is valid. @throws InputError for a wrong design; the signal's reason when aborted
 */
export async function sound(
  x: FeatureMatrix,
  design: Design,
  options: SoundOptions = {},
): Promise<SoundResult> {
  const { c = 1, partitions = 24, draws = 200, seed = 0, tolerance = 1e-3, signal, onProgress } = options;
  for (const [name, value] of Object.entries({ partitions, draws })) {
    if (!(Number.isInteger(value) && value >= 1)) {
      throw new InputError(`Cannot fit a probe with ${value} ${name}: expected at least 1`);
    }
  }
  checkDesign(x, design);
  const people = groupPeople(design);
  const order = [1, 0].flatMap((side) => [...people.seen.keys()].filter((at) => people.seen[at] === side));
  const seen = people.seen.reduce((sum, side) => sum + side, 0);
  const rows = narrowRows(prepareRows(x, design.scene, options)), grid = options.cGrid ?? [];
  const solvers = (grid.length ? grid : [c]).map((each) => ({
    c: each,
    solver: logisticSolver(rows, Math.ceil(x.n / 2), each),
  }));
  const random = new Random(seed, "sound");

  const nullDraws = new Float64Array(draws), plan = fingerprint(design, seed, partitions, draws);
  const chosenC: Record<string, number> = {};
  let observed: Rates | undefined, breath = performance.now();
  for (let draw = 0; draw <= draws; draw++) {
    signal?.throwIfAborted();
    const stream = random.split(draw);
    // Draw 0 is the truth; the others shuffle who fills the seen slots. All draw their partitions the same way.
    const slots = draw === 0 ? order : stream.shuffle(order);
    const labels = labelRows(people, slots, seen, x.n);
    const parts = personPartitions(seen, slots.length - seen, partitions, stream).map((fitted) => {
      const task = { people, slots, fitted, labels, tolerance };
      const chosen = solvers.length > 1 ? chooseC(solvers, task, seen) : solvers[0];
      if (draw === 0 && grid.length) chosenC[chosen.c] = (chosenC[chosen.c] ?? 0) + 1;
      return testOn(chosen.solver, task, 1, 0);
    });
    if (draw === 0) observed = meanRates(parts.map(({ labels, scores }) => rates(labels, scores)));
    else {nullDraws[draw - 1] = parts.reduce((sum, part) => sum + auroc(part.labels, part.scores), 0) /
        partitions;}
    onProgress?.(draw + 1, draws + 1);
    if (performance.now() - breath > BREATH_MS) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      breath = performance.now();
    }
  }
  const { auroc: value } = observed!;
  const centred = options.centerScenes ?? false;
  return {
    ...observed!,
    partitions,
    centred,
    draws,
    observed: value,
    ...infer(value, nullDraws),
    nullDraws,
    plan,
    ...(grid.length && { chosenC }),
  };
}

/** Who is fitted and tested under which labels. */
interface Task {
  people: People;
  /** Place in `people` of each slot, those that count as seen first. */
  slots: readonly number[];
  /** The part of each slot. */
  fitted: Uint8Array;
  /** (n) */
  labels: Uint8Array;
  tolerance: number;
}

/** Fits the people of the slots of one part, and scores all rows of those of another. */
function testOn(
  solver: LogisticSolver,
  { people, slots, fitted, labels, tolerance }: Task,
  fit: number,
  tested: number,
): { labels: Uint8Array; scores: Float64Array } {
  const rowsOf = (part: number) => {
    const chosen = slots.filter((_, slot) => fitted[slot] === part).map((at) => people.rows[at]);
    const out = new Int32Array(chosen.reduce((sum, list) => sum + list.length, 0));
    let at = 0;
    for (const list of chosen) {
      out.set(list, at);
      at += list.length;
    }
    return out;
  };
  const test = rowsOf(tested),
    scores = new Float64Array(test.length),
    testLabels = new Uint8Array(test.length);
  solver.fit(rowsOf(fit), labels, tolerance);
  solver.scores(test, scores);
  for (let i = 0; i < test.length; i++) testLabels[i] = labels[test[i]];
  return { labels: testLabels, scores };
}

/**
 * The C with the least log loss on people left out within the fitted ones (part 1 of the task), who are halved once:
 * either half is fitted and tested on the other. The tested people play no part. Ties go to the earlier C.
 */
function chooseC<S extends { solver: LogisticSolver }>(solvers: readonly S[], task: Task, seen: number): S {
  // Slots come in the order of a shuffle, or, for the truth, of the design: every other fitted one of either kind.
  const fitted = task.fitted.slice(), count = [0, 0];
  for (let slot = 0; slot < fitted.length; slot++) {
    if (fitted[slot]) fitted[slot] = 1 + count[slot < seen ? 1 : 0]++ % 2;
  }
  // A single fitted person of a kind cannot be left out.
  if (count[0] < 2 || count[1] < 2) return solvers[0];
  const losses = solvers.map(({ solver }) =>
    [[1, 2], [2, 1]].reduce((sum, [fit, tested]) => {
      const { labels, scores } = testOn(solver, { ...task, fitted }, fit, tested);
      return sum + logLoss(labels, scores.map(sigmoid)) * labels.length;
    }, 0)
  );
  return solvers[losses.indexOf(Math.min(...losses))];
}

/** The label of each row when the people in the first `seen` slots count as seen; (n). */
function labelRows(people: People, slots: readonly number[], seen: number, n: number): Uint8Array {
  const labels = new Uint8Array(n);
  for (const at of slots.slice(0, seen)) for (const row of people.rows[at]) labels[row] = 1;
  return labels;
}

function fingerprint({ labels, person }: Design, seed: number, partitions: number, draws: number): number {
  let hash = hash32(seed, partitions, draws);
  for (let i = 0; i < labels.length; i++) hash = hash32(hash, labels[i], person[i]);
  return hash;
}
