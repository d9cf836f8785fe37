/**
 * numpy's legacy `RandomState` (MT19937, Matsumoto & Nishimura 1998) as far as scikit-learn's splits draw from it.
 * It exists to reproduce published splits; everything else in Afterimage draws from core/random.ts.
 */
const N = 624, M = 397;

export interface RandomState {
  /** 32 random bits. */
  uint32(): number;
  /** A new array in random order, as `RandomState.permutation`. */
  permutation(items: ArrayLike<number>): Int32Array;
}

/** The generator that `numpy.random.RandomState(seed)` starts. @throws RangeError unless 0 <= seed < 2^32 */
export function randomState(seed: number): RandomState {
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
    throw new RangeError(`Cannot seed MT19937 with ${seed}: need an integer from 0 to 2^32 - 1`);
  }
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) {
    const last = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(last, 1812433253) + i;
  }
  let next = N;

  function twist(): void {
    for (let i = 0; i < N; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
      state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    next = 0;
  }
  function uint32(): number {
    if (next === N) twist();
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }
  /** Uniform in 0..max by masking and rejecting, which is how numpy's `shuffle` draws. */
  function interval(max: number): number {
    const mask = 0xffffffff >>> Math.clz32(max);
    for (;;) {
      const value = (uint32() & mask) >>> 0;
      if (value <= max) return value;
    }
  }
  return {
    uint32,
    permutation(items) {
      const out = Int32Array.from(items);
      for (let i = out.length - 1; i > 0; i--) {
        const j = interval(i);
        [out[i], out[j]] = [out[j], out[i]];
      }
      return out;
    },
  };
}
