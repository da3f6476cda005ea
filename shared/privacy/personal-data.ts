/**
 * Every place where personal data may stand, and what becomes of it there. Erasure, the look after it, the export and retention are made from
 * this list, and a test holds it against the migrated database and the keys of a running Redis: a column or a family of keys that is not here
 * fails it. It is long because it is one list.
 *
 * Three kinds of columns. `personal` ones hold who a user is, what they wrote, or what was made of it: an erasure takes care of them. What the
 * `organisation` wrote for all of its users stays until the organisation takes it out; documents are its knowledge, whoever sent them, and the row
 * does not say who. `free` ones hold ids, numbers, times and names that we or a plugin's maker chose. An id alone names nobody once its user is gone.
 */

/** How the rows of one user are found. */
export type RowsOf =
  | { by: "user" | "task"; column: string }
  /** A foreign key deletes them with their parent's rows. */
  | { by: "parent"; table: string; column: string };

export interface PersonalRows {
  rows: RowsOf;
  erasure: "deleted" | "emptied" | "pseudonymised";
  /** Whether `GET /v1/gdpr/export` hands them out; `withheld` columns it does not: digests of secrets, vectors, copies. */
  exported: boolean;
  withheld?: readonly string[];
  /** What retention-purge does without anybody asking. `isContent` rows are emptied, or deleted, 90 days after their task began. */
  kept: string;
  isContent?: true;
  /** The columns, each with the SQL value that is left of it. Rows that are deleted need none; a pseudonym is another one for each erasure. */
  columns: Readonly<Record<string, string | null>>;
  /** Those that only say whose the row is: retention leaves them until the row goes. */
  whose?: readonly string[];
}

export interface TableEntry {
  personal?: PersonalRows;
  organisation?: readonly string[];
  free: readonly string[];
}

const gone = (...columns: string[]): Record<string, null> => Object.fromEntries(columns.map((column) => [column, null]));
const nulled = (...columns: string[]): Record<string, string> => Object.fromEntries(columns.map((column) => [column, "NULL"]));
/** Which of our columns a change named, not what it wrote there. */
const NAMES_ONLY = "(SELECT coalesce(jsonb_object_agg(k.name, NULL::text), '{}') FROM jsonb_object_keys(data) k(name))";
const ofTask: RowsOf = { by: "task", column: "task_id" };
const WITH_CONTENT = "90 days, then emptied; 13 months, then deleted with the task";

