-- Why: a task crosses the database four times, and each crossing paid for a statement's start, a snapshot and a commit of its own.
-- Work that waits for the database anyway now goes together: one statement admits, claims, settles or reads for many tasks, each
-- decided by its own rows. If such a statement fails, nothing of it took place, and the host runs each task alone, as a batch of one:
-- there is one way only. Batches hold tasks of several tenants, so admission, claim and settlement enter the platform's role, and every
-- join takes the tenant. All of them lock tasks in the order of their ids and usage rows in the order of their keys.

-- Admits tasks or says why not, each as if it came alone: `admitted`, `replayed` (the idempotency key is known), `key_reused` (for another
-- body), `not_subscribed`, `quota_exceeded`. One execution each is reserved on the month's usage row, which stays locked from the look at
-- the quota to the commit; of several that ask for the last places of one row the oldest ids get them.
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

  -- The first task of a month finds no usage row.
  IF EXISTS (SELECT FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text) WHERE NOT EXISTS (SELECT FROM usage_periods u
      WHERE u.tenant_id = b.tenant AND u.plugin_name = b.plugin AND u.environment = b.environment AND u.period_start = v_period)) THEN
    INSERT INTO usage_periods (tenant_id, plugin_name, environment, period_start)
      SELECT DISTINCT b.tenant, b.plugin, b.environment, v_period
        FROM jsonb_to_recordset(p_batch) AS b(tenant uuid, plugin text, environment text)
        LEFT JOIN usage_periods u ON u.tenant_id = b.tenant AND u.plugin_name = b.plugin AND u.environment = b.environment AND u.period_start = v_period
        JOIN plugins p ON p.name = b.plugin
        JOIN subscriptions s ON s.tenant_id = b.tenant AND s.plugin_id = p.id AND s.ended_at IS NULL
        WHERE u.tenant_id IS NULL AND (s.quota_limit > 0 OR s.quota_limit IS NULL OR s.overage_enabled)
        ORDER BY 1, 2, 3
      ON CONFLICT DO NOTHING;
  END IF;

  RETURN QUERY WITH asked AS MATERIALIZED (
    SELECT b.*, i.task_id AS known_task, i.request_sha256 AS known_sha256, i.created_at AS known_at, s.id AS subscription, s.quota_limit, s.overage_enabled
      FROM jsonb_to_recordset(p_batch) AS b(place int, tenant uuid, id uuid, "user" uuid, key uuid, environment text, conversation text, plugin text, plan jsonb,
        input jsonb, method text, confidence real, priority text, max_cost bigint, deadline timestamptz, traceparent text, request text, idempotency_key text, request_sha256 text)
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
        priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at)
      SELECT a.id, a.tenant, a."user", a.key, a.environment, a.conversation, a.plugin, a.plan, 'queued', a.input, a.method, a.confidence,
          a.priority, a.max_cost, v_period, coalesce(a.total > a.quota_limit, false), a.deadline, least(v_now + interval '10 seconds', a.deadline), a.traceparent, a.request, v_now
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

-- How one task ends.
CREATE TYPE task_end AS (task_id uuid, status text, result jsonb, error jsonb, events jsonb);

