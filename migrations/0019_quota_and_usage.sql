-- Why: what a tenant may run is decided by its plan, and what it ran is counted where it is settled. Plugins may belong to one tenant and
-- are nobody else's business; who has not subscribed may try a plugin ten times; a reservation remembers the limit that it was made under, so
-- that overage is what really went over it; and usage by day, plugin, key and model is kept beside the events, so that reading it costs the
-- same however many there are.

-- Null: a plugin for everybody. Row-level security stands behind the catalogue, which shows each tenant its own view.
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS owner_tenant_id uuid REFERENCES tenants(id);
ALTER TABLE plugins ADD CONSTRAINT custom_plugins_have_an_owner CHECK ((owner_tenant_id IS NOT NULL) = (owner_type = 'enterprise_custom'));
ALTER TABLE plugins ENABLE ROW LEVEL SECURITY;
CREATE POLICY public_or_own ON plugins TO aau_app USING (owner_tenant_id IS NULL OR owner_tenant_id = (SELECT app_tenant()));
CREATE POLICY all_plugins ON plugins TO aau_platform USING (true) WITH CHECK (true);

-- The subscription's limit and whether more is run as overage, as they were at the last reservation; and the highest share of the limit, in percent,
-- that the tenant was told of.
ALTER TABLE usage_periods ADD COLUMN quota_limit int, ADD COLUMN overage_enabled boolean NOT NULL DEFAULT false, ADD COLUMN warned smallint NOT NULL DEFAULT 0;
UPDATE usage_periods u SET quota_limit = s.quota_limit, overage_enabled = s.overage_enabled FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id
  WHERE s.tenant_id = u.tenant_id AND p.name = u.plugin_name AND s.ended_at IS NULL;

-- Executions that a tenant may try of a plugin without a subscription, once and not a month: they are counted on the usage row of the
-- environment `sandbox` and the period 1970-01-01, by the same statements that count the others.
CREATE FUNCTION sandbox_limit() RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 10';
CREATE FUNCTION sandbox_period() RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT date '1970-01-01' $$;

-- One row per day, plugin, environment, key, model and price list, with the invoice that holds it; what is settled after that goes to a new row.
-- Model and price list are null where no model was called. Executions stand with the model that cost most. Tokens and cost are of billable
-- work; what failed, was stopped, tried or tested is kept as unbilled, and calls whose outcome nobody knows at their ceiling.
CREATE TABLE usage_days (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid NOT NULL,
  day date NOT NULL,
  plugin_name text NOT NULL,
  environment text NOT NULL,
  api_key_id uuid,
  model text,
  price_version text,
  invoice_id uuid,
  executions int NOT NULL DEFAULT 0,
  billable int NOT NULL DEFAULT 0,
  overage int NOT NULL DEFAULT 0,
  input_tokens bigint NOT NULL DEFAULT 0,
  output_tokens bigint NOT NULL DEFAULT 0,
  cache_write_tokens bigint NOT NULL DEFAULT 0,
  cache_read_tokens bigint NOT NULL DEFAULT 0,
  cost_micro_usd bigint NOT NULL DEFAULT 0,
  unbilled_tokens bigint NOT NULL DEFAULT 0,
  unbilled_micro_usd bigint NOT NULL DEFAULT 0,
  unknown_calls int NOT NULL DEFAULT 0,
  unknown_micro_usd bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX usage_days_open ON usage_days (tenant_id, day, plugin_name, environment, api_key_id, model, price_version) NULLS NOT DISTINCT WHERE invoice_id IS NULL;
CREATE INDEX usage_days_of_tenant ON usage_days (tenant_id, day);
ALTER TABLE usage_days ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_days FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON usage_days TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()));
CREATE POLICY all_tenants ON usage_days TO aau_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON usage_days TO aau_app, aau_platform;

-- An execution is invoiced with the row of usage_days that counts it.
ALTER TABLE execution_events DROP COLUMN invoice_line_id;

