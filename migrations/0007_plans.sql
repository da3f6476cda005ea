-- Why: a task may have several steps, each a plugin with a quota of its own. One execution is reserved for every step when the task is
-- admitted, or none at all, so that no task stops half-way for want of quota. What routing has embedded comes with the task, so that nothing
-- embeds the same words twice: float4, little-endian, as in plugin_capabilities. And a dry run reads what an admission would find.

-- As in 0005, with the command's vector, and without a usage row for an admission that is refused.
CREATE OR REPLACE FUNCTION admit_tasks(p_batch jsonb)
RETURNS TABLE (place int, outcome text, task_id uuid, created_at timestamptz, quota_used int, quota_limit int, overage boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_now timestamptz := now(); v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  IF jsonb_path_exists(p_batch, '$[*].idempotency_key ? (@ != null)') THEN
    DELETE FROM idempotency_keys i USING jsonb_to_recordset(p_batch) AS b(tenant uuid, environment text, idempotency_key text)
      WHERE i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key AND i.created_at <= v_now - interval '24 hours';
  END IF;

  -- The first task of a month finds no usage row. One whose idempotency key is known leaves none behind.
  IF EXISTS (SELECT FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text) WHERE NOT EXISTS (SELECT FROM usage_periods u
      WHERE u.tenant_id = b.tenant AND u.plugin_name = b.plugin AND u.environment = b.environment AND u.period_start = v_period)) THEN
    INSERT INTO usage_periods (tenant_id, plugin_name, environment, period_start)
      SELECT DISTINCT b.tenant, b.plugin, b.environment, v_period
        FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text, idempotency_key text)
        LEFT JOIN idempotency_keys i ON i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key
        LEFT JOIN usage_periods u ON u.tenant_id = b.tenant AND u.plugin_name = b.plugin AND u.environment = b.environment AND u.period_start = v_period
        JOIN plugins p ON p.name = b.plugin
        JOIN subscriptions s ON s.tenant_id = b.tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
        WHERE u.tenant_id IS NULL AND i.task_id IS NULL AND (s.quota_limit > 0 OR s.quota_limit IS NULL OR s.overage_enabled)
        ORDER BY 1, 2, 3
      ON CONFLICT DO NOTHING;
  END IF;

  RETURN QUERY WITH asked AS MATERIALIZED (
    SELECT b.*, i.task_id AS known_task, i.request_sha256 AS known_sha256, i.created_at AS known_at, s.id AS subscription, s.quota_limit, s.overage_enabled
      FROM jsonb_to_recordset(p_batch) AS b(place int, tenant uuid, id uuid, "user" uuid, key uuid, environment text, conversation text, plugin text, plan jsonb,
        input jsonb, method text, confidence real, priority text, max_cost bigint, deadline timestamptz, traceparent text, request text, idempotency_key text, request_sha256 text,
        embedding text, embedding_model text)
      LEFT JOIN idempotency_keys i ON i.tenant_id = b.tenant AND i.environment = b.environment AND i.route = 'task-submit' AND i.key = b.idempotency_key
      LEFT JOIN plugins p ON p.name = b.plugin
      LEFT JOIN subscriptions s ON s.tenant_id = b.tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
  ), held AS (
    SELECT g.*, u.used + u.reserved AS total
      FROM (SELECT DISTINCT a.tenant, a.plugin, a.environment FROM asked a WHERE a.known_task IS NULL AND a.subscription IS NOT NULL) g
      JOIN usage_periods u ON u.tenant_id = g.tenant AND u.plugin_name = g.plugin AND u.environment = g.environment AND u.period_start = v_period
      ORDER BY g.tenant, g.plugin, g.environment FOR NO KEY UPDATE OF u
  ), admitted AS MATERIALIZED (
    SELECT * FROM (
        SELECT a.*, (h.total + row_number() OVER (PARTITION BY a.tenant, a.plugin, a.environment ORDER BY a.id))::int AS total
          FROM asked a JOIN held h ON h.tenant = a.tenant AND h.plugin = a.plugin AND h.environment = a.environment
          WHERE a.known_task IS NULL AND a.subscription IS NOT NULL
      ) n WHERE n.quota_limit IS NULL OR n.overage_enabled OR n.total <= n.quota_limit
  ), reserved AS (
    UPDATE usage_periods u SET reserved = u.reserved + n.count
      FROM (SELECT a.tenant, a.plugin, a.environment, count(*)::int AS count FROM admitted a GROUP BY a.tenant, a.plugin, a.environment) n
      WHERE u.tenant_id = n.tenant AND u.plugin_name = n.plugin AND u.environment = n.environment AND u.period_start = v_period
  ), inserted AS (
    INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, routing_confidence,
        priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at,
        command_embedding, command_embedding_model)
      SELECT a.id, a.tenant, a."user", a.key, a.environment, a.conversation, a.plugin, a.plan, 'queued', a.input, a.method, a.confidence,
          a.priority, a.max_cost, v_period, coalesce(a.total > a.quota_limit, false), a.deadline, least(v_now + interval '10 seconds', a.deadline), a.traceparent, a.request, v_now,
          decode(a.embedding, 'base64'), a.embedding_model
        FROM admitted a
  ), keyed AS (
    -- Two submits at once with one key: the batch of the second fails here as a whole, is run again, and finds the first.
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      SELECT a.tenant, a.environment, 'task-submit', a.idempotency_key, a.request_sha256, a.id FROM admitted a WHERE a.idempotency_key IS NOT NULL
  )
  SELECT a.place,
      CASE WHEN a.known_sha256 = a.request_sha256 THEN 'replayed' WHEN a.known_task IS NOT NULL THEN 'key_reused' WHEN a.subscription IS NULL THEN 'not_subscribed'
        WHEN d.id IS NULL THEN 'quota_exceeded' ELSE 'admitted' END,
      coalesce(a.known_task, d.id), coalesce(a.known_at, CASE WHEN d.id IS NOT NULL THEN v_now END), coalesce(d.total, 0), a.quota_limit,
      coalesce(d.total > d.quota_limit, false)
    FROM asked a LEFT JOIN admitted d ON d.place = a.place;
