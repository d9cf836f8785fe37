/**
 * The page at `/` and its files, as text modules that every host bundles.
 * They load nothing from elsewhere and hold no inline script or style, so the strictest policy fits them.
 */
import type { Env, Hono } from "hono";
import chartJs from "./page/chart.js" with { type: "text" };
import icon from "./page/icon.svg" with { type: "text" };
import html from "./page/index.html" with { type: "text" };
import css from "./page/page.css" with { type: "text" };
import pageJs from "./page/page.js" with { type: "text" };
import wordsJs from "./page/words.js" with { type: "text" };

const SCRIPT = "text/javascript; charset=utf-8";
const FILES: Record<string, readonly [text: string, type: string]> = {
  "/": [html, "text/html; charset=utf-8"],
  "/page/page.css": [css, "text/css; charset=utf-8"],
  "/page/page.js": [pageJs, SCRIPT],
  "/page/chart.js": [chartJs, SCRIPT],
  "/page/words.js": [wordsJs, SCRIPT],
  "/page/icon.svg": [icon, "image/svg+xml"],
};

/** Adds the page's routes. */
export function addPage<E extends Env>(app: Hono<E>): void {
  for (const [path, [text, type]] of Object.entries(FILES)) {
    app.get(path, (c) => c.body(text, 200, { "content-type": type }));
  }
}
