/**
 * The page at /docs: the OpenAPI document as plain HTML, made here, without a script and without anything from elsewhere.
 * It shows what the document says and nothing more.
 */
import { html, raw } from "hono/html";
import type { OpenApiDocument, Operation } from "./openapi.ts";

type Json = Record<string, unknown>;
type Markup = ReturnType<typeof html>;

export const docsStyle = `:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif;
  --page: #fbfaf8; --text: #22242a; --accent: #1d5c8c; }
@media (prefers-color-scheme: dark) { :root { --page: #15171b; --text: #e7e6e2; --accent: #7fb8e6; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--text); }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.875em; }
code { overflow-wrap: anywhere; }
td code { overflow-wrap: normal; }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
nav a { display: inline-block; padding: 0.2rem 0; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid #8886; border-radius: 0.375rem; }
section { border-top: 1px solid #8886; padding: 0.5rem 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
`;

const refName = (schema: Json): string => String(schema.$ref ?? "").split("/").at(-1)!;

function typeOf(content: unknown): Markup[] {
  return Object.entries(content as Record<string, { schema: Json; itemSchema?: Json }> ?? {}).map(
    ([type, { schema, itemSchema }]) => {
      const name = refName(itemSchema ?? schema), [kind, form] = type.split("/"); // a line may break between them
      return html`
        <code>${kind}/<wbr>${form}</code>${name
          ? html`
            <a href="#${name}">${name}</a>
          `
          : ""}
      `;
    },
  );
}

/** A parameter in words: "string, one of 0.01, 0.001; 0.01 unless told". */
function parameter({ name, in: place, schema: given, description }: Json): Markup {
  const schema = given as Json, choices = schema.enum as string[] | undefined;
  const facts = [
    choices ? `${schema.type}, one of ${choices.join(", ")}` : String(schema.type),
    ...(schema.maxLength === undefined ? [] : [`at most ${schema.maxLength} characters`]),
    ...(schema.default === undefined ? [] : [`${schema.default} unless told`]),
  ];
  const about = description ?? schema.description;
  return html`<p>${place} <code>${name}</code>: ${about ? `${about}; ` : ""}${facts.join("; ")}${
    schema.pattern ? html`; <code>${schema.pattern}</code>` : ""
  }</p>`;
}

function operation(
  path: string,
  method: string,
  { summary, description, security, ...rest }: Operation,
): Markup {
  const scope = security.flatMap((need) => Object.values(need).flat()).join(", ");
  return html`<section id="${rest.operationId}">
<h3><code>${method.toUpperCase()} ${path}</code></h3>
<p>${summary}. ${description ?? ""} ${scope ? html`Needs an API key (${scope}).` : ""}</p>
${(rest.parameters ?? []).map(parameter)}
${rest.requestBody ? html`<p>Body: ${typeOf(rest.requestBody.content)}</p>` : ""}
<table><thead><tr><th scope="col">status</th><th scope="col">meaning</th><th scope="col">body</th></tr></thead><tbody>
${
    Object.entries(rest.responses).map(([status, answer]) =>
      html`
        <tr>
          <td>${status}</td>
          <td>${answer.description}</td>
          <td>${typeOf(answer.content)}</td>
        </tr>
      `
    )
  }
</tbody></table></section>`;
}

/** The document as a page. */
export function docsPage({ info, paths, components }: OpenApiDocument): Markup {
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, what]) => ({ path, method, what }))
  );
  return html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>${info.title} ${info.version}: the HTTP interface</title>
        <link rel="icon" href="/page/icon.svg" type="image/svg+xml">
        <link rel="stylesheet" href="/docs/style.css">
      </head>
      <body>
        <main><h1>${info.title} ${info.version}</h1><p>${info.description}</p>
    <p>The same as a document for tools: <a href="/openapi.json">/openapi.json</a>. Pictures can be asked about on
    <a href="/">the page</a>.</p>
    <nav aria-label="On this page"><ul>
    ${routes.map(({ path, method, what }) =>
      html`<li><a href="#${what.operationId}"><code>${method.toUpperCase()} ${path}</code></a></li>`
    )}
    <li><a href="#schemas">Schemas</a></li></ul></nav>
    <h2>Routes</h2>
    ${routes.map(({ path, method, what }) => operation(path, method, what))}
    <h2 id="schemas">Schemas</h2>
    ${Object.entries(components.schemas).map(([name, schema]) =>
      html`
        <section id="${name}">
          <h3>${name}</h3>
          <pre tabindex="0">${JSON.stringify(schema, null, 2)}</pre>
        </section>
      `
    )}
        </main>
      </body>
    </html>${raw("\n")}
  `;
}
