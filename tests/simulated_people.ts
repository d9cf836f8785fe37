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
  /** The same in the other arm; 0 unless told. */
  otherShared?: number;
  /** Standard deviation of each person's own direction, in units of the noise. */
  own?: number;
  /** Share of the seen people who carry the shift; all unless told. */
  carriers?: number;
  /** Share of the variance of people and noise that the other arm keeps; half of the people's and none of the noise's unless told. */
  alike?: number;
}

/** Rows of every person in every scene, and the same people in another arm, without the shift unless told, with a part of their spread redrawn. */
export function simulate(
  random: Random,
  { people = 8, scenes = 4, dim = 6, shared = 0, otherShared = 0, own = 0.8, carriers = 1, alike }:
    Simulated = {},
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
      const noise = random.normal(), another = random.normal(), keep = alike ?? 0.5, same = alike ?? 0;
      const isMoved = j === 0 && person[i] < carriers * people;
      data[i * dim + j] = own * persons[who] + picture + noise + (isMoved ? shared : 0);
      there[i * dim + j] = own * (Math.sqrt(keep) * persons[who] + Math.sqrt(1 - keep) * anew[who]) +
        picture + Math.sqrt(same) * noise + Math.sqrt(1 - same) * another + (isMoved ? otherShared : 0);
    }
  }
  return { x: { n, dim, data }, other: { n, dim, data: there }, design: { labels, person, scene } };
}
