-- Why: the tables that the way of one task needs, from SPEC section 9 with the changes of DESIGN.md section 5.
--
-- Two roles stand behind every statement. `aau_app` sees one tenant at a time, the one in app.tenant; `aau_platform` is for
-- the jobs that serve all tenants (claim, wake, registry). Neither can log in or bypass row-level security: a session enters
-- one for the length of a transaction with set_config('role', …, true), so one DATABASE_URL serves both, also through
-- poolers that reuse sessions.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'aau_app') THEN CREATE ROLE aau_app NOLOGIN NOBYPASSRLS; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'aau_platform') THEN CREATE ROLE aau_platform NOLOGIN NOBYPASSRLS; END IF;
  EXECUTE format('GRANT aau_app, aau_platform TO %I', current_user);
END $$;

CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE FUNCTION app_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT nullif(current_setting('app.tenant', true), '')::uuid $$;

CREATE TABLE tenants (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  plan_tier text NOT NULL CHECK (plan_tier IN ('starter', 'professional', 'enterprise')),
  settings jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  email text NOT NULL,
  role text NOT NULL DEFAULT 'developer' CHECK (role IN ('owner', 'admin', 'developer', 'billing', 'viewer')),
  created_at timestamptz NOT NULL DEFAULT now()
);
-- One person may belong to two tenants, and an address that is taken elsewhere must not show.
CREATE UNIQUE INDEX users_email_once_per_tenant ON users (tenant_id, lower(email));

CREATE TABLE api_keys (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  user_id uuid REFERENCES users(id) ON DELETE CASCADE,
  key_hash text NOT NULL UNIQUE CHECK (key_hash ~ '^[0-9a-f]{64}$'),
  key_prefix text NOT NULL,
  environment text NOT NULL CHECK (environment IN ('live', 'test')),
  scopes text[] NOT NULL,
  description text NOT NULL DEFAULT '',
  last_used_at timestamptz,
  expires_at timestamptz,
  revoked_at timestamptz,
  rotated_to uuid REFERENCES api_keys(id),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant_id, id);

CREATE TABLE plugins (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  category text NOT NULL,
  owner_type text NOT NULL DEFAULT 'first_party' CHECK (owner_type IN ('first_party', 'enterprise_custom')),
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deprecated', 'sunset', 'retired')),
  deprecated_at timestamptz,
  sunset_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE plugin_versions (
  id uuid PRIMARY KEY,
  plugin_id uuid NOT NULL REFERENCES plugins(id),
  version text NOT NULL,
  -- Major, minor, patch, and 1 for a release or 0 for a pre-release: the newest release is a plain ORDER BY.
  version_sort int[] NOT NULL,
  manifest jsonb NOT NULL,
  endpoint text NOT NULL,
  envelope_version text NOT NULL DEFAULT '1.0',
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'deprecated', 'sunset', 'retired')),
  health jsonb NOT NULL DEFAULT '{"status": "unknown", "components": {}}',
  health_at timestamptz,
  consecutive_unhealthy int NOT NULL DEFAULT 0,
  registered_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (plugin_id, version)
);

-- The router's sentences, embedded. Vectors carry their model's name: vectors of two models cannot be compared. Stored as
-- float4 bytes, little-endian, so that routing needs no pgvector and a function loads them without parsing text.
CREATE TABLE plugin_capabilities (
  plugin_version_id uuid NOT NULL REFERENCES plugin_versions(id) ON DELETE CASCADE,
  position int NOT NULL,
  capability text NOT NULL,
  model text NOT NULL,
  embedding bytea NOT NULL,
  PRIMARY KEY (plugin_version_id, model, position)
);

-- Bumped in the transaction that changes the catalogue; caches that carry an older number are stale. A row, not a sequence:
-- a sequence would show the new number before the change is there to be read.
CREATE TABLE registry_state (singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton), generation bigint NOT NULL DEFAULT 1);
INSERT INTO registry_state DEFAULT VALUES;

