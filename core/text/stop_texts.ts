/**
 * Texts at which a generated one ends: where the first of them starts, and what may be shown before more comes.
 * An empty stop text, which is everywhere, is the caller's to refuse.
 */

/** Where the first stop text in `text` starts, -1 without one. */
export function firstStop(text: string, stops: readonly string[]): number {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length ? Math.min(...found) : -1;
}

/** How many characters of `text`, which holds no stop text, cannot be part of one that is still to come. */
export function settledLength(text: string, stops: readonly string[]): number {
  const longest = Math.max(0, ...stops.map(({ length }) => length - 1));
  for (let at = Math.max(0, text.length - longest); at < text.length; at++) {
    if (stops.some((stop) => stop.startsWith(text.slice(at)))) return at;
  }
  return text.length;
}