END $$;

-- A function that is replaced forgets its settings; 0005 says why it has them.
ALTER FUNCTION admit_tasks(jsonb) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION admit_tasks(jsonb) SET enable_seqscan = off;
ALTER FUNCTION admit_tasks(jsonb) SET enable_hashjoin = off;
ALTER FUNCTION admit_tasks(jsonb) SET enable_mergejoin = off;

-- What a plan asks of one plugin, and what the tenant has of it. In the order in which usage rows are locked everywhere.
CREATE FUNCTION plan_quota(p_tenant uuid, p_environment text, p_period date, p_plan jsonb)
RETURNS TABLE (plugin text, steps int, subscribed boolean, quota_limit int, overage_enabled boolean, used int, reserved int) LANGUAGE sql STABLE AS $$
  SELECT d.plugin, d.steps, s.id IS NOT NULL, s.quota_limit, coalesce(s.overage_enabled, false), coalesce(u.used, 0), coalesce(u.reserved, 0)
  FROM (SELECT step.value->>'plugin' AS plugin, count(*)::int AS steps FROM jsonb_array_elements(p_plan) step GROUP BY 1) d
  LEFT JOIN plugins p ON p.name = d.plugin
  LEFT JOIN subscriptions s ON s.tenant_id = p_tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
  LEFT JOIN usage_periods u ON u.tenant_id = p_tenant AND u.plugin_name = d.plugin AND u.environment = p_environment AND u.period_start = p_period
  ORDER BY d.plugin
$$;

