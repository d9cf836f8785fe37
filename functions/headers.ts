/**
 * The security headers of every answer: nothing may be framed, sniffed, cached or loaded from elsewhere.
 * The pages made for people may load style, script and pictures from here, and no other address may load anything.
 */
import type { MiddlewareHandler } from "hono";
import { secureHeaders } from "hono/secure-headers";

const NONE = ["'none'"], SELF = ["'self'"];
const shut = { defaultSrc: NONE, frameAncestors: NONE, baseUri: NONE, formAction: NONE };
const page = {
  ...shut,
  scriptSrc: SELF,
  styleSrc: SELF,
  imgSrc: ["'self'", "blob:", "data:"],
  connectSrc: SELF,
};

/** Paths that are pages, by their first part. */
const PAGES = /^\/(?:$|docs$|page\/)/;

export function securityHeaders(): MiddlewareHandler {
  const forData = secureHeaders({ contentSecurityPolicy: shut });
  const forPages = secureHeaders({ contentSecurityPolicy: page });
  return async (c, next) => {
    await (PAGES.test(c.req.path) ? forPages : forData)(c, next);
    c.res.headers.set("cache-control", "no-store");
  };
}
