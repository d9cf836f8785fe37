/**
 * The OpenAPI 3.1 document, made from the zod schemas that also validate and type: one source.
 * It names every status that a route can answer with; what is not in it is a fault of the service.
 */
import { z } from "zod";
import { VERSION } from "../core/formats/manifest.ts";
import { SAFETENSORS_TYPE } from "./activations.ts";
import { NDJSON } from "./batch.ts";
import { MULTIPART } from "./body.ts";
import { IMAGE_TYPES } from "./image_body.ts";
import * as wire from "./schemas.ts";

type Json = Record<string, unknown>;
export interface Operation {
  operationId: string;
  summary: string;
  tags: string[];
  description?: string;
  security: Json[];
  parameters?: Json[];
  requestBody?: Json;
  responses: Record<string, Json>;
}
export interface OpenApiDocument {
  openapi: "3.1.0";
  info: Json;
  servers: Json[];
  tags: Json[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Json>; securitySchemes: Json };
}

const NAMED = {
  ProbeSummary: wire.probeSummarySchema,
  ProbeList: wire.probeListSchema,
  Limits: wire.limitsSchema,
  Probe: wire.probeDescriptionSchema,
  LayerScore: wire.layerScoreSchema,
  Decision: wire.decisionSchema,
  Score: wire.scoreSchema,
  ActivationScores: wire.activationScoresSchema,
  Problem: wire.problemSchema,
  BatchItem: wire.batchItemSchema,
  BatchLine: wire.batchLineSchema,
  Alias: wire.aliasSchema,
  Stored: wire.storedAnswerSchema,
  Health: wire.healthSchema,
  Ready: wire.readySchema,
};
type Name = keyof typeof NAMED;
/** What clients send: there a default makes a field optional. */
const SENT: Name[] = ["BatchItem", "Alias"];

function componentSchemas(): Record<string, Json> {
  const refs = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(NAMED)) refs.add(schema, { id });
  const convert = (io: "input" | "output") =>
    z.toJSONSchema(refs, { io, uri: (id) => `#/components/schemas/${id}` }).schemas;
  const output = convert("output"), input = convert("input");
  return Object.fromEntries(
    Object.keys(NAMED).map((id) => {
      const { $id: _, $schema: __, ...schema } = (SENT.includes(id as Name) ? input : output)[id] as Json;
      return [id, schema];
    }),
  );
}

function plainSchema(schema: z.ZodType): Json {
  const { $schema: _, ...plain } = z.toJSONSchema(schema, { io: "input" }) as Json;
  return plain;
}

const ref = (name: Name): Json => ({ $ref: `#/components/schemas/${name}` });
const binary: Json = { type: "string", contentMediaType: "application/octet-stream" };
const content = (type: string, schema: Json): Json => ({ [type]: { schema } });

const WHY: Record<number, string> = {
  401: "No API key, or none that is valid",
  403: "The API key lacks the scope",
  404: "Nothing is stored under this id",
  408: "The body took too long to arrive",
  409: "The probe was not put here over HTTP",
  413: "The body or the picture is too large",
  415: "The body is of a type that is not taken",
  422: "The request or the image cannot be used",
  429: "Too many requests",
  500: "The service failed",
  502: "The host with the GPU gave no usable answer",
  503: "The service is busy or cannot answer; Retry-After says when it may",
  504: "The encoder took too long",
};

function problems(...statuses: number[]): Record<string, Json> {
  return Object.fromEntries(statuses.map((status) => {
    const retry = [429, 503].includes(status)
      ? { headers: { "Retry-After": { description: "seconds", schema: { type: "integer" } } } }
      : {};
    return [status, {
      description: WHY[status],
      ...retry,
      content: content("application/problem+json", ref("Problem")),
    }];
  }));
}

const ok = (name: Name, description: string): Json => ({
  description,
  content: content("application/json", ref(name)),
});

const ID: Json = { name: "id", in: "path", required: true, schema: plainSchema(wire.probeIdSchema) };
const FPR: Json = {
  name: "fpr",
  in: "query",
  required: false,
  schema: plainSchema(wire.scoreQuerySchema.shape.fpr),
  description: wire.scoreQuerySchema.shape.fpr.description,
};

const image: Json = {
  required: true,
  content: {
    ...Object.fromEntries(IMAGE_TYPES.map((type) => [type, { schema: binary }])),
    ...content(MULTIPART, { type: "object", required: ["image"], properties: { image: binary } }),
  },
};

const KEYED = [401, 429], BODY = [408, 413, 415, 422], ENCODER = [500, 502, 503, 504];

