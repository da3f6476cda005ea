-- Why: what is billed is what was so at the time. A tenant's plan has a history: its fee goes by the days of each tier, and an execution is priced by the
-- tier under which it was settled. A month whose quota a subscription has drawn on is paid to its end. What a plugin spent on a step that its
-- fallback answered is not the fallback's, nor the tenant's; and a quota that changes is one to be warned of anew.

-- The tier that holds from a time on. Before its first row a tenant was what that row says.
CREATE TABLE tenant_plans (
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  from_at timestamptz NOT NULL,
  tier text NOT NULL,
  PRIMARY KEY (tenant_id, from_at)
);
ALTER TABLE tenant_plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_plans FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenant_plans TO aau_app USING (tenant_id = (SELECT app_tenant()));
CREATE POLICY all_tenants ON tenant_plans TO aau_platform USING (true) WITH CHECK (true);
GRANT SELECT ON tenant_plans TO aau_app;
GRANT SELECT, INSERT, UPDATE ON tenant_plans TO aau_platform;

-- Whoever makes a tenant, or changes its tier, leaves it in the history.
CREATE FUNCTION note_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO tenant_plans (tenant_id, from_at, tier) VALUES (NEW.id, CASE TG_OP WHEN 'INSERT' THEN NEW.created_at ELSE now() END, NEW.plan_tier)
    ON CONFLICT (tenant_id, from_at) DO UPDATE SET tier = EXCLUDED.tier;
  RETURN NULL;
END $$;
CREATE TRIGGER note_new_plan AFTER INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION note_plan();
CREATE TRIGGER note_plan AFTER UPDATE OF plan_tier ON tenants FOR EACH ROW WHEN (NEW.plan_tier <> OLD.plan_tier) EXECUTE FUNCTION note_plan();
INSERT INTO tenant_plans (tenant_id, from_at, tier) SELECT t.id, t.created_at, t.plan_tier FROM tenants t;

-- A day is the tier's that held at its end.
CREATE FUNCTION tier_on(p_tenant uuid, p_day date) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    (SELECT h.tier FROM tenant_plans h WHERE h.tenant_id = p_tenant AND h.from_at < (p_day + 1)::timestamp AT TIME ZONE 'UTC' ORDER BY h.from_at DESC LIMIT 1),
    (SELECT h.tier FROM tenant_plans h WHERE h.tenant_id = p_tenant ORDER BY h.from_at LIMIT 1))
$$;

-- The tenant's tier when the executions of the row were settled.
ALTER TABLE usage_days ADD COLUMN plan_tier text;
UPDATE usage_days y SET plan_tier = t.plan_tier FROM tenants t WHERE t.id = y.tenant_id;
ALTER TABLE usage_days ALTER COLUMN plan_tier SET NOT NULL;
DROP INDEX usage_days_open;
CREATE UNIQUE INDEX usage_days_open ON usage_days (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, plan_tier) NULLS NOT DISTINCT WHERE invoice_id IS NULL;

-- The plugins that asked: a step and its fallback ask as one step. Empty where that was not yet put down.
ALTER TABLE chained_steps ADD COLUMN asked_by text[] NOT NULL DEFAULT '{}';

-- As in 0019, once for each limit that a quota has in a month.
CREATE OR REPLACE FUNCTION warn_of_quota(p_tenant uuid, p_plugin text, p_period date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE u usage_periods; v_percent int;
BEGIN
  SELECT * INTO u FROM usage_periods p WHERE p.tenant_id = p_tenant AND p.plugin_name = p_plugin AND p.environment = 'live' AND p.period_start = p_period FOR NO KEY UPDATE;
  FOREACH v_percent IN ARRAY ARRAY[80, 100] LOOP
    IF u.warned < v_percent AND (u.used + u.reserved)::bigint * 100 >= u.quota_limit::bigint * v_percent THEN
      UPDATE usage_periods p SET warned = v_percent WHERE p.tenant_id = p_tenant AND p.plugin_name = p_plugin AND p.environment = 'live' AND p.period_start = p_period;
      PERFORM enqueue_webhook_event(p_tenant, 'quota.warning', format('%s:%s:%s:%s', p_plugin, p_period, v_percent, u.quota_limit), jsonb_build_object(
        'plugin', p_plugin, 'period_start', p_period, 'percent', v_percent, 'used', u.used, 'reserved', u.reserved, 'limit', u.quota_limit));
    END IF;
  END LOOP;
END $$;

-- As in 0019; what was told of another limit does not count.
CREATE OR REPLACE FUNCTION reserve_executions(p_tenant uuid, p_plugin text, p_environment text, p_period date, p_count int, p_limit int, p_overage boolean)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_total int; v_warned int;
BEGIN
  IF p_limit < p_count AND NOT p_overage THEN RETURN NULL; END IF;
  INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved, quota_limit, overage_enabled)
    VALUES (p_tenant, p_plugin, p_environment, p_period, p_count, p_limit, p_overage)
    ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + p_count, quota_limit = p_limit, overage_enabled = p_overage,
        warned = CASE WHEN u.quota_limit IS DISTINCT FROM p_limit THEN 0 ELSE u.warned END
      WHERE p_limit IS NULL OR p_overage OR u.used + u.reserved + p_count <= p_limit
    RETURNING u.used + u.reserved, u.warned INTO v_total, v_warned;
  IF crosses_quota(p_environment, v_total, p_limit, v_warned) THEN PERFORM warn_of_quota(p_tenant, p_plugin, p_period); END IF;
  RETURN v_total;
