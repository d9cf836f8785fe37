/**
 * Python's `strip`, `lstrip` and `rstrip` with an argument, for templates: the Jinja library strips white space whatever
 * it is told, so such calls in a parsed template become calls of a function of ours.
 */

interface Node {
  type?: string;
  value?: unknown;
  callee?: Node & { object?: Node; property?: Node; computed?: boolean };
  args?: Node[];
}

/** The name under which `stripOfPython` must be given to the template. */
export const STRIP_NAME = "strip_of_python";

/** Rewrites calls `text.strip(characters)` anywhere in a parsed template. */
export function rewriteStrips(node: unknown): void {
  if (typeof node !== "object" || node === null) return;
  const values = node instanceof Map ? [...node].flat() : Object.values(node);
  values.forEach(rewriteStrips);
  const call = node as Node, { callee, args } = call;
  const method = callee?.type === "MemberExpression" && !callee.computed ? callee.property?.value : undefined;
  if (call.type !== "CallExpression" || args?.length !== 1) return;
  if (method !== "strip" && method !== "lstrip" && method !== "rstrip") return;
  call.args = [callee!.object!, { type: "StringLiteral", value: method }, args[0]];
  call.callee = { type: "Identifier", value: STRIP_NAME };
}

/** Takes characters of a set away from the ends of a text, as Python does; `null` stands for white space. */
export function stripOfPython(text: string, method: string, characters: string | null): string {
  if (characters === null) {
    return method === "lstrip" ? text.trimStart() : method === "rstrip" ? text.trimEnd() : text.trim();
  }
  const letters = Array.from(text), gone = new Set(characters);
  let from = 0, to = letters.length;
  if (method !== "rstrip") { while (from < to && gone.has(letters[from])) from++; }
  if (method !== "lstrip") { while (to > from && gone.has(letters[to - 1])) to--; }
  return letters.slice(from, to).join("");
}