-- Tells the tenant, once a threshold and period, that 80 or 100 percent of a quota are reserved or used. The caller has entered a role.
CREATE FUNCTION warn_of_quota(p_tenant uuid, p_plugin text, p_period date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE u usage_periods; v_percent int;
BEGIN
  SELECT * INTO u FROM usage_periods p WHERE p.tenant_id = p_tenant AND p.plugin_name = p_plugin AND p.environment = 'live' AND p.period_start = p_period FOR NO KEY UPDATE;
  FOREACH v_percent IN ARRAY ARRAY[80, 100] LOOP
    IF u.warned < v_percent AND (u.used + u.reserved)::bigint * 100 >= u.quota_limit::bigint * v_percent THEN
      UPDATE usage_periods p SET warned = v_percent WHERE p.tenant_id = p_tenant AND p.plugin_name = p_plugin AND p.environment = 'live' AND p.period_start = p_period;
      PERFORM enqueue_webhook_event(p_tenant, 'quota.warning', format('%s:%s:%s', p_plugin, p_period, v_percent), jsonb_build_object(
        'plugin', p_plugin, 'period_start', p_period, 'percent', v_percent, 'used', u.used, 'reserved', u.reserved, 'limit', u.quota_limit));
    END IF;
  END LOOP;
END $$;

-- Whether this reservation is one to tell the tenant of.
CREATE FUNCTION crosses_quota(p_environment text, p_total int, p_limit int, p_warned int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(p_environment = 'live' AND p_warned < 100 AND p_total::bigint * 100 >= p_limit::bigint * CASE WHEN p_warned < 80 THEN 80 ELSE 100 END, false)
$$;

-- Reserves executions on one usage row; its WHERE is the quota. Null: there is no room. The caller has entered a role.
CREATE FUNCTION reserve_executions(p_tenant uuid, p_plugin text, p_environment text, p_period date, p_count int, p_limit int, p_overage boolean)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_total int; v_warned int;
BEGIN
  IF p_limit < p_count AND NOT p_overage THEN RETURN NULL; END IF;
  INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved, quota_limit, overage_enabled)
    VALUES (p_tenant, p_plugin, p_environment, p_period, p_count, p_limit, p_overage)
    ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + p_count, quota_limit = p_limit, overage_enabled = p_overage
      WHERE p_limit IS NULL OR p_overage OR u.used + u.reserved + p_count <= p_limit
    RETURNING u.used + u.reserved, u.warned INTO v_total, v_warned;
  IF crosses_quota(p_environment, v_total, p_limit, v_warned) THEN PERFORM warn_of_quota(p_tenant, p_plugin, p_period); END IF;
  RETURN v_total;
END $$;

-- As in 0007, with the sandbox, and with a word to the tenant when a quota is nearly or wholly used. `quota_used` and `quota_limit` are those of the
-- sandbox where `sandbox` is true.
DROP FUNCTION admit_tasks(jsonb);
CREATE FUNCTION admit_tasks(p_batch jsonb)
RETURNS TABLE (place int, outcome text, task_id uuid, created_at timestamptz, quota_used int, quota_limit int, overage boolean, sandbox boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := now(); v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date; r record; v_warns boolean := false;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  IF jsonb_path_exists(p_batch, '$[*].idempotency_key ? (@ != null)') THEN
    DELETE FROM idempotency_keys i USING jsonb_to_recordset(p_batch) AS b(tenant uuid, environment text, idempotency_key text)
      WHERE i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key AND i.created_at <= v_now - interval '24 hours';
  END IF;

  -- The first task of a month finds no usage row, nor does one in the sandbox. One whose idempotency key is known leaves none behind.
  IF EXISTS (SELECT FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text) WHERE NOT EXISTS (
      SELECT FROM usage_periods u JOIN plugins p ON p.name = u.plugin_name JOIN subscriptions s ON s.tenant_id = u.tenant_id AND s.plugin_id = p.id AND s.ended_at IS NULL
        WHERE u.tenant_id = b.tenant AND u.plugin_name = b.plugin AND u.environment = b.environment AND u.period_start = v_period)) THEN
    INSERT INTO usage_periods (tenant_id, plugin_name, environment, period_start)
      SELECT DISTINCT b.tenant, b.plugin, CASE WHEN s.id IS NULL THEN 'sandbox' ELSE b.environment END, CASE WHEN s.id IS NULL THEN sandbox_period() ELSE v_period END
        FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text, idempotency_key text)
        LEFT JOIN idempotency_keys i ON i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key
        JOIN plugins p ON p.name = b.plugin AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = b.tenant)
        LEFT JOIN subscriptions s ON s.tenant_id = b.tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
        WHERE i.task_id IS NULL AND CASE WHEN s.id IS NULL THEN p.status = 'active' ELSE s.quota_limit > 0 OR s.quota_limit IS NULL OR s.overage_enabled END
        ORDER BY 1, 2, 3, 4
      ON CONFLICT DO NOTHING;
  END IF;

  FOR r IN WITH asked AS MATERIALIZED (
    SELECT b.*, i.task_id AS known_task, i.request_sha256 AS known_sha256, i.created_at AS known_at, s.id IS NULL AS sandbox,
        s.id IS NOT NULL OR p.status = 'active' AS is_open,
        CASE WHEN s.id IS NULL THEN 'sandbox' ELSE b.environment END AS counted_as, CASE WHEN s.id IS NULL THEN sandbox_period() ELSE v_period END AS counted_in,
        CASE WHEN s.id IS NULL THEN sandbox_limit() ELSE s.quota_limit END AS quota_limit, coalesce(s.overage_enabled, false) AS overage_enabled
      FROM jsonb_to_recordset(p_batch) AS b(place int, tenant uuid, id uuid, "user" uuid, key uuid, environment text, conversation text, plugin text, plan jsonb,
        input jsonb, method text, confidence real, priority text, max_cost bigint, deadline timestamptz, traceparent text, request text, idempotency_key text, request_sha256 text,
        embedding text, embedding_model text)
      LEFT JOIN idempotency_keys i ON i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key
      LEFT JOIN plugins p ON p.name = b.plugin AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = b.tenant)
      LEFT JOIN subscriptions s ON s.tenant_id = b.tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
  ), held AS (
    SELECT g.*, u.used + u.reserved AS total, u.warned
      FROM (SELECT DISTINCT a.tenant, a.plugin, a.counted_as, a.counted_in FROM asked a WHERE a.known_task IS NULL AND a.is_open) g
      JOIN usage_periods u ON u.tenant_id = g.tenant AND u.plugin_name = g.plugin AND u.environment = g.counted_as AND u.period_start = g.counted_in
      ORDER BY g.tenant, g.plugin, g.counted_as, g.counted_in FOR NO KEY UPDATE OF u
  ), admitted AS MATERIALIZED (
    SELECT * FROM (
        SELECT a.*, (h.total + row_number() OVER (PARTITION BY a.tenant, a.plugin, a.counted_as ORDER BY a.id))::int AS total, h.warned
          FROM asked a JOIN held h ON h.tenant = a.tenant AND h.plugin = a.plugin AND h.counted_as = a.counted_as
          WHERE a.known_task IS NULL AND a.is_open
      ) n WHERE n.quota_limit IS NULL OR n.overage_enabled OR n.total <= n.quota_limit
  ), reserved AS (
    UPDATE usage_periods u SET reserved = u.reserved + n.count, quota_limit = n.quota_limit, overage_enabled = n.overage_enabled
      FROM (SELECT a.tenant, a.plugin, a.counted_as, a.counted_in, a.quota_limit, a.overage_enabled, count(*)::int AS count FROM admitted a
        GROUP BY a.tenant, a.plugin, a.counted_as, a.counted_in, a.quota_limit, a.overage_enabled) n
      WHERE u.tenant_id = n.tenant AND u.plugin_name = n.plugin AND u.environment = n.counted_as AND u.period_start = n.counted_in
  ), inserted AS (
    INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, routing_confidence,
        priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at,
        command_embedding, command_embedding_model)
      SELECT a.id, a.tenant, a."user", a.key, a.environment, a.conversation, a.plugin, CASE WHEN a.sandbox THEN jsonb_set(a.plan, '{0,sandbox}', 'true') ELSE a.plan END,
          'queued', a.input, a.method, a.confidence, a.priority, a.max_cost, v_period, coalesce(a.total > a.quota_limit, false), a.deadline,
          least(v_now + interval '10 seconds', a.deadline), a.traceparent, a.request, v_now, decode(a.embedding, 'base64'), a.embedding_model
        FROM admitted a
  ), keyed AS (
    -- Two submits at once with one key: the batch of the second fails here as a whole, is run again, and finds the first.
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      SELECT a.tenant, a.environment, 'task-submit', a.idempotency_key, a.request_sha256, a.id FROM admitted a WHERE a.idempotency_key IS NOT NULL
  )
  SELECT a.place,
      CASE WHEN a.known_sha256 = a.request_sha256 THEN 'replayed' WHEN a.known_task IS NOT NULL THEN 'key_reused' WHEN d.id IS NOT NULL THEN 'admitted'
        WHEN a.sandbox THEN 'not_subscribed' ELSE 'quota_exceeded' END AS outcome,
      coalesce(a.known_task, d.id) AS task_id, coalesce(a.known_at, CASE WHEN d.id IS NOT NULL THEN v_now END) AS created_at, coalesce(d.total, 0) AS quota_used, a.quota_limit,
      coalesce(d.total > d.quota_limit, false) AS overage, a.sandbox AND a.known_task IS NULL AS sandbox, crosses_quota(a.counted_as, d.total, a.quota_limit, d.warned) AS warns
    FROM asked a LEFT JOIN admitted d ON d.place = a.place
  LOOP
    place := r.place; outcome := r.outcome; task_id := r.task_id; created_at := r.created_at; quota_used := r.quota_used; quota_limit := r.quota_limit;
    overage := r.overage; sandbox := r.sandbox; v_warns := v_warns OR r.warns;
    RETURN NEXT;
  END LOOP;

  IF v_warns THEN
    PERFORM warn_of_quota(g.tenant, g.plugin, v_period) FROM (SELECT DISTINCT b.tenant, b.plugin FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text) ORDER BY 1, 2) g;
  END IF;
