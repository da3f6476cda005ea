/** What a test says of a run, and the InputEnvelope that the platform would make of it. */
import { randomUUID } from "node:crypto";
import type { Plugin } from "../define-plugin.ts";
import { type Attachment, ENVELOPE_VERSION, type InputEnvelope, type KnowledgeChunk, type Turn } from "../envelopes.ts";

export interface RunOptions {
  task: string;
  /** Default `test-tenant-1`. */
  tenantId?: string;
  userId?: string | null;
  taskId?: string;
  userProfile?: Record<string, unknown>;
  history?: Turn[];
  knowledge?: KnowledgeChunk[];
  pluginConfig?: Record<string, unknown>;
  /** As the tenant has set them; the platform passes on only those that the manifest declares. */
  secrets?: Record<string, string>;
  attachments?: Attachment[];
  priority?: "low" | "normal" | "high";
  sourcePlugin?: string;
  deadline?: Date;
  /** Aborting it hangs up, as the platform does when the task is cancelled. `run` then rejects. */
  signal?: AbortSignal;
}

export function inputOf({ manifest }: Plugin, options: RunOptions): InputEnvelope {
  const declared = Object.entries(options.secrets ?? {}).filter(([name]) => manifest.required_secret_names.includes(name));
  return {
    task_id: options.taskId ?? `task_${randomUUID()}`,
    task_description: options.task,
    envelope_version: ENVELOPE_VERSION,
    context: {
      tenant_id: options.tenantId ?? "test-tenant-1",
      user_id: options.userId ?? null,
      user_profile: options.userProfile ?? {},
      conversation_history: options.history ?? [],
      org_knowledge_chunks: options.knowledge ?? [],
      plugin_config: options.pluginConfig ?? {},
      secrets: Object.fromEntries(declared),
    },
    metadata: {
      source_channel: "api",
      priority: options.priority ?? "normal",
      source_plugin: options.sourcePlugin ?? null,
      correlation_id: `cor_${randomUUID()}`,
      timestamp: new Date().toISOString(),
    },
    attachments: options.attachments ?? [],
  };
}
