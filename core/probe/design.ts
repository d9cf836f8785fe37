/**
 * What a probe is fitted on: a matrix of activations, and for each row its label, its person and its scene.
 * Refuses lengths that disagree, values that are not finite, a person who is both seen and unseen, and groups of fewer than two people.
 */
import { InputError } from "../errors.ts";

/** One feature for all rows: data is (n, dim), row after row. */
export interface FeatureMatrix {
  n: number;
  dim: number;
  data: Float32Array | Float64Array;
}

/** Who and what each of the n rows shows; people and scenes are any integers. */
export interface Design {
  /** 1 = seen in training, 0 = never seen; (n). */
  labels: Uint8Array;
  /** (n) */
  person: Int32Array;
  /** Rows of one scene differ in the person only; (n). */
  scene: Int32Array;
}

/** Held-out performance, each number the mean over `partitions` splits; the names are those of stored probes. */
export interface HeldOut {
  auroc: number;
  accuracy: number;
  tpr_at_01pct_fpr: number;
  tpr_at_1pct_fpr: number;
  tpr_at_5pct_fpr: number;
  partitions: number;
}

/** How the rows are prepared and the probe is fitted; the same in both modes. */
export interface ProbeOptions {
  /** Inverse strength of the L2 penalty, as in scikit-learn; 1 unless told. */
  c?: number;
  /** Take each scene's mean over all its rows away first (label-blind); false unless told. */
  centerScenes?: boolean;
  /** Divide each dimension by its standard deviation over all rows, after taking its mean away (label-blind); false unless told. */
  standardize?: boolean;
}

/** Rows made ready for fitting, in f64: (n, dim). */
export interface PreparedRows {
  n: number;
  dim: number;
  data: Float64Array;
}

/** Checks matrix and design against each other. @throws InputError naming the length, row or person that is wrong */
export function checkDesign(x: FeatureMatrix, { labels, person, scene }: Design): void {
  const fail = (why: string): never => {
    throw new InputError(`Cannot fit a probe: ${why}`);
  };
  if (!(x.n >= 1 && x.dim >= 1) || x.data.length !== x.n * x.dim) {
    fail(`the matrix has ${x.data.length} values, expected ${x.n} x ${x.dim}`);
  }
  for (const [name, list] of Object.entries({ labels, person, scene })) {
    if (list.length !== x.n) fail(`"${name}" has ${list.length} entries, expected ${x.n}`);
  }
  const bad = x.data.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) fail(`row ${Math.floor(bad / x.dim)} holds ${x.data[bad]} at index ${bad % x.dim}`);
  const wrong = labels.findIndex((label) => label > 1);
  if (wrong >= 0) fail(`row ${wrong} has the label ${labels[wrong]}, expected 0 or 1`);
  for (const part of [0, 1]) {
    if (!labels.includes(part)) fail(`no row is ${part ? "seen" : "unseen"}`);
  }
}

/** The distinct people of a design in order of first appearance, each one's label and rows. */
export interface People {
  seen: Uint8Array;
  rows: Int32Array[];
}

/** Groups rows by person. @throws InputError for a person with two labels, or fewer than two people on one side */
export function groupPeople({ labels, person }: Design): People {
  const index = new Map<number, number>(), rows: number[][] = [], seen: number[] = [];
  for (let i = 0; i < person.length; i++) {
    let at = index.get(person[i]);
    if (at === undefined) {
      index.set(person[i], at = rows.length);
      rows.push([]);
      seen.push(labels[i]);
    }
    if (seen[at] !== labels[i]) {
      throw new InputError(`Cannot split by person: person ${person[i]} is both seen and unseen`);
    }
    rows[at].push(i);
  }
  const count = seen.reduce((sum, label) => sum + label, 0);
  if (count < 2 || seen.length - count < 2) {
    throw new InputError(
      `Cannot split by person: ${count} seen and ${
        seen.length - count
      } unseen people, expected at least 2 of each`,
    );
  }
  return { seen: Uint8Array.from(seen), rows: rows.map((list) => Int32Array.from(list)) };
}

/** A copy of the rows in f64, centred by scene and standardised as asked; neither looks at a label. */
export function prepareRows(x: FeatureMatrix, scene: Int32Array, options: ProbeOptions): PreparedRows {
  const { n, dim } = x, data = Float64Array.from(x.data);
  if (options.centerScenes) {
    const index = new Map<number, number>();
    for (const id of scene) if (!index.has(id)) index.set(id, index.size);
    const means = new Float64Array(index.size * dim), counts = new Float64Array(index.size);
    for (let i = 0; i < n; i++) {
      const s = index.get(scene[i])!;
      counts[s]++;
      for (let j = 0; j < dim; j++) means[s * dim + j] += data[i * dim + j];
    }
    for (let i = 0; i < n; i++) {
      const s = index.get(scene[i])!;
      for (let j = 0; j < dim; j++) data[i * dim + j] -= means[s * dim + j] / counts[s];
    }
  }
  if (options.standardize) {
    for (let j = 0; j < dim; j++) {
      let mean = 0, square = 0;
      for (let i = 0; i < n; i++) mean += data[i * dim + j] / n;
      for (let i = 0; i < n; i++) square += (data[i * dim + j] - mean) ** 2 / n;
      // A constant dimension stays as it is but for its mean: there is nothing to scale.
      const scale = square > 0 ? Math.sqrt(square) : 1;
      for (let i = 0; i < n; i++) data[i * dim + j] = (data[i * dim + j] - mean) / scale;
    }
  }
  return { n, dim, data };
}
