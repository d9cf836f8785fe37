/**
 * Neutral text for the control beside private text: everyday words in lines as long as a person's lines.
 * It names nobody, no place and no time, and has no digits.
 */
import type { Random } from "../random.ts";

const WORDS = `
  table window cloud river paper bottle garden pencil basket carpet candle button mirror ladder kettle blanket
  pillow hammer bucket curtain drawer engine feather glove handle island jacket kitchen lantern meadow needle
  orchard pebble quilt ribbon saddle towel umbrella valley wagon yarn zipper bread chalk dust fence grain hinge
  iron jar kite lamp moss nail oven plank rope sand tin vase wool anchor bench copper donkey echo fabric
`.trim().split(/\s+/);

/** For each line another of the same length, from words drawn without names: one control block for one person's. */
export function neutralLines(random: Random, like: readonly string[]): string[] {
  return like.map((line) => {
    let text = random.pick(WORDS);
    while (text.length < line.length) text += ` ${random.pick(WORDS)}`;
    // A cut that ends in a space would be a shorter line to the eye.
    return text.slice(0, line.length).replace(/ $/, "s");
  });
}
