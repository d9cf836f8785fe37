/**
 * What a module needs while it runs: the tape, the taps, and a seed for dropout. `at("layers.3")` names where it is,
 * so that tap sites and dropout seeds follow the module tree.
 */
import { hash32, hashText } from "../../core/random.ts";
import type { Tape } from "../tape.ts";
import type { Taps } from "../taps.ts";
import type { Tensor } from "../tensor.ts";

export class Forward {
  constructor(
    readonly tape: Tape,
    /** Undefined while a checkpointed part runs again: it was tapped the first time. */
    readonly taps?: Taps,
    /** 0 switches dropout off: evaluation. Otherwise fixed by run seed, step and micro-batch. */
    readonly dropoutSeed = 0,
    readonly path = "",
  ) {}

  /** The same under a longer name. */
  at(name: string): Forward {
    return new Forward(this.tape, this.taps, this.dropoutSeed, this.path ? `${this.path}.${name}` : name);
  }

  /** Shows a value to whoever asked for this site; an edit may replace it. */
  tap(site: string, x: Tensor): Tensor {
    return this.taps ? this.taps.visit(this.path ? `${this.path}.${site}` : site, x, this.tape) : x;
  }

  /** Runs a block that is computed again in backward instead of being kept, or plainly when nothing asks for it. */
  checkpoint(x: Tensor, enabled: boolean, block: (forward: Forward, x: Tensor) => Tensor): Tensor {
    if (!enabled) return block(this, x);
    return this.tape.checkpoint(
      [x],
      (tape, [x], again) =>
        block(new Forward(tape, again ? this.taps?.editsOnly() : this.taps, this.dropoutSeed, this.path), x),
    );
  }

  /** The dropout seed of a named layer in this step. */
  seedFor(name: string): number {
    return hash32(this.dropoutSeed, Number(hashText(name) & 0xffffffffn));
  }
}