-- Ends tasks: the one place where a terminal status is written. The caller holds the row locks and has entered a role.
CREATE FUNCTION finish_tasks(p_ends task_end[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- An open call of an executor that is gone really may have happened: it stays listed, and is billed to nobody. It is closed before the
  -- sums are read: one that its gateway closes, and pays, in this moment counts.
  UPDATE llm_calls c SET state = 'unknown', finished_at = now() FROM unnest(p_ends) e
    WHERE c.task_id = e.task_id AND CASE c.state WHEN 'started' THEN true END;

  WITH was AS (
    SELECT t.id, t.tenant_id, t.user_id, t.plugin_name, t.environment, t.reserved_period, t.routing_method, t.overage, t.attempt, t.event_seq,
        e.status, e.result, e.error, e.events || jsonb_build_array(jsonb_build_object('type', 'finished', 'data', jsonb_build_object('status', e.status))) AS events
      FROM unnest(p_ends) e JOIN tasks t ON t.id = e.task_id
  ), paid AS (
    SELECT c.task_id, c.step, max(c.plugin_name) AS plugin_name, max(c.model) AS model, sum(c.input_tokens) AS input_tokens, sum(c.output_tokens) AS output_tokens,
        sum(c.cache_write_tokens + c.cache_read_tokens) AS cache_tokens, sum(c.cost_micro_usd) AS cost
      FROM unnest(p_ends) e JOIN llm_calls c ON c.task_id = e.task_id WHERE CASE c.state WHEN 'done' THEN true END GROUP BY c.task_id, c.step
  ), ended AS (
    UPDATE tasks t SET status = w.status, result = w.result, error = w.error, completed_at = now(), lease_until = NULL, next_ring_at = NULL, reserved_period = NULL,
        tokens_used = coalesce((SELECT sum(p.input_tokens + p.output_tokens + p.cache_tokens) FROM paid p WHERE p.task_id = w.id), 0),
        cost_micro_usd = coalesce((SELECT sum(p.cost) FROM paid p WHERE p.task_id = w.id), 0),
        event_seq = w.event_seq + jsonb_array_length(w.events)
      FROM was w WHERE t.id = w.id
  ), held AS (
    SELECT r.* FROM (
        SELECT tenant_id, plugin_name, environment, reserved_period, count(*)::int AS reserved, (count(*) FILTER (WHERE status IN ('success', 'partial')))::int AS used
          FROM was WHERE reserved_period IS NOT NULL GROUP BY tenant_id, plugin_name, environment, reserved_period
      ) r
      JOIN usage_periods u ON u.tenant_id = r.tenant_id AND u.plugin_name = r.plugin_name AND u.environment = r.environment AND u.period_start = r.reserved_period
      ORDER BY r.tenant_id, r.plugin_name, r.environment, r.reserved_period FOR NO KEY UPDATE OF u
  ), returned AS (
    UPDATE usage_periods u SET reserved = u.reserved - h.reserved, used = u.used + h.used
      FROM held h WHERE u.tenant_id = h.tenant_id AND u.plugin_name = h.plugin_name AND u.environment = h.environment AND u.period_start = h.reserved_period
  ), billed AS (
    INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, actor_ref, status, model, tokens_used,
        input_tokens, output_tokens, cache_tokens, latency_ms, cost_micro_usd, routing_method, envelope_version, billable, overage)
      SELECT w.tenant_id, d.plugin_name, d.plugin_version, w.id, d.step, coalesce(d.attempt, w.attempt), w.environment, w.user_id::text, d.status, d.model,
          d.input_tokens + d.output_tokens + d.cache_tokens, d.input_tokens, d.output_tokens, d.cache_tokens, d.latency_ms, d.cost, w.routing_method, '1.0',
          d.status IN ('success', 'partial') AND w.status IN ('success', 'partial') AND w.environment = 'live', w.overage
        FROM was w JOIN (
          -- What ran, with what it paid; and what paid and never came to an end.
          SELECT s.task_id, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, s.latency_ms, p.model, coalesce(p.input_tokens, 0) AS input_tokens,
              coalesce(p.output_tokens, 0) AS output_tokens, coalesce(p.cache_tokens, 0) AS cache_tokens, coalesce(p.cost, 0) AS cost
            FROM unnest(p_ends) e JOIN task_steps s ON s.task_id = e.task_id LEFT JOIN paid p ON p.task_id = s.task_id AND p.step = s.step
          UNION ALL
          SELECT p.task_id, p.step, p.plugin_name, '', NULL, 'failed', 0, p.model, p.input_tokens, p.output_tokens, p.cache_tokens, p.cost
            FROM paid p WHERE NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p.task_id AND s.step = p.step)
        ) d ON d.task_id = w.id
      ON CONFLICT (task_id, step) DO NOTHING
  )
  INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
    SELECT w.id, w.event_seq + e.ordinality, w.tenant_id, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
      FROM was w CROSS JOIN jsonb_array_elements(w.events) WITH ORDINALITY e;
END $$;

-- The same for one task.
CREATE OR REPLACE FUNCTION finish_task(p_task tasks, p_status text, p_result jsonb, p_error jsonb, p_events jsonb) RETURNS void LANGUAGE sql AS $$
  SELECT finish_tasks(ARRAY[ROW(p_task.id, p_status, p_result, p_error, p_events)::task_end])
$$;