END $$;

-- What a plan asks of one plugin, and what the tenant has of it: of its subscription, or else of the sandbox. In the order in which usage rows are
-- locked everywhere.
DROP FUNCTION plan_quota(uuid, text, date, jsonb);
CREATE FUNCTION plan_quota(p_tenant uuid, p_environment text, p_period date, p_plan jsonb)
RETURNS TABLE (plugin text, steps int, subscribed boolean, sandbox boolean, quota_limit int, overage_enabled boolean, used int, reserved int, counted_as text, counted_in date)
LANGUAGE sql STABLE AS $$
  SELECT d.plugin, d.steps, d.subscribed, d.sandbox, d.quota_limit, d.overage_enabled, coalesce(u.used, 0), coalesce(u.reserved, 0), d.counted_as, d.counted_in
  FROM (
    SELECT step.value->>'plugin' AS plugin, count(*)::int AS steps, s.id IS NOT NULL AS subscribed, s.id IS NULL AND coalesce(p.status = 'active', false) AS sandbox,
        CASE WHEN s.id IS NULL THEN sandbox_limit() ELSE s.quota_limit END AS quota_limit, coalesce(s.overage_enabled, false) AS overage_enabled,
        CASE WHEN s.id IS NULL THEN 'sandbox' ELSE p_environment END AS counted_as, CASE WHEN s.id IS NULL THEN sandbox_period() ELSE p_period END AS counted_in
      FROM jsonb_array_elements(p_plan) step
      LEFT JOIN plugins p ON p.name = step.value->>'plugin' AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = p_tenant)
      LEFT JOIN subscriptions s ON s.tenant_id = p_tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
      GROUP BY 1, s.id, p.status, s.quota_limit, s.overage_enabled
  ) d
  LEFT JOIN usage_periods u ON u.tenant_id = p_tenant AND u.plugin_name = d.plugin AND u.environment = d.counted_as AND u.period_start = d.counted_in
  ORDER BY d.plugin
$$;

