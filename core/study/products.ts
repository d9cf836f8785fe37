/**
 * How alike two vectors are, from four sums over their elements: cosine, ratio of norms, distance. Sums over parts add
 * up to those of the whole; a vector of zeros has neither cosine nor ratio.
 */

export interface InnerProducts {
  /** a . b */
  ab: number;
  /** |a|^2 */
  aa: number;
  /** |b|^2 */
  bb: number;
  /** |a - b|^2 */
  dd: number;
}

export const ZERO_PRODUCTS: InnerProducts = { ab: 0, aa: 0, bb: 0, dd: 0 };

/** Of the parts laid end to end. */
export function sumProducts(parts: readonly InnerProducts[]): InnerProducts {
  return parts.reduce(
    (sum, { ab, aa, bb, dd }) => ({ ab: sum.ab + ab, aa: sum.aa + aa, bb: sum.bb + bb, dd: sum.dd + dd }),
    ZERO_PRODUCTS,
  );
}

/**
 * Cosine of a and b; undefined when either is zero. Above a half it is worked out from what the two differ by, as
 * 1 - (|a - b|^2 - (|a| - |b|)^2) / (2 |a| |b|), which keeps the digits of nearly equal gradients.
 */
export function cosineOf({ ab, aa, bb, dd }: InnerProducts): number | undefined {
  if (!(aa > 0 && bb > 0)) return undefined;
  const a = Math.sqrt(aa), b = Math.sqrt(bb), plain = ab / (a * b);
  const cosine = plain > 0.5 ? 1 - (dd - (a - b) ** 2) / (2 * a * b) : plain;
  return Math.max(-1, Math.min(1, cosine));
}

/** |a| / |b|; undefined when either is zero. */
export function normRatio({ aa, bb }: InnerProducts): number | undefined {
  return aa > 0 && bb > 0 ? Math.sqrt(aa / bb) : undefined;
}
