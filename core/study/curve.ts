/**
 * A training curve for a reader: means over windows instead of every step. It refuses nothing.
 */

/** At most 60 points, each the mean loss of a stretch of steps under its last one. */
export function smoothLosses(
  metrics: readonly { step: number; loss: number }[],
): { step: number; loss: number }[] {
  const width = Math.max(1, Math.ceil(metrics.length / 60));
  return Array.from({ length: Math.ceil(metrics.length / width) }, (_, i) => {
    const part = metrics.slice(i * width, (i + 1) * width);
    return { step: part.at(-1)!.step, loss: part.reduce((sum, { loss }) => sum + loss, 0) / part.length };
  });
}
