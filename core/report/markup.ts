/**
 * HTML by tagged template: whatever is put in is escaped, unless it is markup made the same way.
 * There is no other way in, so a name or caption cannot become an element.
 */
export interface Markup {
  readonly kind: "markup";
  readonly text: string;
}
export type Part = Markup | string | number | undefined | false | Part[];

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
export const escapeText = (text: string): string => text.replace(/[&<>"']/g, (char) => ESCAPES[char]);

/** Markup from a trusted maker, such as a chart. */
export const raw = (text: string): Markup => ({ kind: "markup", text });

function render(part: Part): string {
  if (part === undefined || part === false) return "";
  if (Array.isArray(part)) return part.map(render).join("");
  return typeof part === "object" ? part.text : escapeText(String(part));
}

/** Markup with escaped holes; arrays are joined, `undefined` and `false` leave nothing. */
export function markup(strings: TemplateStringsArray, ...parts: Part[]): Markup {
  return raw(strings.map((text, i) => text + (i < parts.length ? render(parts[i]) : "")).join(""));
}

/** A page that stands alone. @param style CSS, from a trusted maker */
export function page(title: string, style: string, body: Part): string {
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${raw(style)}</style>
</head>
<body>
<main>
${body}
</main>
</body>
</html>
`.text;
}

/** A table that scrolls inside itself where the page is too narrow; cells that start like numbers do not wrap. */
export function table(head: string[], rows: Part[][], caption: string): Markup {
  const cell = (part: Part, i: number): Markup => {
    if (i === 0) return markup`<th scope="row">${part}</th>`;
    const isNumber = typeof part === "string" && /^[−+]?[\d.]/.test(part);
    return isNumber ? markup`<td class="number">${part}</td>` : markup`<td>${part}</td>`;
  };
  return markup`<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table>
<caption>${caption}</caption>
<thead><tr>${head.map((name) => markup`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>
${rows.map((row) => markup`<tr>${row.map(cell)}</tr>\n`)}</tbody></table></div>`;
}