-- Settles tasks, each under its lease. Where the lease is lost, nothing is written and `settled` is false. A step carries the attempt
-- that its writer ran under, not the one in the row: a write that slipped past the fence would show.
CREATE FUNCTION settle_tasks(p_batch jsonb) RETURNS TABLE (place int, settled boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_held uuid[];
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  v_held := ARRAY(
    SELECT t.id FROM jsonb_to_recordset(p_batch) AS b(id uuid, tenant uuid, lease uuid)
      JOIN tasks t ON t.id = b.id AND t.tenant_id = b.tenant AND t.lease_token = b.lease
      WHERE CASE t.status WHEN 'running' THEN true END ORDER BY t.id FOR NO KEY UPDATE OF t);
  IF v_held <> '{}' THEN
    INSERT INTO task_steps (task_id, tenant_id, step, plugin_name, plugin_version, attempt, status, output, latency_ms)
      SELECT b.id, b.tenant, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, s.output, s.latency_ms
        FROM jsonb_to_recordset(p_batch) AS b(id uuid, tenant uuid, steps jsonb)
        CROSS JOIN jsonb_to_recordset(b.steps) AS s(step text, plugin_name text, plugin_version text, attempt int, status text, output jsonb, latency_ms int)
        WHERE b.id = ANY (v_held)
      ON CONFLICT (task_id, step) DO NOTHING;
    PERFORM finish_tasks(ARRAY(
      SELECT ROW(b.id, b.status, b.result, b.error, b.events)::task_end
        FROM jsonb_to_recordset(p_batch) AS b(id uuid, status text, result jsonb, error jsonb, events jsonb) WHERE b.id = ANY (v_held)));
  END IF;
  RETURN QUERY SELECT b.place, b.id = ANY (v_held) FROM jsonb_to_recordset(p_batch) AS b(place int, id uuid);
END $$;

-- Takes tasks for one executor. A row for each that is `claimed`, or that was past its deadline, asked to be cancelled, or left behind by
-- too many executors, and has `ended` here; none for one that is over, unknown or held by another. The plan's plugin versions are in
-- the registry, whose generation comes along; the tenant's own configuration of them is here.
CREATE FUNCTION claim_tasks(p_ids uuid[], p_lease_ms int, p_max_crashes int)
RETURNS TABLE (id uuid, outcome text, task jsonb, lease_token uuid, steps jsonb, configs jsonb, profile jsonb, registry_generation text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_claimed uuid[]; v_again uuid[]; v_due uuid[]; t tasks;
BEGIN
  -- The claim need not wait for the disk: one that a crash of the server forgets leaves a queued task and an executor whose lease is unknown.
  -- What really ends a task, or opens a model call, waits, and with it all that came before.
  PERFORM set_config('role', 'aau_platform', true), set_config('synchronous_commit', 'off', true);
  WITH free AS (
    SELECT q.id FROM unnest(p_ids) AS r(id) JOIN tasks q ON q.id = r.id
      WHERE CASE q.status WHEN 'queued' THEN true WHEN 'running' THEN q.lease_until < now() END ORDER BY q.id FOR NO KEY UPDATE OF q
  ), taken AS (
    UPDATE tasks u SET status = 'running', attempt = u.attempt + 1, lease_token = gen_random_uuid(),
        lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond',
        -- This ring was heard: the next time nobody hears one, the pauses begin small again.
        ring_count = 0, started_at = coalesce(u.started_at, now())
      FROM free WHERE u.id = free.id
      RETURNING u.id, u.attempt, u.cancel_requested_at IS NOT NULL OR u.deadline < now() OR u.attempt - u.hand_backs > p_max_crashes AS is_due
  )
  SELECT array_agg(k.id) FILTER (WHERE NOT k.is_due), array_agg(k.id) FILTER (WHERE k.attempt > 1), array_agg(k.id) FILTER (WHERE k.is_due)
    INTO v_claimed, v_again, v_due FROM taken k;

  -- A later attempt must not wait for calls whose gateway or executor is gone.
  IF v_again IS NOT NULL THEN
    UPDATE llm_calls SET state = 'unknown', finished_at = now() WHERE task_id = ANY (v_again) AND CASE state WHEN 'started' THEN true END;
  END IF;

  IF v_due IS NOT NULL THEN
    PERFORM set_config('synchronous_commit', 'on', true);
    FOR t IN SELECT d.* FROM tasks d WHERE d.id = ANY (v_due) ORDER BY d.id LOOP
      IF t.cancel_requested_at IS NOT NULL THEN
        PERFORM finish_task(t, 'cancelled', NULL, NULL, '[]');
      ELSIF t.deadline < now() THEN
        PERFORM finish_task(t, 'failed', NULL,
          jsonb_build_object('code', 'PLUGIN_TIMEOUT', 'message', 'The deadline passed before the task was finished.', 'cause', 'platform'), '[]');
      ELSE
        PERFORM finish_task(t, 'failed', NULL, jsonb_build_object('code', 'PLUGIN_UNAVAILABLE',
          'message', format('%s executors in a row stopped while they ran this task.', p_max_crashes), 'cause', 'platform'), '[]');
      END IF;
      RETURN QUERY SELECT t.id, 'ended', jsonb_build_object('id', t.id, 'tenant_id', t.tenant_id), NULL::uuid, NULL::jsonb, NULL::jsonb, NULL::jsonb, NULL::text;
    END LOOP;
  END IF;

  RETURN QUERY SELECT k.id, 'claimed',
      jsonb_build_object('id', k.id, 'tenant_id', k.tenant_id, 'user_id', k.user_id, 'environment', k.environment, 'conversation_id', k.conversation_id,
        'plan', k.plan, 'input', k.input, 'routing_method', k.routing_method, 'priority', k.priority, 'max_cost_micro_usd', k.max_cost_micro_usd,
        'attempt', k.attempt, 'hand_backs', k.hand_backs, 'deadline_ms', (extract(epoch FROM k.deadline - now()) * 1000)::bigint, 'deadline', k.deadline,
        'event_seq', k.event_seq, 'created_at', k.created_at, 'traceparent', k.traceparent, 'request_id', k.request_id),
      k.lease_token,
      -- A first attempt finds none.
      CASE WHEN k.attempt = 1 THEN '[]' ELSE
        (SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'status', s.status, 'output', s.output)), '[]') FROM task_steps s WHERE s.task_id = k.id) END,
      (SELECT coalesce(jsonb_object_agg(p.name, c.config), '{}') FROM tenant_plugin_config c JOIN plugins p ON p.id = c.plugin_id
        WHERE c.tenant_id = k.tenant_id AND p.name IN (SELECT s.value->>'plugin' FROM jsonb_array_elements(k.plan) s)),
      (SELECT jsonb_build_object('role', u.role) FROM users u WHERE u.id = k.user_id AND u.tenant_id = k.tenant_id),
      (SELECT r.generation::text FROM registry_state r)
    FROM tasks k WHERE k.id = ANY (v_claimed);
