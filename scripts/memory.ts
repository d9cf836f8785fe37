/**
 * How much memory a run may take: what the user says, the machine's free memory where the adapter computes in it, or
 * what a well-known card is sold with. WebGPU itself does not tell; where nothing is known, nothing is refused.
 */
export interface Budget {
  bytes: number;
  /** Where the number comes from, for messages. */
  source: string;
}

/** GB of cards that come with one size only. */
const CARDS: [RegExp, number][] = [
  [/H200/, 141],
  [/RTX (3090|4090)|\bA10G?\b|\bL4\b|RX 7900 XTX/, 24],
  [/RTX 5090/, 32],
  [/RTX (4080|5080)|Tesla T4|\bT4\b/, 16],
  [/RTX (4070|5070)(?! Ti SUPER| Ti)/, 12],
  [/L40S?|RTX 6000 Ada|RTX A6000|\bA40\b/, 48],
];

/** The driver and the display keep some of a card for themselves. */
const SHARE = 0.92;

/** @param gigabytes what the user said; undefined is returned where the memory is not known */
export function memoryBudget(
  { name, isCpu }: { name: string; isCpu: boolean },
  gigabytes?: number,
): Budget | undefined {
  if (gigabytes !== undefined) return { bytes: gigabytes * 1e9, source: "--memory" };
  if (isCpu || /^Apple M\d/.test(name)) {
    return { bytes: Deno.systemMemoryInfo().available, source: "free memory of this machine" };
  }
  const named = Number(/(\d+) ?GB/.exec(name)?.[1]) || CARDS.find(([pattern]) => pattern.test(name))?.[1];
  if (!named) return undefined;
  return { bytes: SHARE * named * 2 ** 30, source: `${SHARE * 100} % of what a "${name}" is sold with` };
}
