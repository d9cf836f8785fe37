/**
 * Seeded randomness: one generator (PCG-XSH-RR 64/32, O'Neill 2014) and streams split from it by name.
 * Nothing in Afterimage draws from Math.random or the clock; two streams with different names never share state.
 */
const MULTIPLIER = 6364136223846793005n;
const MASK = 0xffff_ffff_ffff_ffffn;

/** 64-bit FNV-1a of a text, to turn stream names into seeds. */
export function hashText(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
  return hash;
}

/** A 32-bit hash of small integers (Murmur3's finaliser), the same on the CPU and in `dropout.wgsl`. */
export function hash32(...words: number[]): number {
  let h = 0x9e3779b9;
  for (const word of words) {
    h = Math.imul(h ^ (word >>> 0), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h = (h ^ (h >>> 16)) >>> 0;
  }
  return h >>> 0;
}

/** A stream of random numbers, fixed by a seed and by the names it was split with. */
export class Random {
  #hi: number;
  #lo: number;
  #incHi: number;
  #incLo: number;

  /** @param seed any integer; the stream is the same on every machine */
  constructor(readonly seed: number | bigint, readonly path = "") {
    const increment = ((hashText(path) << 1n) | 1n) & MASK;
    const state = ((BigInt(seed) + increment) * MULTIPLIER + increment) & MASK;
    [this.#hi, this.#lo] = [Number(state >> 32n), Number(state & 0xffffffffn)];
    [this.#incHi, this.#incLo] = [Number(increment >> 32n), Number(increment & 0xffffffffn)];
    this.uint32();
  }

  /** An independent stream: the same seed, a longer name. */
  split(...names: (string | number)[]): Random {
    return new Random(this.seed, [this.path, ...names].join("/"));
  }

  /** A uniform integer in [0, 2^32). */
  uint32(): number {
    const hi = this.#hi, lo = this.#lo;
    // state * MULTIPLIER + increment in 32-bit halves (0x5851f42d, 0x4c957f2d).
    const product = mul64(lo, 0x4c957f2d);
    const low = product.lo + this.#incLo;
    this.#lo = low >>> 0;
    const carry = low > 0xffffffff ? 1 : 0;
    this.#hi = (product.hi + Math.imul(hi, 0x4c957f2d) + Math.imul(lo, 0x5851f42d) + this.#incHi + carry) >>>
      0;
    const xorHi = (hi ^ (hi >>> 18)) >>> 0;
    const xorLo = (lo ^ ((lo >>> 18) | (hi << 14))) >>> 0;
    const word = ((xorHi << 5) | (xorLo >>> 27)) >>> 0;
    const turn = hi >>> 27;
    return ((word >>> turn) | (word << ((32 - turn) & 31))) >>> 0;
  }

  /** A uniform number in [0, 1) with 53 random bits. */
  float(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  /** A uniform number in [low, high). */
  uniform(low: number, high: number): number {
    return low + (high - low) * this.float();
  }

  /** A uniform integer in [0, n), without bias. @throws RangeError unless n is in 1..2^32 */
  int(n: number): number {
    if (!(n >= 1 && n <= 2 ** 32)) throw new RangeError(`Cannot draw an integer below ${n}: need 1 to 2^32`);
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = this.uint32();
      if (word < limit) return word % n;
    }
  }

  /** A standard normal number (Box-Muller, one of the pair). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.float())) * Math.cos(2 * Math.PI * this.float());
  }

  /** One element, uniformly. */
  pick<T>(items: readonly T[]): T {
    return items[this.int(items.length)];
  }

  /** A new array in random order (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.int(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}

/** The 64-bit product of two 32-bit integers, in halves. */
function mul64(a: number, b: number): { hi: number; lo: number } {
  const aLo = a & 0xffff, aHi = a >>> 16, bLo = b & 0xffff, bHi = b >>> 16;
  const low = aLo * bLo;
  const middle = aHi * bLo + (low >>> 16);
  const middleLow = (middle & 0xffff) + aLo * bHi;
  const hi = (aHi * bHi + Math.floor(middle / 65536) + Math.floor(middleLow / 65536)) >>> 0;
  return { hi, lo: (((middleLow & 0xffff) << 16) | (low & 0xffff)) >>> 0 };
}
