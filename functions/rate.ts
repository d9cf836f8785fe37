/**
 * How often one key or one address may ask: token buckets in memory, or the binding that Workers bring.
 * It refuses with the seconds after which another try can succeed, and forgets whoever has been quiet.
 */

export interface RateLimiter {
  /** 0 when the request may pass, else the seconds to wait. */
  take(who: string): Promise<number>;
}

export interface RateOptions {
  /** Requests a minute in the long run. */
  perMinute: number;
  /** Requests at once after a quiet time. */
  burst: number;
  now?: () => number;
}

const MOST_BUCKETS = 10_000;

/** A bucket for each caller; of the quietest are forgotten first. */
export function tokenBuckets({ perMinute, burst, now = Date.now }: RateOptions): RateLimiter {
  const buckets = new Map<string, { tokens: number; at: number }>();
  const perMs = perMinute / 60_000;
  return {
    take(who) {
      const time = now(), { tokens, at } = buckets.get(who) ?? { tokens: burst, at: time };
      const full = Math.min(burst, tokens + (time - at) * perMs), passes = full >= 1;
      buckets.delete(who); // so that the map stays ordered by the last request
      buckets.set(who, { tokens: passes ? full - 1 : full, at: time });
      if (buckets.size > MOST_BUCKETS) buckets.delete(buckets.keys().next().value!);
      return Promise.resolve(passes ? 0 : Math.max(1, Math.ceil((1 - full) / perMs / 1000)));
    },
  };
}

/** The part of Workers' ratelimit binding that is used here. */
export interface RateBinding {
  limit(options: { key: string }): Promise<{ success: boolean }>;
}

/** @param seconds the binding's period in wrangler.toml */
export const bindingLimiter = (binding: RateBinding, seconds: number): RateLimiter => ({
  take: async (who) => (await binding.limit({ key: who })).success ? 0 : seconds,
});
