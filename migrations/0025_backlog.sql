-- Why: a tenant that queues ten thousand tasks must not have everybody else wait behind them. Who admits a task now hears how many executions of its
-- plugin the tenant has open, this one included (`backlog`: the reservation counts them already), and rings for what is beyond a share in a
-- stream of its own.

-- As in 0019.
DROP FUNCTION admit_tasks(jsonb);
CREATE FUNCTION admit_tasks(p_batch jsonb)
RETURNS TABLE (place int, outcome text, task_id uuid, created_at timestamptz, quota_used int, quota_limit int, overage boolean, sandbox boolean, backlog int) LANGUAGE plpgsql AS $$
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
    SELECT g.*, u.used + u.reserved AS total, u.reserved AS open, u.warned
      FROM (SELECT DISTINCT a.tenant, a.plugin, a.counted_as, a.counted_in FROM asked a WHERE a.known_task IS NULL AND a.is_open) g
      JOIN usage_periods u ON u.tenant_id = g.tenant AND u.plugin_name = g.plugin AND u.environment = g.counted_as AND u.period_start = g.counted_in
      ORDER BY g.tenant, g.plugin, g.counted_as, g.counted_in FOR NO KEY UPDATE OF u
  ), admitted AS MATERIALIZED (
    SELECT * FROM (
        SELECT a.*, (h.total + row_number() OVER w)::int AS total, (h.open + row_number() OVER w)::int AS backlog, h.warned
          FROM asked a JOIN held h ON h.tenant = a.tenant AND h.plugin = a.plugin AND h.counted_as = a.counted_as
          WHERE a.known_task IS NULL AND a.is_open
          WINDOW w AS (PARTITION BY a.tenant, a.plugin, a.counted_as ORDER BY a.id)
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
      coalesce(d.total > d.quota_limit, false) AS overage, a.sandbox AND a.known_task IS NULL AS sandbox, crosses_quota(a.counted_as, d.total, a.quota_limit, d.warned) AS warns,
      coalesce(d.backlog, 0) AS backlog
    FROM asked a LEFT JOIN admitted d ON d.place = a.place
  LOOP
    place := r.place; outcome := r.outcome; task_id := r.task_id; created_at := r.created_at; quota_used := r.quota_used; quota_limit := r.quota_limit;
    overage := r.overage; sandbox := r.sandbox; backlog := r.backlog; v_warns := v_warns OR r.warns;
    RETURN NEXT;
  END LOOP;

  IF v_warns THEN
    PERFORM warn_of_quota(g.tenant, g.plugin, v_period) FROM (SELECT DISTINCT b.tenant, b.plugin FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text) ORDER BY 1, 2) g;
  END IF;
END $$;

-- As in 0019.
DROP FUNCTION admit_plan(jsonb);
CREATE FUNCTION admit_plan(p_task jsonb)
RETURNS TABLE (outcome text, task_id uuid, created_at timestamptz, quota_limit int, overage boolean, plugin text, backlog int) LANGUAGE plpgsql AS $$
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
      RETURN QUERY SELECT CASE WHEN v_old.request_sha256 = t.request_sha256 THEN 'replayed' ELSE 'key_reused' END, v_old.task_id, v_old.created_at, NULL::int, false, NULL::text, 0;
      RETURN;
    ELSIF FOUND THEN
      DELETE FROM idempotency_keys i WHERE i.tenant_id = t.tenant AND i.environment = t.environment AND i.route = 'task-submit' AND i.key = t.idempotency_key;
    END IF;
  END IF;

  SELECT * INTO v_reserved FROM reserve_plan(t.tenant, t.environment, v_period, t.plan);
  IF v_reserved.refused IS NOT NULL THEN
    RETURN QUERY SELECT v_reserved.refused, NULL::uuid, NULL::timestamptz, v_reserved.quota_limit, false, v_reserved.plugin, 0;
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
  RETURN QUERY SELECT 'admitted', t.id, v_now, NULL::int, v_reserved.overage, NULL::text, coalesce((SELECT u.reserved FROM usage_periods u
    WHERE u.tenant_id = t.tenant AND u.plugin_name = t.plugin AND u.environment = t.environment AND u.period_start = v_period), 0);
END $$;

-- A function that is replaced forgets its settings; 0005 says why it has them.
ALTER FUNCTION admit_tasks(jsonb) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION admit_tasks(jsonb) SET enable_seqscan = off;
ALTER FUNCTION admit_tasks(jsonb) SET enable_hashjoin = off;
ALTER FUNCTION admit_tasks(jsonb) SET enable_mergejoin = off;
