-- Why: a tenant's own addresses are told what happens to its tasks and its account. An event is written as one delivery per endpoint in the
-- transaction of what it tells of, so none is lost and none is told of something that did not happen; `webhook-deliver` sends them later.

-- A UUIDv7 as shared/ids.ts makes them, for rows that statements make: sorted by time like all others.
CREATE FUNCTION new_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

CREATE TABLE webhooks (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  url text NOT NULL,
  description text NOT NULL DEFAULT '',
  events text[] NOT NULL,
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
  -- Its owner said so; it answered 410; it failed for days.
  disabled_reason text CHECK (disabled_reason IN ('by_owner', 'gone', 'failing')),
  disabled_at timestamptz,
  -- What signs, sealed with a key of the ring (shared/access/sealed-text.ts); the one before goes on signing beside it for a while.
  secret bytea NOT NULL,
  secret_key_id text NOT NULL,
  previous_secret bytea,
  previous_secret_key_id text,
  previous_secret_until timestamptz,
  -- Attempts in a row that failed, and since when. Many in a row give the endpoint a pause.
  failures int NOT NULL DEFAULT 0,
  failing_since timestamptz,
  resume_at timestamptz,
  last_success_at timestamptz,
  next_ring_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((status = 'disabled') = (disabled_at IS NOT NULL AND disabled_reason IS NOT NULL)),
  CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL) AND (previous_secret IS NULL) = (previous_secret_key_id IS NULL))
);
CREATE INDEX webhooks_of_tenant ON webhooks (tenant_id, id);

-- One event for one endpoint. Of a task only its id stands here: the body is made from the task's row, which no longer changes, so a task that
-- is erased is in no body. No foreign key: an endpoint that is deleted in this moment must not undo the end of a task. A row whose endpoint is
-- gone is never sent.
CREATE TABLE webhook_deliveries (
  id uuid PRIMARY KEY,
  webhook_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  type text NOT NULL,
  -- What happened, once: with tenant and type it is the event (webhook_event_id), and the same for all endpoints.
  event_key text NOT NULL,
  task_id uuid,
  data jsonb,
  -- `held`: its endpoint is disabled; `recover` sends it. `failed`: no attempt is left.
  status text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'held')),
  -- All that were begun, and those since it was last put into the queue: a delivery that is sent again has all its tries before it.
  attempts int NOT NULL DEFAULT 0,
  tries int NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  lease_token uuid,
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  UNIQUE (webhook_id, type, event_key)
);
CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_in_flight ON webhook_deliveries (webhook_id) WHERE lease_until IS NOT NULL;
CREATE INDEX webhook_deliveries_of_task ON webhook_deliveries (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX webhook_deliveries_of_tenant ON webhook_deliveries (tenant_id, created_at);

-- What an endpoint answered, attempt by attempt.
CREATE TABLE webhook_attempts (
  delivery_id uuid NOT NULL REFERENCES webhook_deliveries(id) ON DELETE CASCADE,
  attempt int NOT NULL,
  tenant_id uuid NOT NULL,
  at timestamptz NOT NULL,
  -- The answer's; null when there was none, and then `error` says why.
  status int,
  ms int NOT NULL,
  error text,
  -- The first kilobyte of the answer's body.
  answer text,
  PRIMARY KEY (delivery_id, attempt)
);
CREATE INDEX webhook_attempts_of_tenant ON webhook_attempts (tenant_id);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['webhooks', 'webhook_deliveries', 'webhook_attempts'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO aau_app, aau_platform', t);
  END LOOP;
END $$;

-- The id of an event, which follows from what it is: every endpoint and every attempt is told the same one.
CREATE FUNCTION webhook_event_id(p_owner_tenant uuid, p_type text, p_key text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT md5(p_owner_tenant::text || ' ' || p_type || ' ' || p_key)::uuid
$$;

-- Tells the tenant's endpoints that something happened; the caller has entered a role. Twice with one key is once. What happens while an
-- endpoint is disabled is held for it, for a month. Returns the endpoints to ring for once this is committed.
CREATE FUNCTION enqueue_webhook_event(p_tenant uuid, p_type text, p_key text, p_data jsonb) RETURNS uuid[] LANGUAGE sql AS $$
  WITH made AS (
    INSERT INTO webhook_deliveries (id, webhook_id, tenant_id, type, event_key, data, status)
      SELECT new_uuid7(), h.id, h.tenant_id, p_type, p_key, p_data, CASE h.status WHEN 'active' THEN 'pending' ELSE 'held' END
        FROM webhooks h WHERE h.tenant_id = p_tenant AND h.events @> ARRAY[p_type] AND (h.disabled_at IS NULL OR h.disabled_at > now() - interval '30 days')
      ON CONFLICT DO NOTHING
      RETURNING webhook_id, status)
  SELECT coalesce(array_agg(m.webhook_id) FILTER (WHERE m.status = 'pending'), '{}') FROM made m
$$;