CREATE TABLE subscriptions (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  plugin_id uuid NOT NULL REFERENCES plugins(id),
  tier text NOT NULL,
  quota_limit int CHECK (quota_limit >= 0),
  overage_enabled boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE UNIQUE INDEX one_live_subscription ON subscriptions (tenant_id, plugin_id) WHERE ended_at IS NULL;

-- One row per plugin and month. `reserved` counts admitted tasks that have not ended; the WHERE of the admit statement on
-- this row is the quota.
CREATE TABLE usage_periods (
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  plugin_name text NOT NULL,
  environment text NOT NULL,
  period_start date NOT NULL,
  used int NOT NULL DEFAULT 0 CHECK (used >= 0),
  reserved int NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  PRIMARY KEY (tenant_id, plugin_name, environment, period_start)
) WITH (fillfactor = 50);

CREATE TABLE tenant_plugin_config (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  plugin_id uuid NOT NULL REFERENCES plugins(id),
  config jsonb NOT NULL DEFAULT '{}',
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, plugin_id)
);

CREATE TABLE tenant_secrets (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  plugin_name text NOT NULL,
  secret_name text NOT NULL,
  secret_value bytea NOT NULL,
  key_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, plugin_name, secret_name)
);

CREATE TABLE tasks (
  id uuid PRIMARY KEY,
  -- Both come from a key that was just looked up, and a key cannot outlive its tenant or user. A foreign key would lock the tenant's
  -- row once more for every task.
  tenant_id uuid NOT NULL,
  user_id uuid,
  api_key_id uuid,
  environment text NOT NULL,
  conversation_id text,
  plugin_name text,
  plan jsonb NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'queued', 'running', 'success', 'partial', 'failed', 'cancelled')),
  input jsonb,
  result jsonb,
  error jsonb,
  routing_method text NOT NULL,
  routing_confidence real,
  priority text NOT NULL DEFAULT 'normal',
  max_cost_micro_usd bigint,
  tokens_used bigint NOT NULL DEFAULT 0,
  cost_micro_usd bigint NOT NULL DEFAULT 0,
  -- The month whose usage row holds this task's reservation; null once it is settled.
  reserved_period date,
  overage boolean NOT NULL DEFAULT false,
  attempt int NOT NULL DEFAULT 0,
  -- Attempts that ended by an orderly hand-back (drain, transient trouble); they do not count towards the poison limit.
  hand_backs int NOT NULL DEFAULT 0,
  lease_token uuid,
  lease_until timestamptz,
  deadline timestamptz NOT NULL,
  cancel_requested_at timestamptz,
  ring_count int NOT NULL DEFAULT 0,
  next_ring_at timestamptz,
  event_seq int NOT NULL DEFAULT 0,
  traceparent text,
  request_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  completed_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX tasks_of_tenant ON tasks (tenant_id, id);
CREATE INDEX tasks_of_tenant_by_plugin ON tasks (tenant_id, plugin_name, id);
-- Queued and running tasks are the newest, so the list finds them without an index, and no task has to move through one on its way.
CREATE INDEX tasks_of_tenant_unusual ON tasks (tenant_id, status, id) WHERE status IN ('pending', 'partial', 'failed', 'cancelled');
CREATE INDEX tasks_due ON tasks (next_ring_at) WHERE status IN ('queued', 'running');

-- Steps and events are only written under the lock of their task's row, so a foreign key would check what is known; whoever deletes
-- a task deletes them first.
CREATE TABLE task_steps (
  task_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  step text NOT NULL,
  plugin_name text NOT NULL,
  plugin_version text NOT NULL,
  attempt int NOT NULL,
  status text NOT NULL CHECK (status IN ('success', 'partial', 'failed', 'cancelled')),
  output jsonb NOT NULL,
  latency_ms int NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, step)
);

CREATE TABLE task_events (
  task_id uuid NOT NULL,
  seq int NOT NULL,
  tenant_id uuid NOT NULL,
  type text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, seq)
);

CREATE TABLE idempotency_keys (
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  environment text NOT NULL,
  route text NOT NULL,
  key text NOT NULL,
  request_sha256 text NOT NULL,
  task_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, environment, route, key)
);

