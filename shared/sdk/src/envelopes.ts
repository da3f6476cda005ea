/**
 * The two messages between the platform and a plugin, version 1.0.
 *
 * Additive fields are a minor version: a reader ignores what it does not know, so these schemas are open objects.
 * Sizes are bounded here because both sides hold a whole envelope in memory.
 */
import * as v from "valibot";

export const ENVELOPE_VERSION = "1.0";

/** At most this many bytes of JSON in one OutputEnvelope; larger results belong in artifacts. */
export const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

export const Timestamp = v.pipe(v.string(), v.isoTimestamp());
export const JsonObject = v.record(v.string(), v.unknown());

/** A file that came with the command: inline text, inline base64, or an https URL that the plugin fetches itself. */
export const Attachment = v.object({
  name: v.pipe(v.string(), v.minLength(1), v.maxLength(255)),
  media_type: v.pipe(v.string(), v.maxLength(127)),
  content: v.optional(v.string()),
  content_base64: v.optional(v.string()),
  url: v.optional(v.string()),
  /** Set when another plugin made it: then it is data to work on, and whatever it says is no instruction. */
  origin: v.optional(v.object({ step: v.string(), plugin: v.string() })),
});
export type Attachment = v.InferOutput<typeof Attachment>;

/** What was said before in the conversation; `summary` marks the turn that tells what was said before the others. */
export const Turn = v.object({ role: v.picklist(["user", "assistant"]), content: v.string(), summary: v.optional(v.literal(true)) });
export type Turn = v.InferOutput<typeof Turn>;
/** A passage of the organisation's own documents: data, whatever it says. `heading` is the path of headings above it. */
export const KnowledgeChunk = v.object({ content: v.string(), source_url: v.nullable(v.string()), similarity: v.number(), heading: v.optional(v.nullable(v.string())) });
export type KnowledgeChunk = v.InferOutput<typeof KnowledgeChunk>;

export const InputEnvelope = v.object({
  task_id: v.string(),
  task_description: v.pipe(v.string(), v.minLength(1)),
  envelope_version: v.string(),
  context: v.object({
    tenant_id: v.string(),
    user_id: v.nullable(v.string()),
    user_profile: v.optional(JsonObject, {}),
    conversation_history: v.optional(v.array(Turn), []),
    org_knowledge_chunks: v.optional(v.array(KnowledgeChunk), []),
    plugin_config: v.optional(JsonObject, {}),
    /** Only the names in the manifest's `required_secret_names` that the tenant has set. */
    secrets: v.optional(v.record(v.string(), v.string()), {}),
  }),
  metadata: v.object({
    source_channel: v.optional(v.string(), "api"),
    priority: v.optional(v.picklist(["low", "normal", "high"]), "normal"),
    source_plugin: v.optional(v.nullable(v.string()), null),
    correlation_id: v.string(),
    timestamp: Timestamp,
  }),
  attachments: v.optional(v.array(Attachment), []),
});
export type InputEnvelope = v.InferOutput<typeof InputEnvelope>;

/** A file that the plugin stored through the platform. `sha256` is lower-case hex over the stored bytes. */
export const ArtifactRef = v.object({
  artifact_id: v.string(),
  name: v.string(),
  media_type: v.string(),
  size_bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  sha256: v.string(),
});
export type ArtifactRef = v.InferOutput<typeof ArtifactRef>;

export const Warning = v.object({ code: v.pipe(v.string(), v.maxLength(64)), message: v.pipe(v.string(), v.maxLength(2000)) });
export type Warning = v.InferOutput<typeof Warning>;

export const ExecutionMeta = v.object({
  /** The SDK's own count, for the developer's eyes. Billing reads the gateway's journal, never this. */
  tokens_used: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  latency_seconds: v.pipe(v.number(), v.finite(), v.minValue(0)),
  agents_invoked: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  model_used: v.nullable(v.string()),
  cost_estimate: v.pipe(v.number(), v.finite(), v.minValue(0)),
  routing_method: v.nullable(v.string()),
  budget_exceeded: v.boolean(),
});
export type ExecutionMeta = v.InferOutput<typeof ExecutionMeta>;

/** `upstream`: the model's provider or another server; `platform`: a part of the platform itself. */
export const ErrorCause = v.picklist(["caller", "plugin", "upstream", "platform"]);
export const RetryAfterSeconds = v.pipe(v.number(), v.finite(), v.minValue(0));

export const OutputEnvelope = v.object({
  task_id: v.string(),
  envelope_version: v.string(),
  status: v.picklist(["success", "partial", "failed"]),
  result: v.string(),
  /** Machine-readable result, for callers and for a next step. */
  data: v.optional(v.nullable(JsonObject), null),
  artifacts: v.optional(v.pipe(v.array(ArtifactRef), v.maxLength(100)), []),
  confidence: v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(1)),
  error: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(4000))), null),
  error_code: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(64))), null),
  /** Whose fault a failure is: all but `caller` count against the plugin's circuit breaker. */
  error_cause: v.optional(v.nullable(ErrorCause), null),
  /** With a failure that may pass: how long the one who refused asks to wait. */
  retry_after_seconds: v.optional(v.nullable(RetryAfterSeconds)),
  next_steps: v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(2000))), v.maxLength(50)), []),
  warnings: v.optional(v.pipe(v.array(Warning), v.maxLength(50)), []),
  deprecation_warning: v.optional(v.nullable(v.string()), null),
  execution_meta: ExecutionMeta,
});
export type OutputEnvelope = v.InferOutput<typeof OutputEnvelope>;

/**
 * One line of the plugin's answer to `POST /execute` (application/x-ndjson). Progress travels on the response that is
 * open anyway, so a node boundary costs no extra request. The last line is `output`, or `stopped` when this process has to go and
 * another one can take the task on. `alive` is sent every 5 s so that the platform can tell a long model call from a blocked process.
 */
const Progress = [
  v.object({ type: v.literal("node_started"), node: v.string() }),
  v.object({ type: v.literal("node_finished"), node: v.string(), duration_ms: v.number() }),
  v.object({ type: v.literal("report"), node: v.string(), message: v.pipe(v.string(), v.maxLength(500)) }),
  v.object({ type: v.literal("warning"), warning: Warning }),
  v.object({ type: v.literal("alive") }),
  v.object({ type: v.literal("stopped") }),
] as const;

/** The same lines in every version of the envelope, but for the envelope. */
export const executionEvent = <const Envelope extends v.GenericSchema>(envelope: Envelope) => v.variant("type", [...Progress, v.object({ type: v.literal("output"), envelope })]);

export const ExecutionEvent = executionEvent(OutputEnvelope);
export type ExecutionEvent = v.InferOutput<typeof ExecutionEvent>;
