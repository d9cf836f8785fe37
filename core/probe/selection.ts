/**
 * Which rows of an activation set a probe is fitted on: those of a seen and an unseen set, people and scenes numbered.
 * Refuses sets that are absent, samples without a person, and a person on both sides.
 */
import { InputError } from "../errors.ts";
import { type ActivationSet, type FeatureData, parseFeature, type SampleRow } from "./activations.ts";

/** n chosen rows; the number of a person or scene is its place in order of first appearance. */
export interface Selection {
  /** Row numbers in the activation set, ascending; (n). */
  rows: Int32Array;
  /** 1 = seen; (n). */
  labels: Uint8Array;
  /** (n) */
  person: Int32Array;
  /** (n) */
  scene: Int32Array;
  seenPeople: number;
  unseenPeople: number;
  scenes: number;
}

/** The rows whose set is `seen` or `unseen`. @throws InputError naming the set, the sample or the person */
export function selectRows(samples: readonly SampleRow[], seen: string, unseen: string): Selection {
  if (seen === unseen) throw new InputError(`Cannot compare the set "${seen}" with itself`);
  const rows: number[] = [], people = new Map<string, number>(), scenes = new Map<string, number>();
  const sides: boolean[] = [];
  for (const [row, { id, person, set, scene }] of samples.entries()) {
    if (set !== seen && set !== unseen) continue;
    if (person === null) throw new InputError(`Cannot fit a probe: sample "${id}" of "${set}" has no person`);
    number(people, person);
    number(scenes, scene);
    const side = sides[people.get(person)!] ??= set === seen;
    if (side !== (set === seen)) {
      throw new InputError(`Cannot fit a probe: "${person}" is in both "${seen}" and "${unseen}"`);
    }
    rows.push(row);
  }
  for (const wanted of [seen, unseen]) {
    if (!rows.some((row) => samples[row].set === wanted)) {
      const sets = [...new Set(samples.map(({ set }) => `"${set}"`))].join(", ");
      throw new InputError(`Cannot fit a probe: there is no sample of the set "${wanted}", only of ${sets}`);
    }
  }
  const seenPeople = sides.filter((side) => side).length;
  return {
    rows: Int32Array.from(rows),
    labels: Uint8Array.from(rows, (row) => Number(samples[row].set === seen)),
    person: Int32Array.from(rows, (row) => people.get(samples[row].person!)!),
    scene: Int32Array.from(rows, (row) => scenes.get(samples[row].scene)!),
    seenPeople,
    unseenPeople: people.size - seenPeople,
    scenes: scenes.size,
  };
}

function number(index: Map<string, number>, key: string): void {
  if (!index.has(key)) index.set(key, index.size);
}

/** The chosen rows of a feature: (n, dim), row after row. */
export function featureRows({ dim, data }: FeatureData, rows: Int32Array): Float32Array {
  const out = new Float32Array(rows.length * dim);
  rows.forEach((row, i) => out.set(data.subarray(row * dim, (row + 1) * dim), i * dim));
  return out;
}

/** Features of a set by site, layer 2 before layer 10, then by reduction. */
export function orderedFeatures({ features }: Pick<ActivationSet, "features">): string[] {
  const order = new Intl.Collator("en", { numeric: true });
  return [...features.keys()].map((feature) => ({ feature, ...parseFeature(feature) }))
    .sort((a, b) => order.compare(a.site, b.site) || order.compare(a.reduction, b.reduction))
    .map(({ feature }) => feature);
}

/**
 * The feature to report first when none was named: at the decoder's last layer, the token that the study reads (the
 * second to last), else the last token, else the first reduction. Names alone decide, so no result can.
 */
export function defaultPrimary(features: readonly string[]): string {
  const decoder = features.filter((feature) => feature.startsWith("layers."));
  const { site } = parseFeature((decoder.length ? decoder : features).at(-1)!);
  const there = features.filter((feature) => parseFeature(feature).site === site);
  const wanted = ["index:-2", "last"].map((reduction) => `${site}@${reduction}`);
  return wanted.find((feature) => there.includes(feature)) ?? there[0];
}
