/**
 * The service's wire formats as zod schemas: the one source of validation, of the types and of what the tests expect.
 * An id that fits no folder name is refused here, before it reaches a store.
 */
import { z } from "zod";
import { type StoredProbe, storedProbeSchema } from "../core/probe/stored.ts";

/** A probe's id: it is a folder name too, so nothing that could climb or hide fits. */
export const probeIdSchema = z.string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, "1 to 64 of a-z, 0-9, dot, underscore and hyphen, no dot first")
  .refine((id) => !id.includes(".."), "no two dots in a row");

const modelSchema = storedProbeSchema.shape.model;

export const probeSummarySchema = z.object({
  id: probeIdSchema,
  title: z.string(),
  mode: storedProbeSchema.shape.mode,
  model: modelSchema,
  content: z.string(),
  primary: z.string(),
  layers: z.number().int(),
});
export const probeListSchema = z.object({ probes: z.array(probeSummarySchema) });
export type ProbeList = z.infer<typeof probeListSchema>;

export const layerScoreSchema = z.object({
  feature: z.string(),
  site: z.string(),
  reduction: z.string(),
  /** Log-odds of "seen in training", as fitted. */
  score: z.number(),
  /** Calibrated on people left out of the fit, else the logistic function of the score. */
  probability: z.number().min(0).max(1),
  calibrated: z.boolean(),
  /** The picture lies beyond those that the probe has seen: better give no answer. */
  beyond: z.boolean(),
});
export type LayerScore = z.infer<typeof layerScoreSchema>;

export const scoreSchema = z.object({
  probe: probeIdSchema,
  image: z.object({
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    width: z.number().int(),
    height: z.number().int(),
    format: z.enum(["png", "jpeg", "webp"]),
  }),
  layers: z.array(layerScoreSchema),
  /** The layer of the feature that was named before any result was seen. */
  primary: layerScoreSchema,
  model: modelSchema,
  timings_ms: z.object({ decode: z.number(), encode: z.number(), score: z.number() }),
});
export type Score = z.infer<typeof scoreSchema>;

export const healthSchema = z.object({
  status: z.literal("ok"),
  afterimage: z.string(),
  queue: z.object({ running: z.number(), waiting: z.number(), places: z.number() }),
});

/** RFC 9457, with the request id as an extension member. */
export const problemSchema = z.object({
  type: z.string().startsWith("/problems/"),
  title: z.string(),
  status: z.number().int(),
  detail: z.string(),
  request_id: z.string(),
});
export type ProblemDocument = z.infer<typeof problemSchema>;

/** What a list tells of a probe. */
export function summarize(probe: StoredProbe): z.infer<typeof probeSummarySchema> {
  const { id, title, mode, model, content, primary, layers } = probe;
  return { id, title, mode, model, content, primary, layers: layers.length };
}
