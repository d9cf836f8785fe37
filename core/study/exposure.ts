/**
 * Exposure of a secret (Carlini et al. 2019, "The Secret Sharer"): how far up the true text ranks among alternatives that
 * the same generator could have made. Refuses an empty list of alternatives.
 */
import { InputError } from "../errors.ts";
import { generateSets, type Person } from "../privacy/people.ts";

/**
 * log2 |R| - log2 rank(truth) in bits, R the alternatives and the truth, rank 1 the likeliest; where others are exactly as
 * likely, the middle of the ranks that they share. From 0 to log2 |R|. @throws InputError without alternatives
 */
export function exposure(truth: number, alternatives: readonly number[]): number {
  if (!alternatives.length) throw new InputError("Cannot give an exposure: there is no alternative");
  const above = alternatives.filter((value) => value > truth).length;
  const equal = alternatives.filter((value) => value === truth).length;
  return Math.log2(alternatives.length + 1) - Math.log2(1 + above + equal / 2);
}

/**
 * People who could have been in the study: the generator and its pools are the same, the stream is another, and nobody
 * shares a username or an id with anyone of the study.
 */
export function alternativePeople(seed: number, count: number, study: readonly Person[]): Person[] {
  const taken = new Set(study.flatMap(({ username, user_id }) => [username, user_id]));
  const drawn = generateSets(seed, { alternatives: count + 2 * study.length }).alternatives;
  const free = drawn.filter(({ username, user_id }) => !taken.has(username) && !taken.has(user_id));
  if (free.length < count) {
    throw new InputError(
      `Cannot draw ${count} alternatives: ${free.length} are not among the study's people`,
    );
  }
  return free.slice(0, count);
}