export const TABLES: Readonly<Record<string, TableEntry>> = {
  tenants: { organisation: ["name", "settings"], free: ["id", "plan_tier", "access_generation", "access_changed_at", "created_at"] },
  users: {
    personal: { rows: { by: "user", column: "id" }, erasure: "deleted", exported: true, kept: "until the user is deleted", columns: gone("id", "email") },
    free: ["tenant_id", "role", "created_at"],
  },
  api_keys: {
    personal: {
      rows: { by: "user", column: "user_id" },
      erasure: "deleted",
      exported: true,
      kept: "90 days after it expired or was revoked",
      columns: gone("user_id", "key_hash", "key_prefix", "description", "last_used_at"),
      withheld: ["key_hash"],
    },
    free: ["id", "tenant_id", "environment", "scopes", "expires_at", "revoked_at", "rotated_to", "created_at"],
  },
  tasks: {
    personal: {
      rows: { by: "task", column: "id" },
      erasure: "emptied",
      exported: true,
      withheld: ["context", "command_embedding", "lease_token"],
      kept: WITH_CONTENT,
      isContent: true,
      whose: ["user_id", "api_key_id", "conversation_id", "traceparent", "request_id"],
      columns: {
        ...nulled("user_id", "api_key_id", "conversation_id", "input", "result", "error", "context", "command_embedding", "input_request", "traceparent"),
        plan: "(SELECT coalesce(jsonb_agg(s.value - 'command' - 'when' - 'inputs' ORDER BY s.ordinality), '[]') FROM jsonb_array_elements(plan) WITH ORDINALITY s)",
        // Callers choose it, within 64 of A-Z, a-z, 0-9, _ and -.
        request_id: "''",
      },
    },
    free: [
      ...["id", "tenant_id", "environment", "plugin_name", "status", "routing_method", "routing_confidence", "priority", "max_cost_micro_usd", "tokens_used", "cost_micro_usd"],
      ...["reserved_period", "overage", "attempt", "hand_backs", "lease_token", "lease_until", "deadline", "cancel_requested_at", "ring_count", "next_ring_at", "event_seq"],
      ...["created_at", "started_at", "completed_at", "command_embedding_model", "fallbacks"],
    ],
  },
  task_steps: {
    personal: { rows: ofTask, erasure: "emptied", exported: true, kept: WITH_CONTENT, isContent: true, columns: { output: "'{}'", error: "NULL" } },
    free: ["task_id", "tenant_id", "step", "plugin_name", "plugin_version", "attempt", "status", "latency_ms", "finished_at", "confidence"],
  },
  task_events: {
    personal: { rows: ofTask, erasure: "deleted", exported: true, kept: "90 days", isContent: true, columns: gone("data") },
    free: ["task_id", "seq", "tenant_id", "type", "at"],
  },
  llm_calls: {
    personal: {
      rows: ofTask,
      erasure: "emptied",
      exported: true,
      kept: WITH_CONTENT,
      isContent: true,
      withheld: ["request_sha256"],
      // The digest of a short question can be guessed. The provider's id leads to what the provider keeps.
      columns: { ...nulled("answer", "error", "provider_request_id"), request_sha256: "id::text" },
    },
    free: [
      ...["id", "task_id", "tenant_id", "step", "call_no", "plugin_name", "node", "occurrence", "attempt", "state", "model", "price_version", "ceiling_micro_usd"],
      ...["cost_micro_usd", "usage", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens", "started_at", "finished_at", "seen_at"],
    ],
  },
  idempotency_keys: {
    personal: { rows: ofTask, erasure: "deleted", exported: false, kept: "24 hours", columns: gone("key", "request_sha256") },
    free: ["tenant_id", "environment", "route", "task_id", "created_at"],
  },
  artifacts: {
    personal: { rows: ofTask, erasure: "deleted", exported: true, kept: "90 days, or what the tenant sets", columns: gone("name", "sha256", "storage_key") },
    free: ["id", "tenant_id", "task_id", "step", "plugin_name", "media_type", "size_bytes", "state", "created_at"],
  },
  // The key is the digest of what one plugin told another.
  chained_steps: {
    personal: { rows: ofTask, erasure: "deleted", exported: false, kept: "an hour after its task", columns: gone("key") },
    free: ["task_id", "parent", "step", "tenant_id", "holder", "attempt", "seen_at", "asked_by"],
  },
  artifact_uploads: {
    personal: {
      rows: { by: "parent", table: "artifacts", column: "artifact_id" },
      erasure: "deleted",
      exported: false,
      kept: "until the object store takes it",
      columns: gone("bytes"),
    },
    free: ["artifact_id", "tenant_id", "task_id", "attempts", "next_attempt_at", "created_at"],
  },
  conversations: {
    personal: {
      rows: { by: "user", column: "user_id" },
      erasure: "deleted",
      exported: true,
      kept: "90 days after the last turn",
      columns: gone("id", "user_id", "name", "summary"),
    },
    free: ["tenant_id", "last_seq", "summarised_through", "summary_model", "open_chars", "summary_due_at", "summary_rings", "created_at", "updated_at"],
  },
  messages: {
    personal: { rows: { by: "parent", table: "conversations", column: "conversation_id" }, erasure: "deleted", exported: true, kept: "90 days", columns: gone("content") },
    free: ["conversation_id", "seq", "tenant_id", "task_id", "role", "chars", "created_at"],
  },
  // A ticket stays as a number with a state; its words go. So do those that a person has written on tickets of others (erase-ticket-changes.ts).
  tickets: {
    personal: {
      rows: { by: "task", column: "source_task" },
      erasure: "emptied",
      exported: true,
      kept: "until it is erased",
      columns: {
        title: "''",
        description: "''",
        ...nulled("assignee", "team", "component", "source_reference"),
        labels: "'{}'",
        fingerprint: "encode(sha256(convert_to(tenant_id || '/' || number, 'UTF8')), 'hex')",
      },
    },
    free: ["tenant_id", "number", "type", "priority", "status", "source_task", "source_plugin", "sla_due_at", "resolved_at", "created_at", "updated_at"],
  },
  ticket_events: {
    personal: { rows: ofTask, erasure: "emptied", exported: true, kept: "until it is erased", columns: { data: NAMES_ONLY } },
    free: ["id", "tenant_id", "number", "type", "task_id", "at"],
  },
  ticket_counters: { free: ["tenant_id", "last_number"] },
  execution_events: {
    personal: { rows: ofTask, erasure: "pseudonymised", exported: true, kept: "13 months", columns: gone("actor_ref") },
    free: [
      ...["id", "tenant_id", "plugin_name", "plugin_version", "task_id", "step", "attempt", "environment", "status", "model", "tokens_used", "input_tokens", "output_tokens"],
      ...["cache_tokens", "latency_ms", "cost_micro_usd", "routing_method", "envelope_version", "billable", "overage", "timestamp"],
    ],
  },
  knowledge_documents: {
    organisation: ["sha256", "source_url", "content", "error"],
    free: [
      ...["id", "tenant_id", "media_type", "bytes", "status", "attempts", "next_attempt_at", "ring_count", "next_ring_at", "lease_token", "lease_until", "edition"],
      ...["embedding_model", "chunk_count", "created_at", "embedded_at"],
    ],
  },
  org_knowledge_chunks: {
    organisation: ["heading", "content", "embedding"],
    free: ["id", "tenant_id", "document_id", "edition", "position", "token_count", "embedding_model", "created_at"],
  },
  tenant_plugin_config: { organisation: ["config"], free: ["id", "tenant_id", "plugin_id", "updated_at", "version"] },
  // Sealed: nobody reads it here, so nobody can search it either.
  tenant_secrets: { organisation: ["secret_value"], free: ["id", "tenant_id", "plugin_name", "secret_name", "key_id", "created_at", "updated_at"] },
  // Sealed as above.
  webhooks: {
    organisation: ["url", "description", "secret", "previous_secret"],
    free: [
      ...["id", "tenant_id", "events", "status", "disabled_reason", "disabled_at", "secret_key_id", "previous_secret_key_id", "previous_secret_until", "failures"],
      ...["failing_since", "resume_at", "last_success_at", "last_failure_at", "next_ring_at", "created_at", "updated_at"],
    ],
  },
  // The body is made from the task's row when it is sent; what the endpoint answered may quote it.
  webhook_deliveries: {
    personal: { rows: ofTask, erasure: "deleted", exported: false, kept: "30 days", columns: gone("event_key", "data") },
    free: [...["id", "webhook_id", "tenant_id", "type", "task_id", "status", "attempts", "tries", "next_attempt_at", "lease_token", "lease_until", "created_at", "finished_at"]],
  },
  webhook_attempts: {
    personal: { rows: { by: "parent", table: "webhook_deliveries", column: "delivery_id" }, erasure: "deleted", exported: false, kept: "30 days", columns: gone("answer") },
    free: ["delivery_id", "attempt", "tenant_id", "at", "status", "ms", "error"],
  },
  subscriptions: { free: ["id", "tenant_id", "plugin_id", "tier", "quota_limit", "overage_enabled", "started_at", "ended_at"] },
  usage_periods: { free: ["tenant_id", "plugin_name", "environment", "period_start", "used", "reserved", "quota_limit", "overage_enabled", "warned"] },
  // Aggregates are kept for seven years; of a key they hold the id alone.
  usage_days: {
    free: [
      ...["id", "tenant_id", "day", "plugin_name", "environment", "api_key_id", "model", "price_version", "invoice_id", "executions", "billable", "overage", "input_tokens"],
      ...["output_tokens", "cache_write_tokens", "cache_read_tokens", "cost_micro_usd", "unbilled_tokens", "unbilled_micro_usd", "unknown_calls", "unknown_micro_usd"],
      "plan_tier",
    ],
  },
  tenant_plans: { free: ["tenant_id", "from_at", "tier"] },
  tenant_billing: { free: ["tenant_id", "closed_until", "invoices"] },
  invoices: {
    organisation: ["tenant_name"],
    free: [
      ...["id", "tenant_id", "number", "period_start", "period_end", "plan_tier", "price_version", "prices", "total_micro_usd", "closed_at", "announced_at", "announce_at"],
      "announce_attempts",
    ],
  },
  invoice_lines: {
    free: [
      ...["invoice_id", "position", "tenant_id", "kind", "plugin_name", "model", "origin", "description", "quantity", "unit", "unit_micro_usd", "amount_micro_usd"],
      ...["price_version", "tokens"],
    ],
  },
  plugins: { free: ["id", "name", "category", "owner_type", "owner_tenant_id", "status", "deprecated_at", "sunset_at", "migration_guide_url", "retired_at", "created_at"] },
  publisher_keys: { free: ["id", "name", "owner_tenant_id", "public_key", "created_at", "expires_at", "revoked_at"] },
  plugin_versions: {
    free: [
      ...["id", "plugin_id", "version", "version_sort", "manifest", "endpoint", "envelope_version", "status", "health", "health_at", "consecutive_unhealthy", "registered_at"],
      ...["image", "admission", "probed_at"],
    ],
  },
  plugin_capabilities: { free: ["plugin_version_id", "position", "capability", "model", "embedding"] },
  // Who did it stands there by id, and the chain allows no change: it holds nothing that somebody wrote.
  audit_log: { free: ["tenant_id", "seq", "at", "actor", "key_ref", "action", "target_type", "target_id", "details", "prev_hash", "hash"] },
  audit_heads: { free: ["tenant_id", "seq", "hash"] },
  registry_state: { free: ["singleton", "generation"] },
  envelope_schemas: { free: ["version", "message", "is_current", "schema", "updated_at"] },
  removed_users: {
    personal: { rows: { by: "user", column: "user_id" }, erasure: "deleted", exported: false, kept: "until the user is erased", columns: gone("user_id") },
    free: ["tenant_id", "removed_at"],
  },
  erasure_requests: {
    personal: {
      rows: { by: "user", column: "user_id" },
      erasure: "emptied",
      exported: false,
      kept: "for good: it says only that somebody was erased",
      columns: nulled("user_id", "pseudonym"),
    },
    free: [
      ...["id", "tenant_id", "subject_sha256", "requested_by", "state", "done", "counts", "leftovers", "certificate", "attempts", "next_attempt_at", "ring_count"],
      ...["next_ring_at", "lease_token", "lease_until", "requested_at", "completed_at"],
    ],
  },
  erasure_items: {
    personal: {
      rows: { by: "parent", table: "erasure_requests", column: "erasure_id" },
      erasure: "deleted",
      exported: false,
      kept: "while the erasure is under way",
      columns: gone("item_id"),
    },
    free: ["erasure_id", "tenant_id", "kind"],
  },
  retention_marks: { free: ["kind", "through"] },
  schema_migrations: { free: ["id", "name", "run_on"] },
};

export interface RedisFamily {
  name: string;
  pattern: RegExp;
  holds: string;
  /** Null: the entry is no copy of anything, and stays as a stream does; else at most this long. */
  maxTtlSec: number | null;
  erasure: "deleted" | "overwritten" | "expires" | "nothing personal";
}

/** Every family of keys; the names of streams and channels carry no content, nor do their entries. */
export const REDIS_FAMILIES: readonly RedisFamily[] = [
  { name: "auth", pattern: /^auth:[0-9a-f]{64}$/, holds: "ids of a key, its tenant and user, and scopes", maxTtlSec: 600, erasure: "deleted" },
  { name: "authgen", pattern: /^authgen:[0-9a-f-]{36}$/, holds: "a number", maxTtlSec: 900, erasure: "nothing personal" },
  { name: "auth:epoch", pattern: /^auth:epoch$/, holds: "a number", maxTtlSec: null, erasure: "nothing personal" },
  { name: "rate", pattern: /^rate:/, holds: "times of a tenant's requests", maxTtlSec: 60, erasure: "nothing personal" },
  { name: "route", pattern: /^route:[0-9a-f-]{36}:\d+:[0-9a-f]{64}$/, holds: "where a command goes, under the command's digest", maxTtlSec: 300, erasure: "expires" },
  { name: "registry", pattern: /^registry:gen$/, holds: "a number", maxTtlSec: 60, erasure: "nothing personal" },
  { name: "circuit", pattern: /^circuit:[a-z0-9-]+:[^:]+$/, holds: "how a plugin does", maxTtlSec: 3600, erasure: "nothing personal" },
  { name: "suspects", pattern: /^(turn:[a-z0-9-]+:[^:]+|suspect:[0-9a-f-]{36})$/, holds: "a mark under a task's id, and whose turn it is", maxTtlSec: 3600, erasure: "expires" },
  { name: "cancel", pattern: /^cancel:[0-9a-f-]{36}$/, holds: "a mark under a task's id", maxTtlSec: 3600, erasure: "deleted" },
  { name: "watchers", pattern: /^watchers:[0-9a-f-]{36}$/, holds: "channels of processes under a task's id", maxTtlSec: 3600, erasure: "deleted" },
  { name: "conv", pattern: /^conv:[0-9a-f-]{36}:[0-9a-f-]{36}$/, holds: "the last turns of a conversation", maxTtlSec: 120, erasure: "deleted" },
  { name: "rung", pattern: /^rung:[0-9a-f-]{36}$/, holds: "a mark under an endpoint's id", maxTtlSec: 2, erasure: "nothing personal" },
  { name: "stream", pattern: /^(stream|retry):/, holds: "ids of what is due", maxTtlSec: null, erasure: "nothing personal" },
];

/** Prefixes of the bucket. Tombstones say, as digests, whose data must not come back with an old backup. */
export const STORAGE_PREFIXES = [
  { name: "artifacts", pattern: /^[0-9a-f-]{36}\/[a-z0-9-]+\/[0-9a-f-]{36}\//, erasure: "deleted" },
  { name: "erasures", pattern: /^erasures\/[0-9a-f-]{36}\/[0-9a-f]{64}$/, erasure: "nothing personal" },
] as const;
