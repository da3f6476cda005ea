/**
 * The two messages between the platform and a plugin, version 2.0. What 1.0 leaves open, 2.0 cannot say wrongly:
 *
 * - A failure is one object, there exactly when the status is `failed`; in 1.0 three fields may contradict each other and the status.
 * - A result is one object too, and may stand beside an error: what was done before the failure.
 * - `inputs` have exactly one source each, where an attachment of 1.0 may carry none, or three that differ.
 * - `usage` holds what a plugin can know. Prices and routing, which 1.0 asks for, only the platform knows.
 *
 * Open objects and bounded sizes, as in 1.0.
 */
import * as v from "valibot";
import { ArtifactRef, ErrorCause, JsonObject, KnowledgeChunk, RetryAfterSeconds, Timestamp, Turn, Warning } from "./envelopes.ts";

const Version = v.pipe(v.string(), v.regex(/^2\.\d{1,4}$/, "must be a version 2 envelope"));
const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const InputSource = v.variant("type", [
  v.object({ type: v.literal("text"), text: v.string() }),
  v.object({ type: v.literal("base64"), data: v.string() }),
  v.object({ type: v.literal("url"), url: v.string() }),
]);

export const InputFile = v.object({
  name: v.pipe(v.string(), v.minLength(1), v.maxLength(255)),
  media_type: v.pipe(v.string(), v.maxLength(127)),
  source: InputSource,
  /** Set when another plugin made it: then it is data to work on, and whatever it says is no instruction. */
  origin: v.optional(v.nullable(v.object({ step: v.string(), plugin: v.string() })), null),
});

export const InputEnvelope2 = v.object({
  envelope_version: Version,
  task: v.object({
    id: v.string(),
    description: v.pipe(v.string(), v.minLength(1)),
    priority: v.optional(v.picklist(["low", "normal", "high"]), "normal"),
    source_channel: v.optional(v.string(), "api"),
    source_plugin: v.optional(v.nullable(v.string()), null),
    correlation_id: v.string(),
    created_at: Timestamp,
  }),
  context: v.object({
    tenant_id: v.string(),
    user: v.object({ id: v.nullable(v.string()), profile: v.optional(JsonObject, {}) }),
    conversation: v.optional(v.array(Turn), []),
    knowledge: v.optional(v.array(KnowledgeChunk), []),
    config: v.optional(JsonObject, {}),
    /** Only the names in the manifest's `required_secret_names` that the tenant has set. */
    secrets: v.optional(v.record(v.string(), v.string()), {}),
  }),
  inputs: v.optional(v.array(InputFile), []),
});
export type InputEnvelope2 = v.InferOutput<typeof InputEnvelope2>;

const Result = v.object({
  text: v.string(),
  /** Machine-readable result, for callers and for a next step. */
  data: v.optional(v.nullable(JsonObject), null),
  confidence: v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(1)),
  next_steps: v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(2000))), v.maxLength(50)), []),
});

const Failure = v.object({
  code: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  message: v.pipe(v.string(), v.minLength(1), v.maxLength(4000)),
  cause: ErrorCause,
  retry_after_seconds: v.optional(v.nullable(RetryAfterSeconds), null),
});

const common = {
  envelope_version: Version,
  task_id: v.string(),
  artifacts: v.optional(v.pipe(v.array(ArtifactRef), v.maxLength(100)), []),
  warnings: v.optional(v.pipe(v.array(Warning), v.maxLength(50)), []),
  /** The SDK's own count, for the developer's eyes. Billing reads the gateway's journal, never this. */
  usage: v.object({
    tokens: Count,
    duration_ms: Count,
    nodes_run: Count,
    model: v.nullable(v.string()),
    budget_exceeded: v.boolean(),
  }),
};

export const OutputEnvelope2 = v.variant("status", [
  v.object({ ...common, status: v.picklist(["success", "partial"]), result: Result, error: v.optional(v.null(), null) }),
  v.object({ ...common, status: v.literal("failed"), result: v.optional(v.nullable(Result), null), error: Failure }),
]);
export type OutputEnvelope2 = v.InferOutput<typeof OutputEnvelope2>;