-- Reserves one execution for every step of a plan, or none at all: then `refused` is `not_subscribed` or `quota_exceeded`, and `plugin` the one at fault.
-- `plan` comes back with its steps marked: those in the sandbox, and of several those that are over a quota. The caller has entered a role.
CREATE FUNCTION reserve_plan(p_tenant uuid, p_environment text, p_period date, p_plan jsonb)
RETURNS TABLE (refused text, plugin text, quota_limit int, plan jsonb, overage boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE w record; v_total int; v_over int; v_marks jsonb := '{}'; v_overage boolean := false;
BEGIN
  SELECT * INTO w FROM plan_quota(p_tenant, p_environment, p_period, p_plan) q WHERE NOT q.subscribed AND NOT q.sandbox LIMIT 1;
  IF FOUND THEN
    RETURN QUERY SELECT 'not_subscribed', w.plugin, NULL::int, NULL::jsonb, false;
    RETURN;
  END IF;
  -- All of this block or nothing: what an earlier plugin had reserved goes back when a later one has no room.
  BEGIN
    FOR w IN SELECT * FROM plan_quota(p_tenant, p_environment, p_period, p_plan) LOOP
      v_total := reserve_executions(p_tenant, w.plugin, w.counted_as, w.counted_in, w.steps, w.quota_limit, w.overage_enabled);
      IF v_total IS NULL THEN RAISE EXCEPTION USING ERRCODE = 'AAU01'; END IF;
      v_over := greatest(0, least(w.steps, coalesce(v_total - w.quota_limit, 0)));
      v_overage := v_overage OR v_over > 0;
      IF w.sandbox THEN v_marks := v_marks || jsonb_build_object(w.plugin, jsonb_build_object('sandbox', w.steps));
      ELSIF v_over > 0 AND jsonb_array_length(p_plan) > 1 THEN v_marks := v_marks || jsonb_build_object(w.plugin, jsonb_build_object('overage', v_over)); END IF;
    END LOOP;
  EXCEPTION WHEN SQLSTATE 'AAU01' THEN
    RETURN QUERY SELECT CASE WHEN w.sandbox THEN 'not_subscribed' ELSE 'quota_exceeded' END, w.plugin, w.quota_limit, NULL::jsonb, false;
    RETURN;
  END;
  -- The last steps of a plugin are those over its quota.
  RETURN QUERY SELECT NULL::text, NULL::text, NULL::int, CASE WHEN v_marks = '{}' THEN p_plan ELSE (
      SELECT jsonb_agg(s.step || coalesce((SELECT jsonb_object_agg(m.key, true) FROM jsonb_each(v_marks->(s.step->>'plugin')) m WHERE s.rank <= m.value::int), '{}') ORDER BY s.place)
      FROM (SELECT e.value AS step, e.ordinality AS place, row_number() OVER (PARTITION BY e.value->>'plugin' ORDER BY e.ordinality DESC) AS rank
            FROM jsonb_array_elements(p_plan) WITH ORDINALITY e) s) END, v_overage;
END $$;

-- As in 0007, with the sandbox.
CREATE OR REPLACE FUNCTION admit_plan(p_task jsonb)
RETURNS TABLE (outcome text, task_id uuid, created_at timestamptz, quota_limit int, overage boolean, plugin text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t record; v_old record; v_reserved record; v_now timestamptz := now(); v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
BEGIN
  SELECT * INTO t FROM jsonb_to_record(p_task) AS r(tenant uuid, id uuid, "user" uuid, key uuid, environment text, conversation text, plugin text, plan jsonb,
    input jsonb, method text, confidence real, priority text, max_cost bigint, deadline timestamptz, traceparent text, request text, idempotency_key text,
    request_sha256 text, embedding text, embedding_model text);
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', t.tenant::text, true);

  IF t.idempotency_key IS NOT NULL THEN
    SELECT i.task_id, i.request_sha256, i.created_at INTO v_old FROM idempotency_keys i
      WHERE i.tenant_id = t.tenant AND i.environment = t.environment AND i.route = 'task-submit' AND i.key = t.idempotency_key;
    IF FOUND AND v_old.created_at > v_now - interval '24 hours' THEN
      RETURN QUERY SELECT CASE WHEN v_old.request_sha256 = t.request_sha256 THEN 'replayed' ELSE 'key_reused' END, v_old.task_id, v_old.created_at, NULL::int, false, NULL::text;
      RETURN;
    ELSIF FOUND THEN
      DELETE FROM idempotency_keys i WHERE i.tenant_id = t.tenant AND i.environment = t.environment AND i.route = 'task-submit' AND i.key = t.idempotency_key;
    END IF;
  END IF;

  SELECT * INTO v_reserved FROM reserve_plan(t.tenant, t.environment, v_period, t.plan);
  IF v_reserved.refused IS NOT NULL THEN
    RETURN QUERY SELECT v_reserved.refused, NULL::uuid, NULL::timestamptz, v_reserved.quota_limit, false, v_reserved.plugin;
    RETURN;
  END IF;

  INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, routing_confidence,
      priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at, command_embedding, command_embedding_model)
    VALUES (t.id, t.tenant, t."user", t.key, t.environment, t.conversation, t.plugin, v_reserved.plan, 'queued', t.input, t.method, t.confidence,
      t.priority, t.max_cost, v_period, v_reserved.overage, t.deadline, least(v_now + interval '10 seconds', t.deadline), t.traceparent, t.request, v_now,
      decode(t.embedding, 'base64'), t.embedding_model);
  -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
  IF t.idempotency_key IS NOT NULL THEN
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      VALUES (t.tenant, t.environment, 'task-submit', t.idempotency_key, t.request_sha256, t.id);
  END IF;
  RETURN QUERY SELECT 'admitted', t.id, v_now, NULL::int, v_reserved.overage, NULL::text;
END $$;

-- What an admission of this plan would find, for a dry run. Nothing is written, nothing is locked.
DROP FUNCTION preview_plan(uuid, text, jsonb);
CREATE FUNCTION preview_plan(p_tenant uuid, p_environment text, p_plan jsonb)
RETURNS TABLE (plugin text, steps int, subscribed boolean, sandbox boolean, quota_limit int, overage_enabled boolean, used int, reserved int) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT q.plugin, q.steps, q.subscribed, q.sandbox, q.quota_limit, q.overage_enabled, q.used, q.reserved
    FROM plan_quota(p_tenant, p_environment, date_trunc('month', now() AT TIME ZONE 'UTC')::date, p_plan) q;
END $$;

-- As in 0008, with the sandbox.
CREATE OR REPLACE FUNCTION answer_task(p_tenant uuid, p_id uuid, p_plugin text, p_plan jsonb)
RETURNS TABLE (outcome text, traceparent text, quota_limit int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; v_reserved record; v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date; v_deadline timestamptz; v_refused text; v_limit int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;

  IF t.status <> 'pending' THEN
    v_refused := CASE WHEN t.routing_method = 'clarified' AND t.plugin_name = p_plugin THEN 'answered_before' ELSE 'not_pending' END;
  ELSIF t.deadline < now() THEN
    v_refused := 'too_late';
  ELSIF NOT t.input_request->'candidates' @> jsonb_build_array(jsonb_build_object('plugin', p_plugin)) THEN
    v_refused := 'no_candidate';
  ELSE
    SELECT * INTO v_reserved FROM reserve_plan(p_tenant, t.environment, v_period, p_plan);
    v_refused := v_reserved.refused;
    v_limit := v_reserved.quota_limit;
  END IF;
  IF v_refused IS NOT NULL THEN
    RETURN QUERY SELECT v_refused, t.traceparent, v_limit;
    RETURN;
  END IF;

  -- The time in which an answer was awaited is not taken from the plugin, unless the caller named the hour.
  v_deadline := coalesce(now() + (t.input_request->>'run_ms')::int * interval '1 millisecond', t.deadline);
  UPDATE tasks SET status = 'queued', plugin_name = p_plugin, plan = v_reserved.plan, routing_method = 'clarified', routing_confidence = 1, reserved_period = v_period,
      overage = v_reserved.overage, deadline = v_deadline, next_ring_at = least(now() + interval '10 seconds', v_deadline), event_seq = event_seq + 1
    WHERE id = p_id;
  INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES (p_id, t.event_seq + 1, p_tenant, 'answered', jsonb_build_object('plugin', p_plugin));
  RETURN QUERY SELECT 'answered', t.traceparent, NULL::int;
END $$;

-- As in 0013. The fallback's execution is its own: it is reserved on its own quota when it is first needed, beside the first plugin's, and the
-- end of the task uses that of the one that answered. No row: none is there, it has no room, or the lease is lost.
CREATE OR REPLACE FUNCTION lock_fallback(p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text)
RETURNS TABLE (plugin text, version text, endpoint text, manifest jsonb, config jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t record; v_locked jsonb; v_found record; v_total int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT k.fallbacks -> p_step AS locked, k.environment, k.reserved_period INTO t FROM tasks k
    WHERE k.id = p_task AND k.lease_token = p_lease AND k.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;

  v_locked := t.locked;
  IF v_locked IS NULL THEN
    SELECT pv.version, s.quota_limit, s.overage_enabled INTO v_found
      FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id JOIN subscriptions s ON s.plugin_id = p.id AND s.tenant_id = p_tenant AND s.ended_at IS NULL
      WHERE p.name = p_plugin AND p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')
      ORDER BY pv.version_sort[4] DESC, pv.version_sort DESC LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    v_locked := jsonb_build_object('plugin', p_plugin, 'version', v_found.version);
    IF t.reserved_period IS NOT NULL THEN
      v_total := reserve_executions(p_tenant, p_plugin, t.environment, t.reserved_period, 1, v_found.quota_limit, v_found.overage_enabled);
      IF v_total IS NULL THEN RETURN; END IF;
      v_locked := v_locked || jsonb_build_object('period', t.reserved_period);
    END IF;
    UPDATE tasks k SET fallbacks = coalesce(k.fallbacks, '{}') || jsonb_build_object(p_step, v_locked) WHERE k.id = p_task;
  END IF;

  RETURN QUERY
    SELECT p.name, pv.version, pv.endpoint, pv.manifest, coalesce(c.config, '{}')
    FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id AND pv.version = v_locked ->> 'version'
    LEFT JOIN tenant_plugin_config c ON c.tenant_id = p_tenant AND c.plugin_id = p.id
    WHERE p.name = p_plugin AND p.name = v_locked ->> 'plugin';
END $$;

-- Ends tasks: the one place where a terminal status is written. The caller holds the row locks and has entered a role. Every execution that was
-- reserved is used or given back here, and counted in usage_days. Overage is what is used beyond the limit, whichever task that was: what was admitted
-- as overage is none when others have made room by then. Usage rows are locked before rows of usage_days, each in the order of their keys.
CREATE OR REPLACE FUNCTION finish_tasks(p_ends task_end[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_day date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  -- An open call of an executor that is gone really may have happened: it stays listed, and is billed to nobody. It is closed before the
  -- sums are read: one that its gateway closes, and pays, in this moment counts.
  UPDATE llm_calls c SET state = 'unknown', finished_at = now() FROM unnest(p_ends) e
    WHERE c.task_id = e.task_id AND CASE c.state WHEN 'started' THEN true END;

  WITH was AS (
    SELECT t.id, t.tenant_id, t.user_id, t.api_key_id, t.plugin_name, t.plan, jsonb_array_length(t.plan) AS steps, t.fallbacks, t.environment, t.reserved_period,
        t.routing_method, t.attempt, t.event_seq, e.status, e.status IN ('success', 'partial') AS is_done, e.result, e.error,
        e.events || jsonb_build_array(jsonb_build_object('type', 'finished', 'data', jsonb_build_object('status', e.status))) AS events
      FROM unnest(p_ends) e JOIN tasks t ON t.id = e.task_id
  ), called AS (
    -- A failed call costs the tenant nothing; what the provider counted of it, and the ceiling of one whose outcome is unknown, are the platform's.
    SELECT c.task_id, c.step, c.model, c.price_version, max(c.plugin_name) AS plugin_name, count(*) FILTER (WHERE c.state = 'done') AS done,
        coalesce(sum(c.input_tokens) FILTER (WHERE c.state = 'done'), 0) AS input_tokens, coalesce(sum(c.output_tokens) FILTER (WHERE c.state = 'done'), 0) AS output_tokens,
        coalesce(sum(c.cache_write_tokens) FILTER (WHERE c.state = 'done'), 0) AS cache_write_tokens, coalesce(sum(c.cache_read_tokens) FILTER (WHERE c.state = 'done'), 0) AS cache_read_tokens,
        coalesce(sum(c.cost_micro_usd) FILTER (WHERE c.state = 'done'), 0) AS cost, coalesce(sum(c.cost_micro_usd) FILTER (WHERE c.state = 'failed'), 0) AS lost,
        count(*) FILTER (WHERE c.state = 'unknown')::int AS unknown_calls,
        coalesce(sum(CASE WHEN c.usage IS NULL THEN c.ceiling_micro_usd ELSE c.cost_micro_usd END) FILTER (WHERE c.state = 'unknown'), 0) AS unknown_cost
      FROM unnest(p_ends) e JOIN llm_calls c ON c.task_id = e.task_id GROUP BY c.task_id, c.step, c.model, c.price_version
  ), paid AS (
    SELECT c.task_id, c.step, max(c.plugin_name) AS plugin_name, max(c.model) AS model, sum(c.input_tokens) AS input_tokens, sum(c.output_tokens) AS output_tokens,
        sum(c.cache_write_tokens + c.cache_read_tokens) AS cache_tokens, sum(c.cost) AS cost
      FROM called c WHERE c.done > 0 GROUP BY c.task_id, c.step
  ), ended AS (
    UPDATE tasks t SET status = w.status, result = w.result, error = w.error, completed_at = now(), lease_until = NULL, next_ring_at = NULL, reserved_period = NULL,
        context = NULL, command_embedding = NULL, command_embedding_model = NULL,
        tokens_used = coalesce((SELECT sum(p.input_tokens + p.output_tokens + p.cache_tokens) FROM paid p WHERE p.task_id = w.id), 0),
        cost_micro_usd = coalesce((SELECT sum(p.cost) FROM paid p WHERE p.task_id = w.id), 0),
        event_seq = w.event_seq + jsonb_array_length(w.events)
      FROM was w WHERE t.id = w.id
  ), kept AS (
    -- Each step holds one execution of its plugin, whatever became of it, and one of its fallback where that was asked.
    SELECT k.*, CASE WHEN k.sandbox THEN 'sandbox' ELSE k.environment END AS counted_as, CASE WHEN k.sandbox THEN sandbox_period() ELSE k.period END AS counted_in,
        row_number() OVER (PARTITION BY k.tenant_id, k.plugin, k.sandbox, k.environment, k.period ORDER BY k.is_used DESC, k.id, k.step) AS n
      FROM (
        SELECT w.id, w.tenant_id, w.environment, w.plan->0->>'id' AS step, w.plugin_name AS plugin, w.reserved_period AS period, w.is_done AS is_used,
            coalesce((w.plan->0->>'sandbox')::boolean, false) AS sandbox
          FROM was w WHERE w.reserved_period IS NOT NULL AND w.steps = 1 AND w.fallbacks IS NULL
        UNION ALL
        SELECT w.id, w.tenant_id, w.environment, p.id, p.plugin, w.reserved_period, coalesce(w.is_done AND s.status IN ('success', 'partial') AND s.plugin_name = p.plugin, false),
            coalesce(p.sandbox, false)
          FROM was w CROSS JOIN jsonb_to_recordset(w.plan) AS p(id text, plugin text, sandbox boolean) LEFT JOIN task_steps s ON s.task_id = w.id AND s.step = p.id
          WHERE w.reserved_period IS NOT NULL AND (w.steps > 1 OR w.fallbacks IS NOT NULL)
        UNION ALL
        SELECT w.id, w.tenant_id, w.environment, f.key, f.value->>'plugin', (f.value->>'period')::date,
            coalesce(w.is_done AND s.status IN ('success', 'partial') AND s.plugin_name = f.value->>'plugin', false), false
          FROM was w CROSS JOIN jsonb_each(w.fallbacks) f LEFT JOIN task_steps s ON s.task_id = w.id AND s.step = f.key
          WHERE w.reserved_period IS NOT NULL AND w.fallbacks IS NOT NULL AND f.value ? 'period'
      ) k
  ), held AS (
    SELECT r.*, u.used AS used_before, u.quota_limit, u.overage_enabled FROM (
        SELECT k.tenant_id, k.plugin, k.counted_as, k.counted_in, count(*)::int AS reserved, (count(*) FILTER (WHERE k.is_used))::int AS used
          FROM kept k GROUP BY k.tenant_id, k.plugin, k.counted_as, k.counted_in
      ) r
      JOIN usage_periods u ON u.tenant_id = r.tenant_id AND u.plugin_name = r.plugin AND u.environment = r.counted_as AND u.period_start = r.counted_in
      ORDER BY r.tenant_id, r.plugin, r.counted_as, r.counted_in FOR NO KEY UPDATE OF u
  ), returned AS (
    UPDATE usage_periods u SET reserved = u.reserved - h.reserved, used = u.used + h.used
      FROM held h WHERE u.tenant_id = h.tenant_id AND u.plugin_name = h.plugin AND u.environment = h.counted_as AND u.period_start = h.counted_in
  ), billed AS (
    INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, actor_ref, status, model, tokens_used,
        input_tokens, output_tokens, cache_tokens, latency_ms, cost_micro_usd, routing_method, envelope_version, billable, overage)
      SELECT w.tenant_id, d.plugin_name, d.plugin_version, w.id, d.step, coalesce(d.attempt, w.attempt), w.environment, w.user_id::text, d.status, d.model,
          d.input_tokens + d.output_tokens + d.cache_tokens, d.input_tokens, d.output_tokens, d.cache_tokens, d.latency_ms, d.cost, w.routing_method, '1.0',
          d.status IN ('success', 'partial') AND w.is_done AND w.environment = 'live' AND NOT coalesce(k.sandbox, false),
          coalesce(k.is_used AND k.environment = 'live' AND h.overage_enabled AND h.used_before + k.n > h.quota_limit, false)
        FROM was w JOIN (
          -- What ran, with what it paid; and what paid and never came to an end.
          SELECT s.task_id, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, coalesce(s.latency_ms, 0) AS latency_ms, p.model,
              coalesce(p.input_tokens, 0) AS input_tokens, coalesce(p.output_tokens, 0) AS output_tokens, coalesce(p.cache_tokens, 0) AS cache_tokens, coalesce(p.cost, 0) AS cost
            FROM unnest(p_ends) e JOIN task_steps s ON s.task_id = e.task_id LEFT JOIN paid p ON p.task_id = s.task_id AND p.step = s.step
            WHERE s.latency_ms IS NOT NULL OR p.step IS NOT NULL
          UNION ALL
          SELECT p.task_id, p.step, p.plugin_name, '', NULL, 'failed', 0, p.model, p.input_tokens, p.output_tokens, p.cache_tokens, p.cost
            FROM paid p WHERE NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p.task_id AND s.step = p.step)
        ) d ON d.task_id = w.id
        LEFT JOIN kept k ON k.id = w.id AND k.step = d.step AND k.plugin = d.plugin_name
        LEFT JOIN held h ON h.tenant_id = k.tenant_id AND h.plugin = k.plugin AND h.counted_as = k.counted_as AND h.counted_in = k.counted_in
      ON CONFLICT (task_id, step) DO NOTHING
      RETURNING tenant_id, plugin_name, task_id, step, environment, billable, overage
  ), counted AS (
    INSERT INTO usage_days AS y (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, executions, billable, overage, input_tokens, output_tokens,
        cache_write_tokens, cache_read_tokens, cost_micro_usd, unbilled_tokens, unbilled_micro_usd, unknown_calls, unknown_micro_usd)
      SELECT s.tenant_id, v_day, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version,
          sum(s.is_first), sum(CASE WHEN s.billable THEN s.is_first ELSE 0 END), sum(CASE WHEN s.overage THEN s.is_first ELSE 0 END),
          coalesce(sum(s.input_tokens) FILTER (WHERE s.billable), 0), coalesce(sum(s.output_tokens) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.cache_write_tokens) FILTER (WHERE s.billable), 0), coalesce(sum(s.cache_read_tokens) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.cost) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.input_tokens + s.output_tokens + s.cache_write_tokens + s.cache_read_tokens) FILTER (WHERE NOT s.billable), 0),
          coalesce(sum(s.cost) FILTER (WHERE NOT s.billable), 0) + coalesce(sum(s.lost), 0), coalesce(sum(s.unknown_calls), 0), coalesce(sum(s.unknown_cost), 0)
        FROM (
          SELECT b.tenant_id, b.plugin_name, b.environment, w.api_key_id, b.billable, b.overage, c.model, c.price_version, c.input_tokens, c.output_tokens, c.cache_write_tokens,
              c.cache_read_tokens, c.cost, c.lost, c.unknown_calls, c.unknown_cost,
              (row_number() OVER (PARTITION BY b.task_id, b.step ORDER BY c.cost DESC NULLS LAST, c.model, c.price_version) = 1)::int AS is_first
            FROM billed b JOIN was w ON w.id = b.task_id LEFT JOIN called c ON c.task_id = b.task_id AND c.step = b.step
          UNION ALL
          SELECT w.tenant_id, c.plugin_name, w.environment, w.api_key_id, false, false, c.model, c.price_version, 0, 0, 0, 0, 0, c.lost, c.unknown_calls, c.unknown_cost, 0
            FROM called c JOIN was w ON w.id = c.task_id
            WHERE c.lost + c.unknown_calls > 0 AND NOT EXISTS (SELECT FROM billed b WHERE b.task_id = c.task_id AND b.step = c.step)
        ) s
        GROUP BY s.tenant_id, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version
        ORDER BY s.tenant_id, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version
      ON CONFLICT (tenant_id, day, plugin_name, environment, api_key_id, model, price_version) WHERE invoice_id IS NULL DO UPDATE SET
        executions = y.executions + EXCLUDED.executions, billable = y.billable + EXCLUDED.billable, overage = y.overage + EXCLUDED.overage,
        input_tokens = y.input_tokens + EXCLUDED.input_tokens, output_tokens = y.output_tokens + EXCLUDED.output_tokens,
        cache_write_tokens = y.cache_write_tokens + EXCLUDED.cache_write_tokens, cache_read_tokens = y.cache_read_tokens + EXCLUDED.cache_read_tokens,
        cost_micro_usd = y.cost_micro_usd + EXCLUDED.cost_micro_usd, unbilled_tokens = y.unbilled_tokens + EXCLUDED.unbilled_tokens,
        unbilled_micro_usd = y.unbilled_micro_usd + EXCLUDED.unbilled_micro_usd, unknown_calls = y.unknown_calls + EXCLUDED.unknown_calls,
        unknown_micro_usd = y.unknown_micro_usd + EXCLUDED.unknown_micro_usd
  )
  INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
    SELECT w.id, w.event_seq + e.ordinality, w.tenant_id, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
      FROM was w CROSS JOIN jsonb_array_elements(w.events) WITH ORDINALITY e;
