/**
 * What the client throws when the service says no, or cannot be reached or understood.
 * A caller branches on its status and on the problem document's `type`.
 */
import type { ProblemDocument } from "./schemas.ts";

export interface Refusal {
  /** 0 where there was no whole answer. */
  status: number;
  problem?: ProblemDocument;
  /** What the answer's Retry-After asks for; 0 without one. */
  retryAfterMs?: number;
  /** Whether another try may end otherwise. */
  passing: boolean;
  cause?: unknown;
}

export class ServiceError extends Error {
  override name = "ServiceError";
  readonly status: number;
  readonly problem?: ProblemDocument;
  readonly retryAfterMs: number;
  readonly passing: boolean;
  constructor(message: string, { status, problem, retryAfterMs = 0, passing, cause }: Refusal) {
    super(message, { cause });
    [this.status, this.problem, this.retryAfterMs, this.passing] = [status, problem, retryAfterMs, passing];
  }
}