END $$;

-- As in 0025; what was told of another limit does not count.
CREATE OR REPLACE FUNCTION admit_tasks(p_batch jsonb)
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
    SELECT g.*, u.used + u.reserved AS total, u.reserved AS open, u.warned, u.quota_limit AS limit_before
      FROM (SELECT DISTINCT a.tenant, a.plugin, a.counted_as, a.counted_in FROM asked a WHERE a.known_task IS NULL AND a.is_open) g
      JOIN usage_periods u ON u.tenant_id = g.tenant AND u.plugin_name = g.plugin AND u.environment = g.counted_as AND u.period_start = g.counted_in
      ORDER BY g.tenant, g.plugin, g.counted_as, g.counted_in FOR NO KEY UPDATE OF u
  ), admitted AS MATERIALIZED (
    SELECT * FROM (
        SELECT a.*, (h.total + row_number() OVER w)::int AS total, (h.open + row_number() OVER w)::int AS backlog,
            CASE WHEN h.limit_before IS DISTINCT FROM a.quota_limit THEN 0 ELSE h.warned END AS warned
          FROM asked a JOIN held h ON h.tenant = a.tenant AND h.plugin = a.plugin AND h.counted_as = a.counted_as
          WHERE a.known_task IS NULL AND a.is_open
          WINDOW w AS (PARTITION BY a.tenant, a.plugin, a.counted_as ORDER BY a.id)
      ) n WHERE n.quota_limit IS NULL OR n.overage_enabled OR n.total <= n.quota_limit
  ), reserved AS (
    UPDATE usage_periods u SET reserved = u.reserved + n.count, quota_limit = n.quota_limit, overage_enabled = n.overage_enabled,
        warned = CASE WHEN u.quota_limit IS DISTINCT FROM n.quota_limit THEN 0 ELSE u.warned END
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

-- As in 0022, by the plugin that made a call and not only by its step: of a step that a fallback answered, the first plugin's calls are kept as
-- unbilled under its own name, and so is what it had others do, unless the fallback asked for the same. Usage stands under the tenant's tier.
CREATE OR REPLACE FUNCTION finish_tasks(p_ends task_end[]) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE v_day date := (now() AT TIME ZONE 'UTC')::date; v_rings uuid[];
BEGIN
  -- An open call of an executor that is gone really may have happened: it stays listed, and is billed to nobody. It is closed before the
  -- sums are read: one that its gateway closes, and pays, in this moment counts.
  UPDATE llm_calls c SET state = 'unknown', finished_at = now() FROM unnest(p_ends) e
    WHERE c.task_id = e.task_id AND CASE c.state WHEN 'started' THEN true END;

  WITH was AS (
    SELECT t.id, t.tenant_id, t.user_id, t.api_key_id, t.plugin_name, t.plan, jsonb_array_length(t.plan) AS steps, t.fallbacks, t.environment, t.reserved_period,
        t.routing_method, t.attempt, t.event_seq, e.status, e.status IN ('success', 'partial') AS is_done, e.result, e.error, n.plan_tier,
        e.events || jsonb_build_array(jsonb_build_object('type', 'finished', 'data', jsonb_build_object('status', e.status))) AS events
      FROM unnest(p_ends) e JOIN tasks t ON t.id = e.task_id JOIN tenants n ON n.id = t.tenant_id
  ), called AS (
    -- A failed call costs the tenant nothing; what the provider counted of it, and the ceiling of one whose outcome is unknown, are the platform's.
    SELECT c.task_id, c.step, c.plugin_name, c.model, c.price_version, max(c.call_no) AS last_call, count(*) FILTER (WHERE c.state = 'done') AS done,
        coalesce(sum(c.input_tokens) FILTER (WHERE c.state = 'done'), 0) AS input_tokens, coalesce(sum(c.output_tokens) FILTER (WHERE c.state = 'done'), 0) AS output_tokens,
        coalesce(sum(c.cache_write_tokens) FILTER (WHERE c.state = 'done'), 0) AS cache_write_tokens, coalesce(sum(c.cache_read_tokens) FILTER (WHERE c.state = 'done'), 0) AS cache_read_tokens,
        coalesce(sum(c.cost_micro_usd) FILTER (WHERE c.state = 'done'), 0) AS cost, coalesce(sum(c.cost_micro_usd) FILTER (WHERE c.state = 'failed'), 0) AS lost,
        count(*) FILTER (WHERE c.state = 'unknown')::int AS unknown_calls,
        coalesce(sum(CASE WHEN c.usage IS NULL THEN c.ceiling_micro_usd ELSE c.cost_micro_usd END) FILTER (WHERE c.state = 'unknown'), 0) AS unknown_cost
      FROM unnest(p_ends) e JOIN llm_calls c ON c.task_id = e.task_id GROUP BY c.task_id, c.step, c.plugin_name, c.model, c.price_version
  ), paid AS (
    SELECT c.task_id, c.step, c.plugin_name, max(c.last_call) AS last_call, max(c.model) AS model, sum(c.input_tokens) AS input_tokens, sum(c.output_tokens) AS output_tokens,
        sum(c.cache_write_tokens + c.cache_read_tokens) AS cache_tokens, sum(c.cost) AS cost
      FROM called c WHERE c.done > 0 GROUP BY c.task_id, c.step, c.plugin_name
  ), vain AS (
    -- Chained steps, with all that they chained, whose answers are in no result: the step that asked for them did not come to one, or did by another plugin.
    SELECT DISTINCT w.id AS task_id, p.id AS step
      FROM was w JOIN chained_steps c ON c.task_id = w.id LEFT JOIN task_steps s ON s.task_id = c.task_id AND s.step = c.parent
        CROSS JOIN jsonb_to_recordset(w.plan) AS p(id text)
      WHERE w.steps > 1 AND w.is_done AND (p.id = c.step OR starts_with(p.id, c.step || '.'))
        AND (coalesce(s.status, '') NOT IN ('success', 'partial') OR (c.asked_by <> '{}' AND s.plugin_name <> ALL (c.asked_by)))
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
        SELECT w.id, w.tenant_id, w.environment, p.id, p.plugin, w.reserved_period, coalesce(w.is_done AND s.status IN ('success', 'partial') AND s.plugin_name = p.plugin, false)
              AND (w.steps = 1 OR NOT EXISTS (SELECT FROM vain v WHERE v.task_id = w.id AND v.step = p.id)),
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
          d.status IN ('success', 'partial') AND w.is_done AND w.environment = 'live' AND NOT coalesce(k.sandbox, false)
            AND (w.steps = 1 OR NOT EXISTS (SELECT FROM vain v WHERE v.task_id = w.id AND v.step = d.step)),
          coalesce(k.is_used AND k.environment = 'live' AND h.overage_enabled AND h.used_before + k.n > h.quota_limit, false)
        FROM was w JOIN (
          -- What ran, with what it paid; and what paid and never came to an end. What a plugin paid whose step another one ended is not in its event.
          SELECT s.task_id, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, coalesce(s.latency_ms, 0) AS latency_ms, p.model,
              coalesce(p.input_tokens, 0) AS input_tokens, coalesce(p.output_tokens, 0) AS output_tokens, coalesce(p.cache_tokens, 0) AS cache_tokens, coalesce(p.cost, 0) AS cost
            FROM unnest(p_ends) e JOIN task_steps s ON s.task_id = e.task_id LEFT JOIN paid p ON p.task_id = s.task_id AND p.step = s.step AND p.plugin_name = s.plugin_name
            WHERE s.latency_ms IS NOT NULL OR p.step IS NOT NULL
          UNION ALL
          (SELECT DISTINCT ON (p.task_id, p.step) p.task_id, p.step, p.plugin_name, '', NULL::int, 'failed', 0, p.model, p.input_tokens, p.output_tokens, p.cache_tokens, p.cost
            FROM paid p WHERE NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p.task_id AND s.step = p.step) ORDER BY p.task_id, p.step, p.last_call DESC)
        ) d ON d.task_id = w.id
        LEFT JOIN kept k ON k.id = w.id AND k.step = d.step AND k.plugin = d.plugin_name
        LEFT JOIN held h ON h.tenant_id = k.tenant_id AND h.plugin = k.plugin AND h.counted_as = k.counted_as AND h.counted_in = k.counted_in
      ON CONFLICT (task_id, step) DO NOTHING
      RETURNING tenant_id, plugin_name, task_id, step, environment, billable, overage
  ), counted AS (
    INSERT INTO usage_days AS y (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, plan_tier, executions, billable, overage, input_tokens, output_tokens,
        cache_write_tokens, cache_read_tokens, cost_micro_usd, unbilled_tokens, unbilled_micro_usd, unknown_calls, unknown_micro_usd)
      SELECT s.tenant_id, v_day, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version, s.plan_tier,
          sum(s.is_first), sum(CASE WHEN s.billable THEN s.is_first ELSE 0 END), sum(CASE WHEN s.overage THEN s.is_first ELSE 0 END),
          coalesce(sum(s.input_tokens) FILTER (WHERE s.billable), 0), coalesce(sum(s.output_tokens) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.cache_write_tokens) FILTER (WHERE s.billable), 0), coalesce(sum(s.cache_read_tokens) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.cost) FILTER (WHERE s.billable), 0),
          coalesce(sum(s.input_tokens + s.output_tokens + s.cache_write_tokens + s.cache_read_tokens) FILTER (WHERE NOT s.billable), 0),
          coalesce(sum(s.cost) FILTER (WHERE NOT s.billable), 0) + coalesce(sum(s.lost), 0), coalesce(sum(s.unknown_calls), 0), coalesce(sum(s.unknown_cost), 0)
        FROM (
          SELECT b.tenant_id, b.plugin_name, b.environment, w.api_key_id, w.plan_tier, b.billable, b.overage, c.model, c.price_version, c.input_tokens, c.output_tokens, c.cache_write_tokens,
              c.cache_read_tokens, c.cost, c.lost, c.unknown_calls, c.unknown_cost,
              (row_number() OVER (PARTITION BY b.task_id, b.step ORDER BY c.cost DESC NULLS LAST, c.model, c.price_version) = 1)::int AS is_first
            FROM billed b JOIN was w ON w.id = b.task_id LEFT JOIN called c ON c.task_id = b.task_id AND c.step = b.step AND c.plugin_name = b.plugin_name
          UNION ALL
          SELECT w.tenant_id, c.plugin_name, w.environment, w.api_key_id, w.plan_tier, false, false, c.model, c.price_version, c.input_tokens, c.output_tokens, c.cache_write_tokens,
              c.cache_read_tokens, c.cost, c.lost, c.unknown_calls, c.unknown_cost, 0
            FROM called c JOIN was w ON w.id = c.task_id
            WHERE c.done + c.lost + c.unknown_calls > 0 AND NOT EXISTS (SELECT FROM billed b WHERE b.task_id = c.task_id AND b.step = c.step AND b.plugin_name = c.plugin_name)
        ) s
        GROUP BY s.tenant_id, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version, s.plan_tier
        ORDER BY s.tenant_id, s.plugin_name, s.environment, s.api_key_id, s.model, s.price_version, s.plan_tier
      ON CONFLICT (tenant_id, day, plugin_name, environment, api_key_id, model, price_version, plan_tier) WHERE invoice_id IS NULL DO UPDATE SET
        executions = y.executions + EXCLUDED.executions, billable = y.billable + EXCLUDED.billable, overage = y.overage + EXCLUDED.overage,
        input_tokens = y.input_tokens + EXCLUDED.input_tokens, output_tokens = y.output_tokens + EXCLUDED.output_tokens,
        cache_write_tokens = y.cache_write_tokens + EXCLUDED.cache_write_tokens, cache_read_tokens = y.cache_read_tokens + EXCLUDED.cache_read_tokens,
        cost_micro_usd = y.cost_micro_usd + EXCLUDED.cost_micro_usd, unbilled_tokens = y.unbilled_tokens + EXCLUDED.unbilled_tokens,
        unbilled_micro_usd = y.unbilled_micro_usd + EXCLUDED.unbilled_micro_usd, unknown_calls = y.unknown_calls + EXCLUDED.unknown_calls,
        unknown_micro_usd = y.unknown_micro_usd + EXCLUDED.unknown_micro_usd
  ), noted AS (
    INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
      SELECT w.id, w.event_seq + e.ordinality, w.tenant_id, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
        FROM was w CROSS JOIN jsonb_array_elements(w.events) WITH ORDINALITY e
  ), told AS (
    -- One look into a small index where the tenant has no endpoint.
    INSERT INTO webhook_deliveries (id, webhook_id, tenant_id, type, event_key, task_id, data, status)
      SELECT new_uuid7(), h.id, w.tenant_id, CASE w.status WHEN 'failed' THEN 'task.failed' WHEN 'cancelled' THEN 'task.cancelled' ELSE 'task.completed' END, w.id::text, w.id,
          jsonb_build_object('environment', w.environment), CASE h.status WHEN 'active' THEN 'pending' ELSE 'held' END
        FROM was w JOIN webhooks h ON h.tenant_id = w.tenant_id
        WHERE h.events @> ARRAY[CASE w.status WHEN 'failed' THEN 'task.failed' WHEN 'cancelled' THEN 'task.cancelled' ELSE 'task.completed' END]
          AND (h.disabled_at IS NULL OR h.disabled_at > now() - interval '30 days')
      ON CONFLICT DO NOTHING
      RETURNING webhook_id, status
  )
  SELECT array_agg(DISTINCT t.webhook_id) FILTER (WHERE t.status = 'pending') INTO v_rings FROM told t;
  RETURN coalesce(v_rings, '{}');
