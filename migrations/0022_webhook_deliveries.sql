-- Why: the way of a delivery. A task's end and its deliveries are one transaction; an endpoint's row is the lock under which deliveries are
-- claimed, so that never more than a few of them are on their way to one receiver; every write after the claim carries the lease.

-- As enqueue_webhook_event, for what happens to a task. The body is made from the task's row.
CREATE FUNCTION enqueue_task_event(p_tenant uuid, p_type text, p_task uuid, p_data jsonb) RETURNS uuid[] LANGUAGE sql AS $$
  WITH made AS (
    INSERT INTO webhook_deliveries (id, webhook_id, tenant_id, type, event_key, task_id, data, status)
      SELECT new_uuid7(), h.id, h.tenant_id, p_type, p_task::text, p_task, p_data, CASE h.status WHEN 'active' THEN 'pending' ELSE 'held' END
        FROM webhooks h WHERE h.tenant_id = p_tenant AND h.events @> ARRAY[p_type] AND (h.disabled_at IS NULL OR h.disabled_at > now() - interval '30 days')
      ON CONFLICT DO NOTHING
      RETURNING webhook_id, status)
  SELECT coalesce(array_agg(m.webhook_id) FILTER (WHERE m.status = 'pending'), '{}') FROM made m
$$;

-- As in 0019, with the deliveries of the tenants' endpoints: written with the end of the task, or not at all. Returns the endpoints to ring for.
DROP FUNCTION finish_task(tasks, text, jsonb, jsonb, jsonb);
DROP FUNCTION finish_tasks(task_end[]);
CREATE FUNCTION finish_tasks(p_ends task_end[]) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE v_day date := (now() AT TIME ZONE 'UTC')::date; v_rings uuid[];
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

CREATE FUNCTION finish_task(p_task tasks, p_status text, p_result jsonb, p_error jsonb, p_events jsonb) RETURNS uuid[] LANGUAGE sql AS $$
  SELECT finish_tasks(ARRAY[ROW(p_task.id, p_status, p_result, p_error, p_events)::task_end])
$$;

