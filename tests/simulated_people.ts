/**
 * Simulated activations whose truth is known: people with directions of their own, scenes, noise, and a shift that the seen share.
 * For tests of statistics only; it refuses nothing.
 */
import type { Design, FeatureMatrix } from "../core/probe/design.ts";
import type { Random } from "../core/random.ts";

export interface Simulated {
  /** People of either side. */
  people?: number;
  scenes?: number;
  dim?: number;
  /** How far all seen people lie from all unseen ones, along the first direction. */
  shared?: number;
  /** Standard deviation of each person's own direction, in units of the noise. */
  own?: number;
}

/** Rows of every person in every scene, and the same people in another arm, without the shift and with half their spread redrawn. */
export function simulate(
  random: Random,
  { people = 8, scenes = 4, dim = 6, shared = 0, own = 0.8 }: Simulated = {},
): { x: FeatureMatrix; other: FeatureMatrix; design: Design } {
  const n = 2 * people * scenes, data = new Float32Array(n * dim), there = new Float32Array(n * dim);
  const normals = (count: number) => Float64Array.from({ length: count }, () => random.normal());
  const persons = normals(2 * people * dim),
    anew = normals(2 * people * dim),
    pictures = normals(scenes * dim);
  const person = Int32Array.from({ length: n }, (_, i) => i % (2 * people));
  const scene = Int32Array.from({ length: n }, (_, i) => Math.floor(i / (2 * people)));
  const labels = Uint8Array.from(person, (id) => id < people ? 1 : 0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < dim; j++) {
      const who = person[i] * dim + j, picture = pictures[scene[i] * dim + j];
      data[i * dim + j] = own * persons[who] + picture + random.normal() +
        (j === 0 && labels[i] ? shared : 0);
      there[i * dim + j] = own * Math.SQRT1_2 * (persons[who] + anew[who]) + picture + random.normal();
    }
  }
  return { x: { n, dim, data }, other: { n, dim, data: there }, design: { labels, person, scene } };
}