/** The document of this host. @param keys whether it asks for API keys */
export function openApiDocument({ keys }: { keys: boolean }): OpenApiDocument {
  const needs = (scope: string): Json[] => keys ? [{ key: [scope] }] : [];
  const free: Json[] = [];
  const score = (operationId: string, summary: string, requestBody: Json, answer: Json): Operation => ({
    operationId,
    summary,
    tags: ["scores"],
    security: needs("score"),
    parameters: [ID, FPR],
    requestBody,
    responses: { 200: answer, ...problems(...KEYED, 403, 404, ...BODY, ...ENCODER) },
  });
  return {
    openapi: "3.1.0",
    info: {
      title: "Afterimage",
      version: VERSION,
      description: "What a vision-language model remembers of private content in its fine-tuning images: " +
        "an image in, per-layer scores out. A high score for one picture is no proof that its person was seen.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    tags: [{ name: "scores" }, { name: "probes" }, { name: "admin" }, { name: "host" }],
    paths: {
      "/v1/probes": {
        get: {
          operationId: "listProbes",
          summary: "The stored probes",
          tags: ["probes"],
          security: needs("any"),
          responses: { 200: ok("ProbeList", "The probes"), ...problems(...KEYED, 500) },
        },
      },
      "/v1/probes/{id}": {
        get: {
          operationId: "getProbe",
          summary: "All that is stored of a probe but its weights",
          tags: ["probes"],
          security: needs("any"),
          parameters: [ID],
          responses: { 200: ok("Probe", "The probe"), ...problems(...KEYED, 404, 422, 500) },
        },
        put: {
          operationId: "putProbe",
          summary: "Store a bundle under an id, or move the id to a version that is stored already",
          description: "A form's fields are the bundle's files, named as in it, manifest.json first.",
          tags: ["admin"],
          security: needs("admin"),
          parameters: [ID],
          requestBody: {
            required: true,
            content: {
              ...content(MULTIPART, {
                type: "object",
                required: ["manifest.json"],
                properties: { "manifest.json": binary },
                additionalProperties: binary,
              }),
              ...content("application/json", ref("Alias")),
            },
          },
          responses: {
            200: ok("Stored", "The id stands for another version now"),
            201: ok("Stored", "The id is new"),
            ...problems(...KEYED, 403, 404, ...BODY, 500, 503),
          },
        },
        delete: {
          operationId: "deleteProbe",
          summary: "Forget an id; its versions stay",
          tags: ["admin"],
          security: needs("admin"),
          parameters: [ID],
          responses: { 204: { description: "Forgotten" }, ...problems(...KEYED, 403, 404, 409, 422, 500) },
        },
      },
      "/v1/probes/{id}/score": {
        post: score("scoreImage", "Score an image", image, ok("Score", "The scores")),
      },
      "/v1/probes/{id}/batch": {
        post: score("scoreBatch", "Score many images, the answers streamed in order", {
          required: true,
          content: {
            [NDJSON]: {
              schema: { ...binary, description: "one BatchItem a line" },
              itemSchema: ref("BatchItem"),
            },
            ...content(MULTIPART, { type: "object", additionalProperties: binary }),
          },
        }, {
          description: "One BatchLine a line; an image that is refused spoils its own line alone",
          content: { [NDJSON]: { schema: { type: "string" }, itemSchema: ref("BatchLine") } },
        }),
      },
      "/v1/probes/{id}/activations": {
        post: score("scoreActivations", "Score activations that you extracted yourself", {
          required: true,
          description: "For each feature of the probe a tensor (D) or (rows, D)",
          content: { ...content(SAFETENSORS_TYPE, binary), ...content("application/octet-stream", binary) },
        }, ok("ActivationScores", "The scores of each row")),
      },
      "/v1/probes/{id}/encode": {
        post: {
          ...score("encodeImage", "The activations of an image, for another host to score", image, {
            description: "One tensor (D) a feature; metadata probe and model",
            content: content(SAFETENSORS_TYPE, binary),
          }),
          parameters: [ID],
        },
      },
      "/healthz": host("health", "Whether the process answers", ok("Health", "It does")),
      "/readyz": host("ready", "Whether the store can be read", ok("Ready", "It can"), problems(503)),
      "/metrics": {
        get: {
          operationId: "metrics",
          summary: "Counters in Prometheus' text format",
          tags: ["host"],
          security: needs("any"),
          responses: {
            200: { description: "The counters", content: content("text/plain", { type: "string" }) },
            ...problems(...KEYED),
          },
        },
      },
      "/openapi.json": host("openapi", "This document", {
        description: "OpenAPI 3.1",
        content: content("application/json", { type: "object" }),
      }),
    },
    components: {
      schemas: componentSchemas(),
      securitySchemes: keys ? { key: { type: "http", scheme: "bearer" } } : {},
    },
  };

  function host(operationId: string, summary: string, answer: Json, more: Record<string, Json> = {}) {
    return {
      get: { operationId, summary, tags: ["host"], security: free, responses: { 200: answer, ...more } },
    };
  }
}
