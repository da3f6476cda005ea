/** The tables as Kysely sees them; the migrations are the truth. Rows that only SQL functions touch are not listed. */
import type { ColumnType, Generated } from "kysely";

type Json = ColumnType<unknown, string | null, string | null>;
type Timestamp = ColumnType<Date, Date | string | undefined, Date | string>;
type NullableTimestamp = ColumnType<Date | null, Date | string | null | undefined, Date | string | null>;

export interface Tables {
  tenants: {
    id: string;
    name: string;
    plan_tier: string;
    settings: Json;
    /** Counted up by triggers. */
    access_generation: ColumnType<string, never, never>;
    access_changed_at: ColumnType<Date, never, never>;
    created_at: Generated<Timestamp>;
  };
  users: { id: string; tenant_id: string; email: string; role: string; created_at: Generated<Timestamp> };
  api_keys: {
    id: string;
    tenant_id: string;
    user_id: string | null;
    key_hash: string;
    key_prefix: string;
    environment: string;
    scopes: string[];
    description: string;
    last_used_at: NullableTimestamp;
    expires_at: NullableTimestamp;
    revoked_at: NullableTimestamp;
    rotated_to: string | null;
    created_at: Generated<Timestamp>;
  };
  plugins: {
    id: string;
    name: string;
    category: string;
    owner_type: Generated<string>;
    owner_tenant_id: string | null;
    status: Generated<string>;
    deprecated_at: NullableTimestamp;
    sunset_at: NullableTimestamp;
    migration_guide_url: ColumnType<string | null, string | null | undefined, string | null>;
    created_at: Generated<Timestamp>;
  };
  plugin_versions: {
    id: string;
    plugin_id: string;
    version: string;
    version_sort: number[];
    manifest: Json;
    endpoint: string;
    envelope_version: Generated<string>;
    status: Generated<string>;
    health: Generated<Json>;
    health_at: NullableTimestamp;
    consecutive_unhealthy: Generated<number>;
    registered_at: Generated<Timestamp>;
    probed_at: NullableTimestamp;
    image: string | null;
    admission: Json;
  };
  publisher_keys: {
    id: string;
    name: string;
    owner_tenant_id: string | null;
    public_key: string;
    created_at: Generated<Timestamp>;
    expires_at: NullableTimestamp;
    revoked_at: NullableTimestamp;
  };
  plugin_capabilities: { plugin_version_id: string; position: number; capability: string; model: string; embedding: Buffer };
  registry_state: { singleton: Generated<boolean>; generation: ColumnType<string, never, string> };
  subscriptions: {
    id: string;
    tenant_id: string;
    plugin_id: string;
    tier: string;
    quota_limit: number | null;
    overage_enabled: Generated<boolean>;
    started_at: Generated<Timestamp>;
    ended_at: NullableTimestamp;
  };
  usage_periods: { tenant_id: string; plugin_name: string; environment: string; period_start: string; used: number; reserved: number };
  invoices: {
    id: string;
    tenant_id: string;
    number: number;
    period_start: string;
    period_end: string;
    tenant_name: string;
    plan_tier: string;
    total_micro_usd: string;
    closed_at: Generated<Timestamp>;
  };
  tenant_secrets: {
    id: Generated<string>;
    tenant_id: string;
    plugin_name: string;
    secret_name: string;
    secret_value: Buffer;
    key_id: string;
    created_at: Generated<Timestamp>;
    updated_at: Generated<Timestamp>;
  };
  tenant_plugin_config: { id: Generated<string>; tenant_id: string; plugin_id: string; config: Json; version: Generated<string>; updated_at: Generated<Timestamp> };
  tasks: {
    id: string;
    tenant_id: string;
    user_id: string | null;
    api_key_id: string | null;
    cancel_requested_at: NullableTimestamp;
    plugin_name: string | null;
    plan: Json;
    status: string;
    result: Json;
    error: Json;
    input: Json;
    input_request: Json;
    routing_method: string;
    routing_confidence: number | null;
    priority: string;
    tokens_used: string;
    cost_micro_usd: string;
    attempt: number;
    lease_token: string | null;
    created_at: Timestamp;
    started_at: NullableTimestamp;
    completed_at: NullableTimestamp;
  };
  knowledge_documents: {
    id: string;
    tenant_id: string;
    source_url: string | null;
    media_type: string;
    bytes: number;
    status: string;
    error: string | null;
    chunk_count: number;
    created_at: Generated<Timestamp>;
    embedded_at: NullableTimestamp;
  };
  org_knowledge_chunks: { id: Generated<string>; tenant_id: string; document_id: string; edition: string; position: number; heading: string; content: string; token_count: number };
  task_events: { task_id: string; seq: number; tenant_id: string; type: string; data: Json; at: Timestamp };
  artifacts: {
    id: string;
    tenant_id: string;
    task_id: string;
    step: string;
    plugin_name: string;
    name: string;
    media_type: string;
    size_bytes: string;
    sha256: string;
    storage_key: string;
    state: Generated<string>;
    created_at: Generated<Timestamp>;
  };
  tickets: {
    tenant_id: string;
    number: number;
    title: string;
    description: string;
    type: string;
    priority: string;
    status: string;
    assignee: string | null;
    team: string | null;
    component: string | null;
    sla_due_at: NullableTimestamp;
  };
  ticket_events: { id: string; tenant_id: string; number: number; type: string; data: Json; task_id: string; at: Timestamp };
  webhooks: {
    id: string;
    tenant_id: string;
    url: string;
    description: Generated<string>;
    events: string[];
    status: Generated<string>;
    disabled_reason: string | null;
    disabled_at: NullableTimestamp;
    secret: Buffer;
    secret_key_id: string;
    previous_secret: Buffer | null;
    previous_secret_key_id: string | null;
    previous_secret_until: NullableTimestamp;
    failures: Generated<number>;
    failing_since: NullableTimestamp;
    resume_at: NullableTimestamp;
    last_success_at: NullableTimestamp;
    last_failure_at: NullableTimestamp;
    created_at: Timestamp;
    updated_at: Timestamp;
  };
  webhook_deliveries: {
    id: string;
    webhook_id: string;
    tenant_id: string;
    type: string;
    event_key: string;
    task_id: string | null;
    data: Json;
    status: string;
    attempts: Generated<number>;
    tries: Generated<number>;
    next_attempt_at: Timestamp;
    lease_until: NullableTimestamp;
    created_at: Timestamp;
    finished_at: NullableTimestamp;
  };
  webhook_attempts: { delivery_id: string; attempt: number; tenant_id: string; at: Timestamp; status: number | null; ms: number; error: string | null; answer: string | null };
  /** Number, time and hashes are made by the database. */
  audit_log: {
    tenant_id: string;
    seq: ColumnType<string, never, never>;
    at: ColumnType<Date, never, never>;
    actor: string;
    key_ref: string | null;
    action: string;
    target_type: string;
    target_id: string;
    details: Json;
    prev_hash: ColumnType<Buffer, never, never>;
    hash: ColumnType<Buffer, never, never>;
  };
  audit_heads: { tenant_id: string; seq: ColumnType<string, never, never>; hash: ColumnType<Buffer, never, never> };
  artifact_uploads: { artifact_id: string; tenant_id: string; task_id: string; bytes: Buffer };
}