END $$;

-- Tasks as their tenants see them; `tenants[i]` asks for `ids[i]`. Each is read in its tenant's name, so that row-level security stands
-- behind every one.
CREATE FUNCTION read_tasks(p_tenants uuid[], p_ids uuid[])
RETURNS TABLE (tenant_id uuid, id uuid, plugin_name text, status text, routing_method text, routing_confidence real, created_at timestamptz,
               started_at timestamptz, completed_at timestamptz, result jsonb, error jsonb, tokens_used bigint, cost_micro_usd bigint, attempt int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true);
  FOR i IN 1 .. cardinality(p_ids) LOOP
    PERFORM set_config('app.tenant', p_tenants[i]::text, true);
    RETURN QUERY SELECT t.tenant_id, t.id, t.plugin_name, t.status, t.routing_method, t.routing_confidence, t.created_at, t.started_at, t.completed_at, t.result,
      t.error, t.tokens_used, t.cost_micro_usd, t.attempt FROM tasks t WHERE t.tenant_id = p_tenants[i] AND t.id = p_ids[i];
  END LOOP;
END $$;

-- The ways of one task alone, which these take the place of.
DROP FUNCTION admit_task(uuid, uuid, uuid, uuid, text, text, text, jsonb, jsonb, text, real, text, bigint, timestamptz, text, text, text, text);
DROP FUNCTION claim_task(uuid, int, int);
DROP FUNCTION settle_task(uuid, uuid, uuid, text, jsonb, jsonb, jsonb, jsonb);
DROP FUNCTION read_task(uuid, uuid);

-- Every row is found by its key. A plan that was made while the tables were small, or for a batch of another size, must not read them whole,
-- nor read all that is queued or running: that is why a status stands in a CASE, where no partial index is seen to fit. And one plan for all
-- sizes costs less than a new one for each.
DO $$
DECLARE f regprocedure;
BEGIN
  FOREACH f IN ARRAY ARRAY['admit_tasks(jsonb)', 'finish_tasks(task_end[])', 'settle_tasks(jsonb)', 'claim_tasks(uuid[], int, int)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_hashjoin = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', f);
  END LOOP;
END $$;
