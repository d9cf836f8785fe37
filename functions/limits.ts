/**
 * What one request may cost; every number can be set by the host.
 * Memory is bounded by the bodies under way together, for pictures are decoded in their turn alone.
 */
export interface Limits {
  /** Of one image. */
  bodyBytes: number;
  /** From a body's first byte to its last; in a batch or a bundle, between one piece and the next. */
  bodyMs: number;
  /** Width times height. */
  pixels: number;
  /** From the request's turn to its activations, the wait in the queue included. */
  encodeMs: number;
  /** Pieces of work on the encoder at once, and requests that may be under way beside them. */
  concurrent: number;
  waiting: number;
  /** Of all bodies under way together. */
  heldBytes: number;
  batchImages: number;
  batchBytes: number;
  /** Of a file of activations, and its rows. */
  activationBytes: number;
  rows: number;
  /** Of one file of a bundle, and of a whole bundle. */
  bundleBytes: number;
}

export const LIMITS: Limits = {
  bodyBytes: 8_000_000,
  bodyMs: 30_000,
  pixels: 4_000_000,
  encodeMs: 60_000,
  concurrent: 1,
  waiting: 63,
  heldBytes: 128_000_000,
  batchImages: 1000,
  batchBytes: 1_000_000_000,
  activationBytes: 32_000_000,
  rows: 1000,
  bundleBytes: 64_000_000,
};
