/**
 * Which modules an adapter's configuration means, by peft's own rules: targets, exclusions, layers, patterns of rank and
 * alpha, modules trained whole. Refuses combinations that peft refuses and patterns that are no regular expression.
 */
import { InputError } from "../errors.ts";
import type { LoraConfig } from "./peft.ts";

/** A pattern in Python's notation, compiled. @throws InputError when it is none that this language has too */
function compile(pattern: string, before: string, after: string): RegExp {
  const translated = pattern.replaceAll("(?P<", "(?<").replaceAll("(?P=", "\\k<").replaceAll("\\Z", "$")
    .replaceAll("\\A", "^");
  try {
    return new RegExp(`${before}(?:${translated})${after}`);
  } catch {
    throw new InputError(`Cannot match modules by "${pattern}": expected a regular expression`);
  }
}

/** Python's re.fullmatch. */
const matchesWhole = (pattern: string, module: string) => compile(pattern, "^", "$").test(module);

/** A string is a regular expression for the whole name, a list holds names or their ends. */
function isNamed(module: string, names: string | readonly string[]): boolean {
  if (typeof names === "string") return matchesWhole(names, module);
  return names.some((name) => module === name || module.endsWith(`.${name}`));
}

export const isAllLinear = ({ target_modules: target }: Pick<LoraConfig, "target_modules">): boolean =>
  typeof target === "string" && target.toLowerCase() === "all-linear";

/** Whether an adapter goes beside this module; `all-linear` is true for any module that it does not exclude. */
export function isTarget(module: string, config: LoraConfig): boolean {
  const { target_modules: target, exclude_modules: excluded, modules_to_save: saved } = config;
  if (excluded && excluded.length && isNamed(module, excluded)) return false;
  if (saved?.some((name) => compile(name, "^(?:.*\\.)?", "(?:$|\\.)").test(module))) return false;
  if (isAllLinear(config)) return true;
  if (typeof target === "string") return matchesWhole(target, module);
  // A name in full is meant whatever its layer.
  return target.includes(module) || isNamed(module, target) && isLayer(module, config);
}

/** Whether the module lies in one of layers_to_transform: the first number in its name, or the one behind a pattern. */
function isLayer(
  module: string,
  { layers_to_transform: layers, layers_pattern: lists }: LoraConfig,
): boolean {
  if (layers === null || layers === undefined || Array.isArray(layers) && layers.length === 0) return true;
  const patterns = typeof lists === "string" ? (lists ? [lists] : []) : lists ?? [];
  const found = patterns.length
    ? patterns.map((list) => module.match(compile(list, "^(?:.*?\\.)?", "\\.(\\d+)\\."))).find(Boolean)
    : module.match(/^.*?\.[^.]*\.(\d+)\./);
  if (!found) return false;
  const index = Number(found.at(-1));
  return Array.isArray(layers) ? layers.includes(index) : layers === index;
}

/** Whether modules_to_save means this module: peft compares the end of its name, without regard to dots. */
export function isSaved(module: string, { modules_to_save: saved }: LoraConfig): boolean {
  return saved?.some((name) => module.endsWith(name)) ?? false;
}

/** Rank of the adapter beside a module and what its product is multiplied by. */
export function rankOf(module: string, config: LoraConfig): { r: number; alpha: number; scaling: number } {
  const r = patterned(module, config.rank_pattern) ?? config.r;
  const alpha = patterned(module, config.alpha_pattern) ?? config.lora_alpha;
  return { r, alpha, scaling: alpha / (config.use_rslora ? Math.sqrt(r) : r) };
}

/** The value of the first pattern that the end of a name matches. */
function patterned(module: string, patterns: Record<string, number> | undefined): number | undefined {
  for (const [pattern, value] of Object.entries(patterns ?? {})) {
    if (compile(pattern, "^(?:.*\\.)?", "$").test(module)) return value;
  }
  return undefined;
}

/** @throws InputError for settings that exclude each other, as peft does */
export function checkRules(config: LoraConfig, path: string): void {
  const { target_modules: target, layers_to_transform: layers, layers_pattern: lists } = config;
  const refuse = (why: string) => new InputError(`Cannot use "${path}": ${why}`);
  if (typeof target === "string" && layers !== null && layers !== undefined) {
    throw refuse("layers_to_transform needs target_modules to be a list of names");
  }
  if (lists && lists.length && (layers === null || layers === undefined)) {
    throw refuse("layers_pattern is of use with layers_to_transform only");
  }
  if (config.modules_to_save?.includes("")) throw refuse("modules_to_save holds an empty name");
}