END $$;

-- A function that is replaced forgets its settings; 0005 says why it has them.
DO $$
DECLARE f regprocedure;
BEGIN
  FOREACH f IN ARRAY ARRAY['admit_tasks(jsonb)', 'finish_tasks(task_end[])']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_hashjoin = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', f);
  END LOOP;
END $$;

-- Subscribes a tenant to a plugin: `subscribed`; `unknown`, `deprecated` (it takes no new subscriptions), `already` (with the subscription that there is),
-- `no_overage`, `limit_reached`: then nothing is written. The tenant's row is locked, so that of two at once the second counts the first.
CREATE FUNCTION subscribe(p_tenant uuid, p_id uuid, p_plugin text, p_overage boolean, p_plans jsonb)
RETURNS TABLE (outcome text, subscription uuid, tier text, plugins_included int) LANGUAGE plpgsql AS $$
DECLARE v_tier text; v_plan jsonb; v_plugin record; v_live uuid; v_refused text;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT t.plan_tier INTO v_tier FROM tenants t WHERE t.id = p_tenant FOR NO KEY UPDATE;
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  v_plan := p_plans -> v_tier;

  SELECT p.id, p.status INTO v_plugin FROM plugins p WHERE p.name = p_plugin AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = p_tenant)
    AND p.status IN ('active', 'deprecated') AND EXISTS (SELECT FROM plugin_versions v WHERE v.plugin_id = p.id AND v.status IN ('active', 'deprecated'));
  SELECT s.id INTO v_live FROM subscriptions s WHERE s.tenant_id = p_tenant AND s.plugin_id = v_plugin.id AND s.ended_at IS NULL;
  v_refused := CASE
    WHEN v_plugin.id IS NULL THEN 'unknown'
    WHEN v_live IS NOT NULL THEN 'already'
    WHEN v_plugin.status = 'deprecated' THEN 'deprecated'
    WHEN p_overage AND v_plan ->> 'overage' IS NULL THEN 'no_overage'
    WHEN (SELECT count(*) FROM subscriptions s WHERE s.tenant_id = p_tenant AND s.ended_at IS NULL) >= (v_plan ->> 'plugins')::int THEN 'limit_reached' END;
  IF v_refused IS NOT NULL THEN
    RETURN QUERY SELECT v_refused, v_live, v_tier, (v_plan ->> 'plugins')::int;
    RETURN;
  END IF;
  INSERT INTO subscriptions (id, tenant_id, plugin_id, tier, quota_limit, overage_enabled)
    VALUES (p_id, p_tenant, v_plugin.id, v_tier, (v_plan ->> 'quota')::int, p_overage);
  RETURN QUERY SELECT 'subscribed', p_id, v_tier, (v_plan ->> 'plugins')::int;