-- Admits a task of several steps: as admit_tasks, but `not_subscribed` and `quota_exceeded` name the plugin, and steps over a quota are marked `overage` in
-- the plan. It comes alone, not in a batch: it locks several usage rows, and may give them back.
CREATE FUNCTION admit_plan(p_task jsonb)
RETURNS TABLE (outcome text, task_id uuid, created_at timestamptz, quota_limit int, overage boolean, plugin text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  t record; v_old record; w record; v_total int; v_over int; v_overs jsonb := '{}'; v_plan jsonb;
  v_now timestamptz := now(); v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
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

  SELECT * INTO w FROM plan_quota(t.tenant, t.environment, v_period, t.plan) q WHERE NOT q.subscribed LIMIT 1;
  IF FOUND THEN
    RETURN QUERY SELECT 'not_subscribed', NULL::uuid, NULL::timestamptz, NULL::int, false, w.plugin;
    RETURN;
  END IF;

  -- All of this block or nothing: what an earlier plugin had reserved goes back when a later one has no room.
  BEGIN
    FOR w IN SELECT * FROM plan_quota(t.tenant, t.environment, v_period, t.plan) LOOP
      v_total := NULL;
      IF w.quota_limit IS NULL OR w.overage_enabled OR w.steps <= w.quota_limit THEN
        INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved)
          VALUES (t.tenant, w.plugin, t.environment, v_period, w.steps)
          ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + w.steps
            WHERE w.quota_limit IS NULL OR w.overage_enabled OR u.used + u.reserved + w.steps <= w.quota_limit
          RETURNING u.used + u.reserved INTO v_total;
      END IF;
      IF v_total IS NULL THEN RAISE EXCEPTION USING ERRCODE = 'AAU01'; END IF;
      v_over := greatest(0, least(w.steps, coalesce(v_total - w.quota_limit, 0)));
      IF v_over > 0 THEN v_overs := v_overs || jsonb_build_object(w.plugin, v_over); END IF;
    END LOOP;

    -- The last steps of a plugin are those over its quota.
    v_plan := CASE WHEN v_overs = '{}' THEN t.plan ELSE (
      SELECT jsonb_agg(CASE WHEN s.rank <= coalesce((v_overs->>(s.step->>'plugin'))::int, 0) THEN s.step || '{"overage": true}' ELSE s.step END ORDER BY s.place)
      FROM (SELECT e.value AS step, e.ordinality AS place, row_number() OVER (PARTITION BY e.value->>'plugin' ORDER BY e.ordinality DESC) AS rank
            FROM jsonb_array_elements(t.plan) WITH ORDINALITY e) s) END;

    INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, routing_confidence,
        priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at, command_embedding, command_embedding_model)
      VALUES (t.id, t.tenant, t."user", t.key, t.environment, t.conversation, t.plugin, v_plan, 'queued', t.input, t.method, t.confidence,
        t.priority, t.max_cost, v_period, v_overs <> '{}', t.deadline, least(v_now + interval '10 seconds', t.deadline), t.traceparent, t.request, v_now,
        decode(t.embedding, 'base64'), t.embedding_model);

    -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
    IF t.idempotency_key IS NOT NULL THEN
      INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
        VALUES (t.tenant, t.environment, 'task-submit', t.idempotency_key, t.request_sha256, t.id);
    END IF;
  EXCEPTION WHEN SQLSTATE 'AAU01' THEN
    RETURN QUERY SELECT 'quota_exceeded', NULL::uuid, NULL::timestamptz, w.quota_limit, false, w.plugin;
    RETURN;
  END;
  RETURN QUERY SELECT 'admitted', t.id, v_now, NULL::int, v_overs <> '{}', NULL::text;
END $$;

-- What an admission of this plan would find, for a dry run. Nothing is written, nothing is locked.
CREATE FUNCTION preview_plan(p_tenant uuid, p_environment text, p_plan jsonb)
RETURNS TABLE (plugin text, steps int, subscribed boolean, quota_limit int, overage_enabled boolean, used int, reserved int) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT q.* FROM plan_quota(p_tenant, p_environment, date_trunc('month', now() AT TIME ZONE 'UTC')::date, p_plan) q;
END $$;

-- What the tenant's own latest executions of these plugins cost with these models: the 10th and the 90th percentile, in micro-USD. Only the
-- last 2,000 executions are looked at, so that this costs a large tenant no more than a small one.
CREATE FUNCTION recent_costs(p_tenant uuid, p_plugins text[], p_models text[])
RETURNS TABLE (plugin text, executions int, low text, high text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT e.plugin_name, count(*)::int, (percentile_disc(0.1) WITHIN GROUP (ORDER BY e.cost_micro_usd))::text, (percentile_disc(0.9) WITHIN GROUP (ORDER BY e.cost_micro_usd))::text
    FROM (SELECT x.plugin_name, x.model, x.status, x.cost_micro_usd FROM execution_events x WHERE x.tenant_id = p_tenant ORDER BY x.timestamp DESC LIMIT 2000) e
    JOIN unnest(p_plugins, p_models) AS w(plugin, model) ON w.plugin = e.plugin_name AND w.model = e.model
    WHERE e.status IN ('success', 'partial')
    GROUP BY e.plugin_name;
END $$;
