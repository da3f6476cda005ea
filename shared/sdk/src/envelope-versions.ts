/**
 * Which envelopes are spoken, and how one becomes the other. The platform and the SDK hold an execution in one form, that of 1.0, on
 * both sides of the wire; only what travels has the version that the plugin's manifest names. All adapters are pure.
 */
import type { Attachment, InputEnvelope, OutputEnvelope } from "./envelopes.ts";
import type { InputEnvelope2, OutputEnvelope2 } from "./envelopes-2.ts";

/** The current version first, then the one of the earlier major that is still spoken. */
export const ENVELOPE_VERSIONS = ["2.0", "1.0"] as const;
export type EnvelopeVersion = (typeof ENVELOPE_VERSIONS)[number];
export const CURRENT_ENVELOPE_VERSION: EnvelopeVersion = ENVELOPE_VERSIONS[0];

export const majorOf = (version: string): string => version.split(".")[0] ?? "";

/** What a caller is told whose plugin speaks an older envelope than the platform; null for the current one. */
export function deprecationOf(plugin: { name: string; version: string; envelope_version: string }): string | null {
  if (majorOf(plugin.envelope_version) === majorOf(CURRENT_ENVELOPE_VERSION)) return null;
  return `${plugin.name} ${plugin.version} speaks envelope ${plugin.envelope_version}; the platform speaks ${CURRENT_ENVELOPE_VERSION} and will stop accepting the older one.`;
}

export function inputTo2({ task_id, task_description, context, metadata, attachments }: InputEnvelope): InputEnvelope2 {
  return {
    envelope_version: "2.0",
    task: {
      id: task_id,
      description: task_description,
      priority: metadata.priority,
      source_channel: metadata.source_channel,
      source_plugin: metadata.source_plugin,
      correlation_id: metadata.correlation_id,
      created_at: metadata.timestamp,
    },
    context: {
      tenant_id: context.tenant_id,
      user: { id: context.user_id, profile: context.user_profile },
      conversation: context.conversation_history,
      knowledge: context.org_knowledge_chunks,
      config: context.plugin_config,
      secrets: context.secrets,
    },
    inputs: attachments.map(({ name, media_type, origin, ...file }) => ({ name, media_type, source: sourceOf(file), origin: origin ?? null })),
  };
}

/** The first that is there; an attachment without any is an empty text. */
function sourceOf({ content, content_base64, url }: Omit<Attachment, "name" | "media_type" | "origin">): InputEnvelope2["inputs"][number]["source"] {
  if (content === undefined && content_base64 !== undefined) return { type: "base64", data: content_base64 };
  if (content === undefined && url !== undefined) return { type: "url", url };
  return { type: "text", text: content ?? "" };
}

export function inputTo1({ task, context, inputs }: InputEnvelope2): InputEnvelope {
  return {
    task_id: task.id,
    task_description: task.description,
    envelope_version: "1.0",
    context: {
      tenant_id: context.tenant_id,
      user_id: context.user.id,
      user_profile: context.user.profile,
      conversation_history: context.conversation,
      org_knowledge_chunks: context.knowledge,
      plugin_config: context.config,
      secrets: context.secrets,
    },
    metadata: {
      source_channel: task.source_channel,
      priority: task.priority,
      source_plugin: task.source_plugin,
      correlation_id: task.correlation_id,
      timestamp: task.created_at,
    },
    attachments: inputs.map(({ name, media_type, source, origin }) => ({
      name,
      media_type,
      ...(source.type === "text" ? { content: source.text } : source.type === "base64" ? { content_base64: source.data } : { url: source.url }),
      ...(origin && { origin }),
    })),
  };
}

export function outputTo2(output: OutputEnvelope): OutputEnvelope2 {
  const { execution_meta: meta } = output;
  const common = {
    envelope_version: "2.0",
    task_id: output.task_id,
    artifacts: output.artifacts,
    warnings: output.warnings,
    usage: {
      tokens: meta.tokens_used,
      duration_ms: Math.round(meta.latency_seconds * 1000),
      nodes_run: meta.agents_invoked,
      model: meta.model_used,
      budget_exceeded: meta.budget_exceeded,
    },
  };
  const result = { text: output.result, data: output.data, confidence: output.confidence, next_steps: output.next_steps };
  if (output.status !== "failed") return { ...common, status: output.status, result, error: null };
  const hasResult = output.result !== "" || output.data !== null || output.next_steps.length > 0;
  return {
    ...common,
    status: "failed",
    result: hasResult ? result : null,
    error: {
      code: output.error_code || "INTERNAL",
      message: output.error || "The plugin failed without saying why.",
      cause: output.error_cause ?? "plugin",
      retry_after_seconds: output.retry_after_seconds ?? null,
    },
  };
}

export function outputTo1(output: OutputEnvelope2): OutputEnvelope {
  const { usage, error } = output;
  const result = output.result ?? { text: "", data: null, confidence: 0, next_steps: [] };
  return {
    task_id: output.task_id,
    envelope_version: "1.0",
    status: output.status,
    result: result.text,
    data: result.data,
    artifacts: output.artifacts,
    confidence: result.confidence,
    error: error?.message ?? null,
    error_code: error?.code ?? null,
    error_cause: error?.cause ?? null,
    ...(error && error.retry_after_seconds !== null && { retry_after_seconds: error.retry_after_seconds }),
    next_steps: result.next_steps,
    warnings: output.warnings,
    deprecation_warning: null,
    execution_meta: {
      tokens_used: usage.tokens,
      latency_seconds: usage.duration_ms / 1000,
      agents_invoked: usage.nodes_run,
      model_used: usage.model,
      cost_estimate: 0,
      routing_method: null,
      budget_exceeded: usage.budget_exceeded,
    },
  };
}