-- The gateway's journal and the only source of usage. `started` is committed before the provider is called, `done` with its
-- raw usage after; `unknown` when the gateway died between. The attempt is not in the key, so a replayed answer is never
-- billed twice.
CREATE TABLE llm_calls (
  id uuid PRIMARY KEY,
  task_id uuid NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  step text NOT NULL,
  call_no int NOT NULL,
  plugin_name text NOT NULL,
  node text,
  request_sha256 text NOT NULL,
  occurrence int NOT NULL,
  attempt int NOT NULL,
  state text NOT NULL CHECK (state IN ('started', 'done', 'failed', 'unknown')),
  model text NOT NULL,
  price_version text NOT NULL,
  -- What the call may cost at most; counts against max_cost_usd while the call is open.
  ceiling_micro_usd bigint NOT NULL,
  cost_micro_usd bigint NOT NULL DEFAULT 0,
  usage jsonb,
  input_tokens int NOT NULL DEFAULT 0,
  output_tokens int NOT NULL DEFAULT 0,
  cache_write_tokens int NOT NULL DEFAULT 0,
  cache_read_tokens int NOT NULL DEFAULT 0,
  provider_request_id text,
  answer jsonb,
  error jsonb,
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  UNIQUE (task_id, step, call_no)
);
-- A later attempt finds the answer of an earlier one by what was asked, not by when: parallel branches arrive in any order.
-- Failed and unknown calls stay in the journal and do not stand in the way of a new try.
CREATE UNIQUE INDEX llm_calls_replay ON llm_calls (task_id, step, request_sha256, occurrence) WHERE state IN ('started', 'done');

CREATE TABLE execution_events (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL,
  plugin_name text NOT NULL,
  plugin_version text NOT NULL,
  task_id uuid NOT NULL,
  step text NOT NULL,
  attempt int NOT NULL,
  environment text NOT NULL,
  actor_ref text,
  status text NOT NULL,
  model text,
  tokens_used bigint NOT NULL DEFAULT 0,
  input_tokens bigint NOT NULL DEFAULT 0,
  output_tokens bigint NOT NULL DEFAULT 0,
  cache_tokens bigint NOT NULL DEFAULT 0,
  latency_ms int NOT NULL,
  cost_micro_usd bigint NOT NULL DEFAULT 0,
  routing_method text NOT NULL,
  envelope_version text NOT NULL,
  billable boolean NOT NULL,
  overage boolean NOT NULL DEFAULT false,
  invoice_line_id uuid,
  timestamp timestamptz NOT NULL DEFAULT now(),
  UNIQUE (task_id, step)
);
CREATE INDEX execution_events_of_tenant ON execution_events (tenant_id, timestamp);

CREATE TABLE artifacts (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  task_id uuid NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
  plugin_name text NOT NULL,
  name text NOT NULL,
  media_type text NOT NULL,
  size_bytes bigint NOT NULL,
  sha256 text NOT NULL,
  storage_key text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (task_id, name)
);

-- Row-level security: a statement that forgets its tenant finds nothing.
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['users', 'api_keys', 'subscriptions', 'usage_periods', 'tenant_plugin_config', 'tenant_secrets', 'tasks',
                           'task_steps', 'task_events', 'idempotency_keys', 'llm_calls', 'execution_events', 'artifacts'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO aau_app, aau_platform', t);
  END LOOP;
END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenants TO aau_app USING (id = (SELECT app_tenant()));
CREATE POLICY all_tenants ON tenants TO aau_platform USING (true) WITH CHECK (true);
GRANT SELECT ON tenants TO aau_app;
GRANT SELECT, INSERT, UPDATE ON tenants TO aau_platform;
-- Who knows the hash of a whole key may read that one row: authentication happens before a tenant is known.
CREATE POLICY holder_of_the_key ON api_keys FOR SELECT TO aau_app USING (key_hash = (SELECT current_setting('app.key_hash', true)));
GRANT SELECT ON plugins, plugin_versions, plugin_capabilities, registry_state TO aau_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON plugins, plugin_versions, plugin_capabilities TO aau_platform;
GRANT SELECT, UPDATE ON registry_state TO aau_platform;
