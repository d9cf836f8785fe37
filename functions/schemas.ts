/**
 * The service's wire formats as zod schemas: the one source of validation, of the types and of the OpenAPI document.
 * An id that fits no folder name is refused here, before it reaches a store.
 */
import { z } from "zod";
import { type StoredProbe, storedProbeSchema } from "../core/probe/stored.ts";

/** A probe's id: it is a folder name too, so nothing that could climb or hide fits. */
export const probeIdSchema = z.string()
  .regex(/^[a-z0-9](\.?[a-z0-9_-])*$/, "1 to 64 of a-z, 0-9, underscore, hyphen and single dots inside")
  .max(64, "at most 64 characters");

export const hashSchema = z.string().regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits in lower case")
  .describe("a sha256");

/** `?fpr=` of the routes that score. */
export const scoreQuerySchema = z.object({
  fpr: z.enum(["0.01", "0.001"]).default("0.01").describe(
    "the share of unseen people's pictures that may be flagged",
  ),
});

const modelSchema = storedProbeSchema.shape.model;

/** What turns a picture into the probe's activations. */
export const encoderKindSchema = z.enum(["onnx", "upstream"]);

export const probeSummarySchema = z.object({
  id: probeIdSchema,
  bundle: hashSchema.describe("the version: the sha256 of the manifest"),
  title: z.string(),
  mode: storedProbeSchema.shape.mode,
  model: modelSchema,
  content: z.string().describe("what private content the probe looks for, in words"),
  primary: z.string().describe("the feature that decides, named before any result was seen"),
  layers: z.number().int(),
  encoder: encoderKindSchema,
}).meta({ id: "ProbeSummary" });
export const probeListSchema = z.object({ probes: z.array(probeSummarySchema) }).meta({ id: "ProbeList" });
export type ProbeList = z.infer<typeof probeListSchema>;

export const limitsSchema = z.object({
  bodyBytes: z.number().int().describe("largest image file"),
  pixels: z.number().int().describe("largest picture, width times height"),
  scans: z.number().int().describe("most passes over a progressive JPEG"),
  batchImages: z.number().int().describe("most images of one batch"),
  rows: z.number().int().describe("most rows of activations"),
  formats: z.array(z.enum(["png", "jpeg", "webp"])),
}).meta({ id: "Limits" });

export const probeDescriptionSchema = storedProbeSchema.extend({
  bundle: hashSchema,
  encoder: encoderKindSchema,
  calibrated: z.boolean().describe("whether every layer holds a calibration"),
  limits: limitsSchema,
}).meta({ id: "Probe" });
export type ProbeDescription = z.infer<typeof probeDescriptionSchema>;

const share = z.number().min(0).max(1);

export const layerScoreSchema = z.object({
  feature: z.string(),
  site: z.string(),
  reduction: z.string(),
  score: z.number().describe('log-odds of "seen in training", as fitted'),
  probability: share.describe(
    "calibrated on people left out of the fit, else the logistic function of the score",
  ),
  calibrated: z.boolean(),
  interval: z.object({ low: share, high: share, level: z.literal(0.95) }).nullable().describe(
    "for the calibrated probability, over redraws of the people it was calibrated on",
  ),
  z: z.number().nullable().describe(
    "deviations of the score above the mean of held-out unseen people's pictures",
  ),
  threshold: z.number().nullable().describe("log-odds above which a picture is flagged at the chosen fpr"),
  flagged: z.boolean().nullable().describe("null where no threshold could be set"),
  beyond: z.boolean().describe(
    "the picture lies beyond those that the probe has seen: better give no answer",
  ),
}).meta({ id: "LayerScore" });
export type LayerScore = z.infer<typeof layerScoreSchema>;

export const decisionSchema = z.object({
  answer: z.enum(["flagged", "not-flagged", "abstain"]),
  feature: z.string().describe("the layer that decides"),
  agreement: share.nullable().describe("share of the layers that can answer and give this answer"),
  reason: z.enum(["no-threshold", "beyond-support", "no-evidence"]).nullable().describe("of an abstention"),
  detail: z.string().describe("the same in a sentence"),
}).meta({ id: "Decision" });

/** What is said of one row of activations, wherever they come from. */
const judged = {
  decision: decisionSchema,
  layers: z.array(layerScoreSchema),
  primary: layerScoreSchema.describe("the layer of the feature that was named before any result was seen"),
};
const fprSchema = z.union([z.literal(0.01), z.literal(0.001)]);

export const scoreSchema = z.object({
  probe: probeIdSchema,
  bundle: hashSchema,
  fpr: fprSchema,
  image: z.object({
    sha256: hashSchema,
    width: z.number().int(),
    height: z.number().int(),
    format: z.enum(["png", "jpeg", "webp"]),
  }),
  ...judged,
  model: modelSchema,
  timings_ms: z.object({ decode: z.number(), encode: z.number(), score: z.number() }),
}).meta({ id: "Score" });
export type Score = z.infer<typeof scoreSchema>;

/** The answer to a caller's own activations. */
export const activationScoresSchema = z.object({
  probe: probeIdSchema,
  bundle: hashSchema,
  fpr: fprSchema,
  model: modelSchema,
  rows: z.array(z.object(judged)),
}).meta({ id: "ActivationScores" });
export type ActivationScores = z.infer<typeof activationScoresSchema>;

/** RFC 9457, with the request id as an extension member. */
export const problemSchema = z.object({
  type: z.string().startsWith("/problems/"),
  title: z.string(),
  status: z.number().int(),
  detail: z.string(),
  request_id: z.string(),
}).meta({ id: "Problem" });
export type ProblemDocument = z.infer<typeof problemSchema>;

/** One line of a batch sent as NDJSON. */
export const batchItemSchema = z.strictObject({
  name: z.string().max(200).optional().describe("given back with the answer"),
  image: z.string().min(1).meta({ contentEncoding: "base64", description: "the image file in base64" }),
}).meta({ id: "BatchItem" });

/** One line of a batch's answer: the score or the problem of the image at this place. */
export const batchLineSchema = z.object({
  index: z.number().int().min(0),
  name: z.string().nullable(),
  score: scoreSchema.optional(),
  problem: problemSchema.optional(),
}).meta({ id: "BatchLine" });
export type BatchLine = z.infer<typeof batchLineSchema>;

/** PUT's JSON body: moves the alias to a version that is stored already. */
export const aliasSchema = z.strictObject({ bundle: hashSchema }).meta({ id: "Alias" });

export const storedAnswerSchema = z.object({
  id: probeIdSchema,
  bundle: hashSchema,
  previous: hashSchema.nullable().describe("what the id stood for before"),
}).meta({ id: "Stored" });
export type StoredAnswer = z.infer<typeof storedAnswerSchema>;

export const healthSchema = z.object({
  status: z.literal("ok"),
  afterimage: z.string(),
  queue: z.object({ running: z.number(), waiting: z.number(), places: z.number() }),
}).meta({ id: "Health" });

export const readySchema = z.object({ status: z.literal("ready"), probes: z.number().int() }).meta({
  id: "Ready",
});

/** What a list tells of a probe. */
export function summarize(
  { id, bundle, title, mode, model, content, primary, layers, encoder }: Summarized,
): z.infer<typeof probeSummarySchema> {
  return { id, bundle, title, mode, model, content, primary, layers: layers.length, encoder };
}
type Summarized = StoredProbe & { bundle: string; encoder: z.infer<typeof encoderKindSchema> };