-- As in 0006; the batch's endpoints to ring for stand in its first row.
DROP FUNCTION settle_tasks(jsonb);
CREATE FUNCTION settle_tasks(p_batch jsonb) RETURNS TABLE (place int, settled boolean, overflowed boolean, rings uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_held uuid[]; v_overflowed uuid[] := '{}'; v_rings uuid[] := '{}'; t tasks;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  v_held := ARRAY(
    SELECT t.id FROM jsonb_to_recordset(p_batch) AS b(id uuid, tenant uuid, lease uuid)
      JOIN tasks t ON t.id = b.id AND t.tenant_id = b.tenant AND t.lease_token = b.lease
      WHERE CASE t.status WHEN 'running' THEN true END ORDER BY t.id FOR NO KEY UPDATE OF t);
  IF v_held <> '{}' THEN
    INSERT INTO task_steps (task_id, tenant_id, step, plugin_name, plugin_version, attempt, status, output, error, confidence, latency_ms)
      SELECT b.id, b.tenant, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, s.output, s.error, s.confidence, s.latency_ms
        FROM jsonb_to_recordset(p_batch) AS b(id uuid, tenant uuid, steps jsonb)
        CROSS JOIN jsonb_to_recordset(b.steps) AS s(step text, plugin_name text, plugin_version text, attempt int, status text, output jsonb, error jsonb, confidence real, latency_ms int)
        WHERE b.id = ANY (v_held)
      ON CONFLICT (task_id, step) DO NOTHING;
    v_rings := finish_tasks(ARRAY(
      SELECT ROW(b.id, b.status, b.result, b.error, b.events)::task_end
        FROM jsonb_to_recordset(p_batch) AS b(id uuid, status text, result jsonb, error jsonb, events jsonb) WHERE b.id = ANY (v_held)));
    -- In one order in every batch, since each locks its conversation's row.
    FOR t IN SELECT k.* FROM jsonb_to_recordset(p_batch) AS b(id uuid, in_conversation boolean) JOIN tasks k ON k.id = b.id
        WHERE b.in_conversation AND b.id = ANY (v_held) ORDER BY k.tenant_id, k.user_id, k.conversation_id, k.id LOOP
      IF append_conversation_turns(t, t.status, t.result) THEN v_overflowed := v_overflowed || t.id; END IF;
    END LOOP;
  END IF;
  RETURN QUERY SELECT b.place, b.id = ANY (v_held), b.id = ANY (v_overflowed), CASE b.place WHEN 0 THEN v_rings ELSE '{}' END
    FROM jsonb_to_recordset(p_batch) AS b(place int, id uuid);
END $$;

-- As in 0002 and 0016, with the endpoints to ring for.
DROP FUNCTION cancel_task(uuid, uuid);
CREATE FUNCTION cancel_task(p_tenant uuid, p_id uuid) RETURNS TABLE (status text, was_over boolean, plugin_name text, rings uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; v_rings uuid[];
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  IF t.status IN ('queued', 'pending') THEN
    v_rings := finish_task(t, 'cancelled', NULL, NULL, '[]');
    RETURN QUERY SELECT 'cancelled', false, t.plugin_name, v_rings;
  ELSIF t.status = 'running' THEN
    UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = p_id;
    RETURN QUERY SELECT 'cancelling', false, t.plugin_name, '{}'::uuid[];
  ELSE
    RETURN QUERY SELECT t.status, true, t.plugin_name, '{}'::uuid[];
  END IF;
END $$;

DROP FUNCTION ask_caller(uuid, uuid, uuid, uuid, text, text, jsonb, text, jsonb, text, real, text, bigint, timestamptz, int, int, text, text, text, text, bytea, text);
CREATE FUNCTION ask_caller(
  p_tenant uuid, p_id uuid, p_user uuid, p_key uuid, p_environment text, p_conversation text, p_input jsonb, p_question text, p_candidates jsonb,
  p_method text, p_confidence real, p_priority text, p_max_cost bigint, p_deadline timestamptz, p_ask_ms int, p_run_ms int, p_traceparent text, p_request text,
  p_idempotency_key text, p_request_sha256 text, p_embedding bytea, p_embedding_model text
) RETURNS TABLE (outcome text, task_id uuid, rings uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_old record; v_now timestamptz := now(); v_answer_by timestamptz; v_request jsonb; v_rings uuid[];
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);

  IF p_idempotency_key IS NOT NULL THEN
    SELECT i.task_id, i.request_sha256, i.created_at INTO v_old FROM idempotency_keys i
      WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    IF FOUND AND v_old.created_at > v_now - interval '24 hours' THEN
      RETURN QUERY SELECT CASE WHEN v_old.request_sha256 = p_request_sha256 THEN 'replayed' ELSE 'key_reused' END, v_old.task_id, '{}'::uuid[];
      RETURN;
    ELSIF FOUND THEN
      DELETE FROM idempotency_keys i WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    END IF;
  END IF;

  v_answer_by := coalesce(p_deadline, v_now + p_ask_ms * interval '1 millisecond');
  SELECT jsonb_build_object('question', p_question, 'answer_by', to_char(v_answer_by AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'candidates',
      jsonb_agg(c.value || jsonb_build_object('subscribed', NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(c.value->'plugins') AS n(name) WHERE NOT EXISTS (
          SELECT FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id WHERE s.tenant_id = p_tenant AND p.name = n.name AND s.ended_at IS NULL))) ORDER BY c.ordinality))
    || CASE WHEN p_deadline IS NULL THEN jsonb_build_object('run_ms', p_run_ms) ELSE '{}' END
    INTO v_request FROM jsonb_array_elements(p_candidates) WITH ORDINALITY c;

  INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plan, status, input, input_request, routing_method, routing_confidence,
      priority, max_cost_micro_usd, deadline, event_seq, traceparent, request_id, created_at, command_embedding, command_embedding_model)
    VALUES (p_id, p_tenant, p_user, p_key, p_environment, p_conversation, '[]', 'pending', p_input, v_request, p_method, p_confidence,
      p_priority, p_max_cost, v_answer_by, 1, p_traceparent, p_request, v_now, p_embedding, p_embedding_model);
  INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES (p_id, 1, p_tenant, 'needs_input', v_request - 'run_ms');
  -- What the answer will change in the task's row stands in the event.
  v_rings := enqueue_task_event(p_tenant, 'task.needs_input', p_id, jsonb_build_object('environment', p_environment, 'routing_method', p_method, 'routing_confidence', p_confidence));

  -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
  IF p_idempotency_key IS NOT NULL THEN
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      VALUES (p_tenant, p_environment, 'task-submit', p_idempotency_key, p_request_sha256, p_id);
  END IF;
  RETURN QUERY SELECT 'asked', p_id, v_rings;
END $$;

-- A function that is replaced forgets its settings; 0005 says why these have them.
DO $$
DECLARE f regprocedure;
BEGIN
  FOREACH f IN ARRAY ARRAY['finish_tasks(task_end[])', 'settle_tasks(jsonb)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_hashjoin = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', f);
  END LOOP;
END $$;

-- Takes one delivery for one sender, oldest first. No row: nothing is due, the endpoint has as many on their way as it may, or has a pause.
CREATE FUNCTION claim_webhook_delivery(p_webhook uuid, p_lease_ms int, p_at_once int, p_max_tries int)
RETURNS TABLE (tenant_id uuid, delivery_id uuid, lease_token uuid, attempt int, tries int, type text, event_id uuid, task_id uuid, data jsonb, created_at timestamptz,
               url text, secret bytea, secret_key_id text, previous_secret bytea, previous_secret_key_id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE h webhooks; d webhook_deliveries;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT * INTO h FROM webhooks w WHERE w.id = p_webhook AND w.status = 'active' AND (w.resume_at IS NULL OR w.resume_at <= now()) FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  -- One that does not answer is asked with one request at a time.
  IF (SELECT count(*) FROM webhook_deliveries f WHERE f.webhook_id = h.id AND f.lease_until > now()) >= (CASE WHEN h.resume_at IS NULL THEN p_at_once ELSE 1 END) THEN RETURN; END IF;
  LOOP
    SELECT * INTO d FROM webhook_deliveries q
      WHERE q.webhook_id = h.id AND q.status = 'pending' AND q.next_attempt_at <= now() AND (q.lease_until IS NULL OR q.lease_until < now())
      ORDER BY q.next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    -- Whoever tried it last is gone, and nobody knows whether the endpoint heard of it.
    IF d.lease_token IS NOT NULL THEN
      INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, at, ms, error)
        VALUES (d.id, d.attempts, d.tenant_id, d.lease_until - p_lease_ms * interval '1 millisecond', p_lease_ms, 'interrupted') ON CONFLICT DO NOTHING;
    END IF;
    EXIT WHEN d.tries < p_max_tries;
    UPDATE webhook_deliveries f SET status = 'failed', lease_token = NULL, lease_until = NULL, finished_at = now() WHERE f.id = d.id;
  END LOOP;
  RETURN QUERY
    WITH taken AS (
      UPDATE webhook_deliveries t SET attempts = t.attempts + 1, tries = t.tries + 1, lease_token = gen_random_uuid(), lease_until = now() + p_lease_ms * interval '1 millisecond'
        WHERE t.id = d.id RETURNING t.*)
    SELECT t.tenant_id, t.id, t.lease_token, t.attempts, t.tries, t.type, webhook_event_id(t.tenant_id, t.type, t.event_key), t.task_id, t.data, t.created_at,
      h.url, h.secret, h.secret_key_id, CASE WHEN h.previous_secret_until > now() THEN h.previous_secret END, CASE WHEN h.previous_secret_until > now() THEN h.previous_secret_key_id END
    FROM taken t;
END $$;

-- Takes an endpoint out of use; what waits for it is held. The caller has the row's lock and has entered a role. The tenant's other endpoints
-- are told, unless its owner did it.
CREATE FUNCTION disable_webhook(p_webhook webhooks, p_reason text) RETURNS uuid[] LANGUAGE plpgsql AS $$
BEGIN
  UPDATE webhooks w SET status = 'disabled', disabled_reason = p_reason, disabled_at = now(), resume_at = NULL, updated_at = now() WHERE w.id = p_webhook.id;
  UPDATE webhook_deliveries d SET status = 'held', lease_token = NULL, lease_until = NULL
    WHERE d.webhook_id = p_webhook.id AND d.status = 'pending' AND (d.lease_until IS NULL OR d.lease_until < now());
  IF p_reason = 'by_owner' THEN RETURN '{}'; END IF;
  RETURN enqueue_webhook_event(p_webhook.tenant_id, 'webhook.disabled', p_webhook.id || ' ' || extract(epoch FROM now()),
    jsonb_build_object('webhook', p_webhook.id, 'url', p_webhook.url, 'reason', p_reason, 'failing_since', p_webhook.failing_since, 'disabled_at', now()));
END $$;

-- Puts down how an attempt ended: `delivered`, `refused` (try again after p_delay_ms; null: no more), `gone`, or `erased`, where nothing was sent.
-- `held` false: the lease is lost, and nothing was written. Returns the endpoints to ring for.
CREATE FUNCTION finish_webhook_attempt(p_tenant uuid, p_webhook uuid, p_delivery uuid, p_lease uuid, p_outcome text, p_status int, p_ms int, p_error text, p_answer text,
  p_delay_ms bigint, p_give_up_ms bigint) RETURNS TABLE (held boolean, disabled boolean, rings uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE h webhooks; d webhook_deliveries; v_rings uuid[] := '{}'; v_disabled boolean := false;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  -- The endpoint before the delivery, as everywhere.
  SELECT * INTO h FROM webhooks w WHERE w.id = p_webhook AND w.tenant_id = p_tenant FOR NO KEY UPDATE;
  UPDATE webhook_deliveries x SET lease_token = NULL, lease_until = NULL,
      status = CASE WHEN p_outcome = 'delivered' THEN 'delivered' WHEN p_delay_ms IS NULL THEN 'failed' WHEN h.status = 'active' THEN 'pending' ELSE 'held' END,
      next_attempt_at = coalesce(now() + p_delay_ms * interval '1 millisecond', x.next_attempt_at),
      finished_at = CASE WHEN p_outcome = 'delivered' OR p_delay_ms IS NULL THEN now() END
    WHERE x.id = p_delivery AND x.webhook_id = p_webhook AND x.lease_token = p_lease AND x.status = 'pending' RETURNING * INTO d;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, false, '{}'::uuid[];
    RETURN;
  END IF;
  INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, at, status, ms, error, answer)
    VALUES (d.id, d.attempts, d.tenant_id, now() - p_ms * interval '1 millisecond', p_status, p_ms, p_error, p_answer) ON CONFLICT DO NOTHING;

  IF p_outcome = 'delivered' THEN
    -- Not for every one: an endpoint that is well would be rewritten thousands of times.
    UPDATE webhooks w SET failures = 0, failing_since = NULL, resume_at = NULL, last_success_at = now()
      WHERE w.id = p_webhook AND (w.failures > 0 OR w.last_success_at IS NULL OR w.last_success_at < now() - interval '1 minute');
  ELSIF h.status = 'active' AND p_outcome <> 'erased' THEN
    UPDATE webhooks w SET failures = w.failures + 1, failing_since = coalesce(w.failing_since, now()),
        resume_at = CASE WHEN w.failures >= 4 THEN now() + least(interval '10 minutes', interval '15 seconds' * power(2, least(w.failures - 4, 6))) END
      WHERE w.id = p_webhook RETURNING * INTO h;
    IF p_outcome = 'gone' OR (h.failures >= 5 AND h.failing_since < now() - p_give_up_ms * interval '1 millisecond') THEN
      v_disabled := true;
      v_rings := disable_webhook(h, CASE p_outcome WHEN 'gone' THEN 'gone' ELSE 'failing' END);
    END IF;
  END IF;
  RETURN QUERY SELECT true, v_disabled, v_rings;
END $$;

-- Gives a delivery back that was not sent, as if it had not been claimed. False: the lease is lost.
CREATE FUNCTION release_webhook_delivery(p_tenant uuid, p_delivery uuid, p_lease uuid, p_delay_ms int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE webhook_deliveries d SET lease_token = NULL, lease_until = NULL, attempts = d.attempts - 1, tries = d.tries - 1, next_attempt_at = now() + p_delay_ms * interval '1 millisecond'
    WHERE d.id = p_delivery AND d.lease_token = p_lease AND d.status = 'pending';
  RETURN FOUND;
END $$;

-- Endpoints for which something is due and nobody sends it: their pause is over, a delivery's time has come, a ring was lost, a sender died.
CREATE FUNCTION take_due_webhooks(p_limit int) RETURNS TABLE (id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE webhooks h SET next_ring_at = now() + interval '10 seconds'
    FROM (SELECT w.id FROM webhooks w
        WHERE w.status = 'active' AND (w.next_ring_at IS NULL OR w.next_ring_at <= now()) AND (w.resume_at IS NULL OR w.resume_at <= now())
          AND EXISTS (SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.next_attempt_at <= now() AND (d.lease_until IS NULL OR d.lease_until < now()))
        ORDER BY w.next_ring_at NULLS FIRST LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) due
    WHERE h.id = due.id
    RETURNING h.id;
END $$;