END $$;

-- Free executions of a plugin that a tenant has left; no row where it is subscribed, or where the plugin cannot be tried.
CREATE FUNCTION sandbox_left(p_tenant uuid, p_plugin text) RETURNS TABLE (tries int, tries_left int) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT q.quota_limit, greatest(0, q.quota_limit - q.used - q.reserved) FROM plan_quota(p_tenant, 'live', sandbox_period(), jsonb_build_array(jsonb_build_object('plugin', p_plugin))) q
      WHERE q.sandbox;
END $$;

-- What a tenant used from one day to another, both included, added up by what `p_by` names: plugin, day, key, model.
CREATE FUNCTION usage_report(p_tenant uuid, p_environment text, p_from date, p_to date, p_by text[], p_limit int)
RETURNS TABLE (plugin text, day text, api_key_id uuid, model text, executions text, billable text, overage text, input_tokens text, output_tokens text, cache_write_tokens text,
               cache_read_tokens text, cost_micro_usd text, unbilled_tokens text, unbilled_micro_usd text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT g.plugin, g.day::text, g.key, g.model, sum(y.executions)::text, sum(y.billable)::text, sum(y.overage)::text, sum(y.input_tokens)::text, sum(y.output_tokens)::text,
        sum(y.cache_write_tokens)::text, sum(y.cache_read_tokens)::text, sum(y.cost_micro_usd)::text, sum(y.unbilled_tokens)::text, sum(y.unbilled_micro_usd)::text
      FROM usage_days y CROSS JOIN LATERAL (SELECT CASE WHEN 'plugin' = ANY (p_by) THEN y.plugin_name END AS plugin, CASE WHEN 'day' = ANY (p_by) THEN y.day END AS day,
        CASE WHEN 'key' = ANY (p_by) THEN y.api_key_id END AS key, CASE WHEN 'model' = ANY (p_by) THEN y.model END AS model) g
      WHERE y.tenant_id = p_tenant AND y.environment = p_environment AND y.day BETWEEN p_from AND p_to
      GROUP BY g.plugin, g.day, g.key, g.model ORDER BY g.day, g.plugin, g.key, g.model LIMIT p_limit;
END $$;

-- Where the tenant stands with its quotas this month, and with plugins that it has tried: running executions are `reserved`.
CREATE FUNCTION quota_report(p_tenant uuid, p_environment text)
RETURNS TABLE (plugin text, sandbox boolean, period_start text, used int, reserved int, quota_limit int, overage_enabled boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT p.name, false, m.month::text, coalesce(u.used, 0), coalesce(u.reserved, 0), s.quota_limit, s.overage_enabled
      FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id
      CROSS JOIN (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS month) m
      LEFT JOIN usage_periods u ON u.tenant_id = p_tenant AND u.plugin_name = p.name AND u.environment = p_environment AND u.period_start = m.month
      WHERE s.tenant_id = p_tenant AND s.ended_at IS NULL
    UNION ALL
    SELECT u.plugin_name, true, NULL, u.used, u.reserved, sandbox_limit(), false FROM usage_periods u
      WHERE u.tenant_id = p_tenant AND u.environment = 'sandbox' AND u.used + u.reserved > 0
    ORDER BY 2, 1;
END $$;