END $$;

-- A function that is replaced forgets its settings; 0005 says why these have them.
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

-- As in 0024, with the plugin that asks: the parent step's own, or its fallback. Bundles of the release before do not say it.
DROP FUNCTION begin_chained_step(uuid, uuid, uuid, text, text, text, text, uuid, int, int);
CREATE FUNCTION begin_chained_step(
  p_tenant uuid, p_task uuid, p_lease uuid, p_parent text, p_key text, p_plugin text, p_version text, p_holder uuid, p_silence_ms int, p_max int, p_asked_by text DEFAULT NULL
) RETURNS TABLE (outcome text, name text, version text, step jsonb, tokens_used text, quota_limit int, task jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; c chained_steps; v_step text; v_known jsonb; v_done jsonb; v_sub record; v_limit int; v_total int; v_over boolean := false; v_refused text; v_plan jsonb;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_task AND lease_token = p_lease AND status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND OR EXISTS (SELECT FROM task_steps s WHERE s.task_id = p_task AND s.step = p_parent) THEN v_refused := 'lease_lost';
  ELSIF t.cancel_requested_at IS NOT NULL THEN v_refused := 'cancelled';
  END IF;
  IF v_refused IS NOT NULL THEN
    RETURN QUERY SELECT v_refused, NULL::text, NULL::text, NULL::jsonb, '0', NULL::int, NULL::jsonb;
    RETURN;
  END IF;

  SELECT * INTO c FROM chained_steps k WHERE k.task_id = p_task AND k.parent = p_parent AND k.key = p_key;
  v_step := coalesce(c.step, (SELECT p_parent || '.' || count(*) + 1 FROM chained_steps k WHERE k.task_id = p_task AND k.parent = p_parent));
  SELECT e.value INTO v_known FROM jsonb_array_elements(t.plan) e WHERE e.value->>'id' = v_step;
  SELECT jsonb_build_object('status', s.status, 'output', s.output, 'error', s.error) INTO v_done FROM task_steps s WHERE s.task_id = p_task AND s.step = v_step;
  IF v_done->>'status' IN ('success', 'partial') THEN
    UPDATE chained_steps k SET asked_by = k.asked_by || p_asked_by WHERE k.task_id = p_task AND k.step = v_step AND p_asked_by <> ALL (k.asked_by);
    RETURN QUERY SELECT 'ended', v_step, v_known->>'version', v_done, '0', NULL::int, NULL::jsonb;
    RETURN;
  END IF;
  IF c.holder IS NOT NULL AND c.attempt = t.attempt AND c.seen_at > now() - p_silence_ms * interval '1 millisecond' THEN
    RETURN QUERY SELECT 'in_flight', v_step, v_known->>'version', NULL::jsonb, '0', NULL::int, NULL::jsonb;
    RETURN;
  END IF;

  IF v_known IS NULL THEN
    SELECT s.id, s.quota_limit, s.overage_enabled INTO v_sub FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id
      WHERE s.tenant_id = p_tenant AND p.name = p_plugin AND s.ended_at IS NULL AND p.status IN ('active', 'deprecated');
    v_limit := v_sub.quota_limit;
    IF v_sub.id IS NULL THEN v_refused := 'not_subscribed';
    ELSIF (SELECT x.plan_tier FROM tenants x WHERE x.id = p_tenant) = 'starter' THEN v_refused := 'not_included';
    ELSIF (SELECT count(*) FROM jsonb_array_elements(t.plan) e WHERE e.value ? 'chained_by') >= p_max THEN v_refused := 'too_many';
    -- What a task holds is given back with what it reserved first; one that holds nothing reserves nothing.
    ELSIF t.reserved_period IS NOT NULL THEN
      v_total := reserve_executions(p_tenant, p_plugin, t.environment, t.reserved_period, 1, v_limit, v_sub.overage_enabled);
      IF v_total IS NULL THEN v_refused := 'quota_exceeded'; END IF;
      v_over := coalesce(v_total > v_sub.quota_limit, false);
    END IF;
    IF v_refused IS NOT NULL THEN
      RETURN QUERY SELECT v_refused, NULL::text, NULL::text, NULL::jsonb, '0', v_limit, NULL::jsonb;
      RETURN;
    END IF;
    -- A plan of one step says of the task whether it is over its quota; of several, each says it of itself.
    v_plan := CASE WHEN jsonb_array_length(t.plan) = 1 AND t.overage THEN jsonb_set(t.plan, '{0,overage}', 'true') ELSE t.plan END;
    v_known := jsonb_build_object('id', v_step, 'plugin', p_plugin, 'version', p_version, 'needs', '[]'::jsonb, 'chained_by', p_parent)
      || CASE WHEN v_over THEN '{"overage": true}'::jsonb ELSE '{}' END;
    UPDATE tasks u SET plan = v_plan || jsonb_build_array(v_known), overage = u.overage OR v_over WHERE u.id = p_task;
  END IF;

  -- A failure is not kept: whoever asks again gets another try.
  DELETE FROM task_steps s WHERE s.task_id = p_task AND s.step = v_step;
  INSERT INTO chained_steps AS k (task_id, parent, key, step, tenant_id, holder, attempt, asked_by) VALUES (p_task, p_parent, p_key, v_step, p_tenant, p_holder, t.attempt, array_remove(ARRAY[p_asked_by], NULL))
    ON CONFLICT (task_id, parent, key) DO UPDATE SET holder = p_holder, attempt = t.attempt, seen_at = now(),
      asked_by = CASE WHEN p_asked_by IS NULL OR p_asked_by = ANY (k.asked_by) THEN k.asked_by ELSE k.asked_by || p_asked_by END;
  RETURN QUERY SELECT 'begun', v_step, v_known->>'version', NULL::jsonb,
    (SELECT coalesce(sum(l.input_tokens::bigint + l.output_tokens + l.cache_write_tokens + l.cache_read_tokens), 0)::text FROM llm_calls l
      WHERE l.task_id = p_task AND l.state = 'done' AND (l.step = p_parent OR starts_with(l.step, p_parent || '.'))),
    v_limit,
    jsonb_build_object('deadline_ms', (extract(epoch FROM t.deadline - now()) * 1000)::bigint, 'user_id', t.user_id, 'context', t.context, 'priority', t.priority, 'request_id', t.request_id, 'traceparent', t.traceparent,
      'created_at', t.created_at, 'routing_method', t.routing_method,
      'config', (SELECT g.config FROM tenant_plugin_config g JOIN plugins p ON p.id = g.plugin_id WHERE g.tenant_id = p_tenant AND p.name = p_plugin),
      'profile', (SELECT jsonb_build_object('role', u.role) FROM users u WHERE u.id = t.user_id AND u.tenant_id = p_tenant));
END $$;

-- As in 0019; `not_included` also for a plugin of the tenant's own that its plan does not have.
CREATE OR REPLACE FUNCTION subscribe(p_tenant uuid, p_id uuid, p_plugin text, p_overage boolean, p_plans jsonb)
RETURNS TABLE (outcome text, subscription uuid, tier text, plugins_included int) LANGUAGE plpgsql AS $$
DECLARE v_tier text; v_plan jsonb; v_plugin record; v_live uuid; v_refused text;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT t.plan_tier INTO v_tier FROM tenants t WHERE t.id = p_tenant FOR NO KEY UPDATE;
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  v_plan := p_plans -> v_tier;

  SELECT p.id, p.status, p.owner_tenant_id INTO v_plugin FROM plugins p WHERE p.name = p_plugin AND (p.owner_tenant_id IS NULL OR p.owner_tenant_id = p_tenant)
    AND p.status IN ('active', 'deprecated') AND EXISTS (SELECT FROM plugin_versions v WHERE v.plugin_id = p.id AND v.status IN ('active', 'deprecated'));
  SELECT s.id INTO v_live FROM subscriptions s WHERE s.tenant_id = p_tenant AND s.plugin_id = v_plugin.id AND s.ended_at IS NULL;
  v_refused := CASE
    WHEN v_plugin.id IS NULL THEN 'unknown'
    WHEN v_live IS NOT NULL THEN 'already'
    WHEN v_plugin.status = 'deprecated' THEN 'deprecated'
    WHEN v_plugin.owner_tenant_id IS NOT NULL AND NOT (v_plan ->> 'mayOwnPlugins')::boolean THEN 'not_included'
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

-- As in 0020, by the plans that held. A subscription under which executions were counted on a month's quota is taken to stand until that month's end,
-- since the quota was the whole month's; not where the plugin itself came to its end. A later one to the same plugin takes its days over.
CREATE OR REPLACE FUNCTION draft_invoice(p_tenant uuid, p_month date, p_prices jsonb, p_rows bigint[])
RETURNS TABLE (kind text, plugin_name text, model text, origin date, description text, quantity bigint, unit text, unit_micro_usd bigint, amount_micro_usd bigint,
               price_version text, tokens jsonb) LANGUAGE sql STABLE AS $$
  WITH month AS (
    SELECT p_month AS first, (p_month + interval '1 month')::date AS after, (p_month + interval '1 month')::date - p_month AS days
  ), days AS (
    SELECT m.first + n AS day FROM month m CROSS JOIN generate_series(0, m.days - 1) n
  ), planned AS (
    SELECT k.tier, p_prices->'plans'->k.tier AS terms, count(*) AS days
      FROM days d JOIN tenants t ON t.id = p_tenant AND (t.created_at AT TIME ZONE 'UTC')::date <= d.day CROSS JOIN LATERAL (SELECT tier_on(p_tenant, d.day) AS tier) k GROUP BY k.tier
  ), drawn AS (
    -- The first day on which the month's quota of a plugin is seen to be used. What began in it and was settled after it is taken for its last.
    SELECT u.plugin_name, coalesce((SELECT min(y.day) FROM usage_days y
        WHERE y.tenant_id = p_tenant AND y.plugin_name = u.plugin_name AND y.environment = 'live' AND y.billable > 0 AND y.day >= m.first AND y.day < m.after), m.after - 1) AS day
      FROM month m JOIN usage_periods u ON u.tenant_id = p_tenant AND u.environment = 'live' AND u.period_start = m.first AND u.used > 0
  ), terms AS (
    SELECT s.id, s.plugin_id, p.name AS plugin, s.tier, s.started_at, (s.started_at AT TIME ZONE 'UTC')::date AS from_day, (s.ended_at AT TIME ZONE 'UTC')::date AS to_day,
        p.status IN ('sunset', 'retired') AND s.ended_at >= p.sunset_at AS is_cut_off
      FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id WHERE s.tenant_id = p_tenant
  ), standing AS (
    SELECT s.*, CASE WHEN s.to_day IS NULL OR (NOT coalesce(s.is_cut_off, false) AND EXISTS (
          SELECT FROM drawn w WHERE w.plugin_name = s.plugin
            AND NOT EXISTS (SELECT FROM terms n WHERE n.plugin_id = s.plugin_id AND n.started_at > s.started_at AND n.from_day <= w.day)))
        THEN m.after - 1 ELSE s.to_day END AS until_day
      FROM terms s CROSS JOIN month m WHERE s.from_day < m.after AND (s.to_day IS NULL OR s.to_day >= m.first)
  ), subscribed AS (
    -- Once a plugin and day, however often it was subscribed to on that day.
    SELECT DISTINCT ON (s.plugin_id, d.day) s.plugin, d.day, s.tier, p_prices->'plans'->s.tier AS terms
      FROM days d JOIN standing s ON s.from_day <= d.day AND s.until_day >= d.day
      ORDER BY s.plugin_id, d.day, s.started_at DESC
  ), discounts AS (
    SELECT sum((g.terms->>'pluginFee')::numeric * g.count * (g.terms->'bundleDiscounts'->>(least(g.count, jsonb_array_length(g.terms->'bundleDiscounts')) - 1)::int)::numeric) AS hundredths
      FROM (SELECT s.day, s.terms, count(*) AS count FROM subscribed s GROUP BY s.day, s.terms) g
  ), used AS (
    SELECT y.*, date_trunc('month', y.day)::date AS origin, p_prices->'plans'->y.plan_tier AS terms, jsonb_array_length(p_prices->'plans'->y.plan_tier->'volume') > 0 AS by_volume
      FROM usage_days y, month m WHERE y.tenant_id = p_tenant AND y.invoice_id IS NULL AND y.day < m.after AND (p_rows IS NULL OR y.id = ANY (p_rows))
  ), bands AS (
    SELECT coalesce(lag((b.value->>'upTo')::bigint) OVER (PARTITION BY n.plan_tier ORDER BY b.ordinality), 0) AS above, (b.value->>'upTo')::bigint AS up_to, (b.value->>'each')::bigint AS each, n.total
      FROM (SELECT u.plan_tier, u.terms, sum(u.billable)::bigint AS total FROM used u WHERE u.by_volume GROUP BY u.plan_tier, u.terms) n
      CROSS JOIN jsonb_array_elements(n.terms->'volume') WITH ORDINALITY b
  ), beyond AS (
    SELECT u.plugin_name, u.origin, coalesce((u.terms->>'overage')::bigint, 0) AS each, sum(u.overage) AS count FROM used u WHERE NOT u.by_volume GROUP BY 1, 2, 3 HAVING sum(u.overage) > 0
  ), lines AS (
    SELECT 1 AS part, 'plan_fee' AS kind, NULL AS plugin, NULL AS model, p_month AS origin, initcap(k.tier) || ' plan' AS description, k.days AS quantity, 'day' AS unit,
        NULL::bigint AS unit_price, ((k.terms->>'platformFee')::bigint * k.days / m.days) AS amount, p_prices->>'version' AS version, NULL::jsonb AS tokens
      FROM planned k, month m WHERE (k.terms->>'platformFee')::bigint > 0
    UNION ALL
    SELECT 2, 'plugin_fee', s.plugin, NULL, p_month, s.plugin || ': subscription', count(*), 'day', NULL, (s.terms->>'pluginFee')::bigint * count(*) / m.days, p_prices->>'version', NULL
      FROM subscribed s, month m WHERE (s.terms->>'pluginFee')::bigint > 0 GROUP BY s.plugin, s.tier, s.terms, m.days
    UNION ALL
    SELECT 3, 'bundle_discount', NULL, NULL, p_month, 'Discount for several plugins', 1, 'month', NULL, -ceil(d.hundredths / (10000 * m.days))::bigint, p_prices->>'version', NULL
      FROM discounts d, month m WHERE d.hundredths > 0
    UNION ALL
    SELECT 4, 'executions', u.plugin_name, NULL, u.origin, u.plugin_name || ': executions that the plan includes', sum(u.billable - u.overage), 'execution', 0, 0, p_prices->>'version', NULL
      FROM used u WHERE NOT u.by_volume GROUP BY u.plugin_name, u.origin HAVING sum(u.billable - u.overage) > 0
    UNION ALL
    SELECT 5, 'overage', b.plugin_name, NULL, b.origin, b.plugin_name || ': executions beyond the quota', b.count, 'execution', b.each, b.count * b.each, p_prices->>'version', NULL FROM beyond b
    UNION ALL
    SELECT 6, 'volume', NULL, NULL, p_month, 'Executions ' || CASE WHEN b.up_to IS NULL THEN 'from ' || b.above + 1 ELSE b.above + 1 || ' to ' || b.up_to END,
        least(b.total, coalesce(b.up_to, b.total)) - b.above, 'execution', b.each, (least(b.total, coalesce(b.up_to, b.total)) - b.above) * b.each, p_prices->>'version', NULL
      FROM bands b WHERE b.total > b.above
    UNION ALL
    SELECT 7, 'model_usage', u.plugin_name, u.model, u.origin, u.plugin_name || ': ' || u.model, (sum(u.input_tokens + u.output_tokens + u.cache_write_tokens + u.cache_read_tokens))::bigint, 'token',
        NULL, sum(u.cost_micro_usd)::bigint, u.price_version,
        jsonb_build_object('input', sum(u.input_tokens), 'output', sum(u.output_tokens), 'cache_write', sum(u.cache_write_tokens), 'cache_read', sum(u.cache_read_tokens))
      FROM used u WHERE u.model IS NOT NULL GROUP BY u.plugin_name, u.model, u.price_version, u.origin
      HAVING sum(u.cost_micro_usd) > 0 OR sum(u.input_tokens + u.output_tokens + u.cache_write_tokens + u.cache_read_tokens) > 0
  )
  SELECT l.kind, l.plugin, l.model, l.origin, l.description || CASE WHEN l.origin < p_month THEN ', late from ' || to_char(l.origin, 'YYYY-MM') ELSE '' END, l.quantity, l.unit, l.unit_price,
      l.amount, l.version, l.tokens
    FROM lines l ORDER BY l.part, l.plugin NULLS FIRST, l.origin, l.model, l.version, l.unit_price DESC NULLS LAST, l.quantity DESC, l.description, l.amount DESC
$$;

-- As in 0020; on it stands the plan of the month's last day.
CREATE OR REPLACE FUNCTION close_month(p_tenant uuid, p_month date, p_prices jsonb, p_id uuid, p_public_id text)
RETURNS TABLE (outcome text, invoice uuid, total_micro_usd bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  t tenants; v_after date := (p_month + interval '1 month')::date; v_until date; v_number int; v_rows bigint[]; v_lines int; v_total bigint; v_known invoices; v_off record; v_tier text;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT * INTO t FROM tenants k WHERE k.id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO tenant_billing (tenant_id, closed_until) VALUES (p_tenant, date_trunc('month', t.created_at AT TIME ZONE 'UTC')::date) ON CONFLICT DO NOTHING;
  SELECT b.closed_until, b.invoices + 1 INTO v_until, v_number FROM tenant_billing b WHERE b.tenant_id = p_tenant;
  IF v_until <> p_month THEN
    SELECT * INTO v_known FROM invoices i WHERE i.tenant_id = p_tenant AND i.period_start = p_month;
    RETURN QUERY SELECT CASE WHEN v_until > p_month THEN 'known' ELSE 'out_of_order' END, v_known.id, v_known.total_micro_usd;
    RETURN;
  END IF;

  -- As settling locks them. These rows and no others are on the invoice: one that comes in this moment is for the next.
  v_rows := ARRAY(SELECT y.id FROM usage_days y WHERE y.tenant_id = p_tenant AND y.invoice_id IS NULL AND y.day < v_after
    ORDER BY y.day, y.plugin_name, y.environment, y.api_key_id, y.model, y.price_version, y.plan_tier FOR UPDATE);
  SELECT e.billable AS events, y.billable AS days, e.cost AS events_cost, y.cost AS days_cost INTO v_off FROM
    (SELECT count(*) AS billable, coalesce(sum(x.cost_micro_usd), 0) AS cost FROM execution_events x
      WHERE x.tenant_id = p_tenant AND x.timestamp >= p_month::timestamp AT TIME ZONE 'UTC' AND x.timestamp < v_after::timestamp AT TIME ZONE 'UTC' AND x.billable) e,
    (SELECT coalesce(sum(k.billable), 0) AS billable, coalesce(sum(k.cost_micro_usd), 0) AS cost FROM usage_days k WHERE k.tenant_id = p_tenant AND k.day >= p_month AND k.day < v_after) y;
  IF v_off.events <> v_off.days OR v_off.events_cost <> v_off.days_cost THEN
    RAISE EXCEPTION 'usage_days say % executions for % micro-USD, the events % for %', v_off.days, v_off.days_cost, v_off.events, v_off.events_cost USING ERRCODE = 'AAU02';
  END IF;

  SELECT count(*), coalesce(sum(d.amount_micro_usd), 0) INTO v_lines, v_total FROM draft_invoice(p_tenant, p_month, p_prices, v_rows) d;
  IF v_lines > 0 THEN
    v_tier := tier_on(p_tenant, v_after - 1);
    INSERT INTO invoices (id, tenant_id, number, period_start, period_end, tenant_name, plan_tier, price_version, prices, total_micro_usd)
      VALUES (p_id, p_tenant, v_number, p_month, v_after - 1, t.name, v_tier, p_prices->>'version', p_prices->'plans'->v_tier, v_total);
    INSERT INTO invoice_lines (invoice_id, position, tenant_id, kind, plugin_name, model, origin, description, quantity, unit, unit_micro_usd, amount_micro_usd, price_version, tokens)
      SELECT p_id, d.ordinality, p_tenant, d.kind, d.plugin_name, d.model, d.origin, d.description, d.quantity, d.unit, d.unit_micro_usd, d.amount_micro_usd, d.price_version, d.tokens
        FROM draft_invoice(p_tenant, p_month, p_prices, v_rows) WITH ORDINALITY d;
    UPDATE usage_days SET invoice_id = p_id WHERE id = ANY (v_rows);
    PERFORM enqueue_webhook_event(p_tenant, 'invoice.closed', p_public_id, jsonb_build_object('invoice_id', p_public_id, 'number', v_number, 'period_start', p_month,
      'period_end', v_after - 1, 'currency', 'USD', 'total_usd', to_char(v_total / 1000000.0, 'FM999999999999990.000000')));
  END IF;
  UPDATE tenant_billing SET closed_until = v_after, invoices = invoices + (v_lines > 0)::int WHERE tenant_id = p_tenant;
  RETURN QUERY SELECT CASE WHEN v_lines > 0 THEN 'closed' ELSE 'empty' END, CASE WHEN v_lines > 0 THEN p_id END, v_total;
END $$;
