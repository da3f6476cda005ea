/** One plugin has a part of its work done by another: what is asked, and the lines of the answer. */
import * as v from "valibot";
import { ArtifactRef, Attachment, ErrorCause, JsonObject, RetryAfterSeconds, Warning } from "./envelopes.ts";

export const ChainRequest = v.strictObject({
  command: v.pipe(v.string(), v.minLength(1), v.maxLength(10_000)),
  attachments: v.optional(v.pipe(v.array(Attachment), v.maxLength(20)), []),
  /** How often this execution has asked exactly this before, from 1: a later attempt finds the answer by it. */
  occurrence: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_000)), 1),
  /** What this execution has left. A length, not an hour: two machines' clocks may differ. */
  time_left_ms: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3_600_000))),
});
export type ChainRequest = v.InferInput<typeof ChainRequest>;

export const ChainResult = v.object({
  plugin: v.string(),
  version: v.string(),
  status: v.picklist(["success", "partial"]),
  result: v.string(),
  data: v.nullable(JsonObject),
  artifacts: v.array(ArtifactRef),
  confidence: v.number(),
  next_steps: v.array(v.string()),
  warnings: v.array(Warning),
  /** By this plugin and all that it chained. */
  tokens_used: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});
export type ChainResult = v.InferOutput<typeof ChainResult>;

/** `alive` comes every 5 s while the other plugin works; `ended` or `failed` is the last line. */
export const ChainLine = v.variant("type", [
  v.object({ type: v.literal("alive") }),
  v.object({ type: v.literal("ended"), ...ChainResult.entries }),
  v.object({ type: v.literal("failed"), code: v.string(), message: v.string(), cause: ErrorCause, retry_after_seconds: v.optional(v.nullable(RetryAfterSeconds)) }),
]);
export type ChainLine = v.InferOutput<typeof ChainLine>;
