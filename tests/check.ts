/**
 * What every test file shares: comparing arrays with a relative error, and the paths of the fixtures.
 */
import assert from "node:assert/strict";

/** ||ours - theirs|| / ||theirs||, the relative error used everywhere in this project. */
export function relativeError(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  assert.equal(ours.length, theirs.length, "lengths differ");
  let difference = 0, norm = 0;
  for (let i = 0; i < ours.length; i++) {
    difference += (ours[i] - theirs[i]) ** 2;
    norm += theirs[i] ** 2;
  }
  return Math.sqrt(difference) / (Math.sqrt(norm) || 1);
}

/** Fails when the relative error of whole arrays exceeds `rel`, naming what differs. */
export function allclose(
  what: string,
  ours: ArrayLike<number>,
  theirs: ArrayLike<number>,
  rel: number,
): void {
  for (let i = 0; i < ours.length; i++) assert(Number.isFinite(ours[i]), `${what}[${i}] is ${ours[i]}`);
  const error = relativeError(ours, theirs);
  assert(error <= rel, `${what}: relative error ${error.toExponential(2)}, allowed ${rel.toExponential(1)}`);
}

/** The folder of committed fixtures. */
export const FIXTURES: string = new URL("./fixtures", import.meta.url).pathname;
