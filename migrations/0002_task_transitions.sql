-- Why: every change of a task's state is one statement from the function host: one round trip, one transaction, and the
-- WHERE is the lock. Each function enters its role first, so row-level security holds inside as well; the role and the
-- tenant are local to the transaction that the statement is.

CREATE FUNCTION enter_tenant(p_tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
END $$;

CREATE FUNCTION enter_platform() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
END $$;

-- Finds the key with this hash and what the platform needs to know of its tenant. No row: unknown.
CREATE FUNCTION authenticate_key(p_hash text)
RETURNS TABLE (key_id uuid, tenant_id uuid, user_id uuid, environment text, scopes text[], plan_tier text, settings jsonb,
               expires_in_ms bigint, revoked boolean) LANGUAGE plpgsql AS $$
DECLARE k api_keys;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.key_hash', p_hash, true), set_config('app.tenant', '', true);
  SELECT * INTO k FROM api_keys WHERE key_hash = p_hash;
  IF NOT FOUND THEN RETURN; END IF;
  PERFORM set_config('app.tenant', k.tenant_id::text, true);
  RETURN QUERY SELECT k.id, k.tenant_id, k.user_id, k.environment, k.scopes, t.plan_tier, t.settings,
    (extract(epoch FROM k.expires_at - now()) * 1000)::bigint, k.revoked_at IS NOT NULL
    FROM tenants t WHERE t.id = k.tenant_id;
END $$;

-- Ends a task: the one place where a terminal status is written. The caller holds the row lock and has entered a role.
CREATE FUNCTION finish_task(p_task tasks, p_status text, p_result jsonb, p_error jsonb, p_events jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_tokens bigint; v_cost bigint; v_open int; v_events int := jsonb_array_length(p_events);
BEGIN
  SELECT coalesce(sum(input_tokens + output_tokens + cache_write_tokens + cache_read_tokens) FILTER (WHERE state = 'done'), 0),
      coalesce(sum(cost_micro_usd) FILTER (WHERE state = 'done'), 0), count(*) FILTER (WHERE state = 'started')
    INTO v_tokens, v_cost, v_open FROM llm_calls WHERE task_id = p_task.id;

  -- An open call of an executor that is gone really may have happened: it stays listed, and is billed to nobody.
  -- Summed again after: one that was open in the first look may have been closed, and paid, before this UPDATE reached it.
  IF v_open > 0 THEN
    UPDATE llm_calls SET state = 'unknown', finished_at = now() WHERE task_id = p_task.id AND state = 'started';
    SELECT coalesce(sum(input_tokens + output_tokens + cache_write_tokens + cache_read_tokens), 0), coalesce(sum(cost_micro_usd), 0)
      INTO v_tokens, v_cost FROM llm_calls WHERE task_id = p_task.id AND state = 'done';
  END IF;

  UPDATE tasks SET status = p_status, result = p_result, error = p_error, completed_at = now(), lease_until = NULL, next_ring_at = NULL,
    reserved_period = NULL, tokens_used = v_tokens, cost_micro_usd = v_cost, event_seq = event_seq + v_events + 1
    WHERE id = p_task.id;

  IF p_task.reserved_period IS NOT NULL THEN
    UPDATE usage_periods SET reserved = reserved - 1, used = used + (p_status IN ('success', 'partial'))::int
      WHERE tenant_id = p_task.tenant_id AND plugin_name = p_task.plugin_name AND environment = p_task.environment
        AND period_start = p_task.reserved_period;
  END IF;

  INSERT INTO execution_events (tenant_id, plugin_name, plugin_version, task_id, step, attempt, environment, actor_ref, status, model, tokens_used,
      input_tokens, output_tokens, cache_tokens, latency_ms, cost_micro_usd, routing_method, envelope_version, billable, overage)
    SELECT p_task.tenant_id, coalesce(s.plugin_name, c.plugin_name), coalesce(s.plugin_version, ''), p_task.id, step, coalesce(s.attempt, p_task.attempt),
      p_task.environment, p_task.user_id::text, coalesce(s.status, 'failed'), c.model,
      coalesce(c.input_tokens + c.output_tokens + c.cache_tokens, 0), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0), coalesce(c.cache_tokens, 0),
      coalesce(s.latency_ms, 0), coalesce(c.cost, 0), p_task.routing_method, '1.0',
      coalesce(s.status IN ('success', 'partial') AND p_status IN ('success', 'partial') AND p_task.environment = 'live', false), p_task.overage
    FROM (SELECT * FROM task_steps WHERE task_id = p_task.id) s
    FULL JOIN (SELECT step, max(plugin_name) AS plugin_name, max(model) AS model, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cache_write_tokens + cache_read_tokens) AS cache_tokens, sum(cost_micro_usd) AS cost
      FROM llm_calls WHERE task_id = p_task.id AND state = 'done' GROUP BY step) c USING (step)
  ON CONFLICT (task_id, step) DO NOTHING;

  INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
    SELECT p_task.id, p_task.event_seq + e.ordinality, p_task.tenant_id, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
      FROM jsonb_array_elements(p_events) WITH ORDINALITY e
    UNION ALL
    SELECT p_task.id, p_task.event_seq + v_events + 1, p_task.tenant_id, 'finished', jsonb_build_object('status', p_status), now();
END $$;

-- Admits a task or says why not: `admitted`, `replayed` (the idempotency key is known), `key_reused` (for another body),
-- `not_subscribed`, `quota_exceeded`. One execution is reserved on the month's usage row; the WHERE of that upsert is the quota.
CREATE FUNCTION admit_task(
  p_tenant uuid, p_id uuid, p_user uuid, p_key uuid, p_environment text, p_conversation text, p_plugin text, p_plan jsonb, p_input jsonb,
  p_method text, p_confidence real, p_priority text, p_max_cost bigint, p_deadline timestamptz, p_traceparent text, p_request text,
  p_idempotency_key text, p_request_sha256 text
) RETURNS TABLE (outcome text, task_id uuid, created_at timestamptz, quota_used int, quota_limit int, overage boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_sub record; v_old record; v_period date; v_total int; v_now timestamptz := now();
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);

  IF p_idempotency_key IS NOT NULL THEN
    SELECT i.task_id, i.request_sha256, i.created_at INTO v_old FROM idempotency_keys i
      WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    IF FOUND AND v_old.created_at > v_now - interval '24 hours' THEN
      RETURN QUERY SELECT CASE WHEN v_old.request_sha256 = p_request_sha256 THEN 'replayed' ELSE 'key_reused' END, v_old.task_id, v_old.created_at, 0, 0, false;
      RETURN;
    ELSIF FOUND THEN
      DELETE FROM idempotency_keys i WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    END IF;
  END IF;

  SELECT s.quota_limit, s.overage_enabled INTO v_sub FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id
    WHERE s.tenant_id = p_tenant AND p.name = p_plugin AND s.ended_at IS NULL;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'not_subscribed', NULL::uuid, NULL::timestamptz, 0, 0, false;
    RETURN;
  END IF;

  v_period := date_trunc('month', v_now AT TIME ZONE 'UTC')::date;
  IF v_sub.quota_limit > 0 OR v_sub.quota_limit IS NULL OR v_sub.overage_enabled THEN
    -- The row is there for all but the first task of a month, and an UPDATE that finds it costs half of an upsert.
    UPDATE usage_periods u SET reserved = u.reserved + 1
      WHERE u.tenant_id = p_tenant AND u.plugin_name = p_plugin AND u.environment = p_environment AND u.period_start = v_period
        AND (v_sub.quota_limit IS NULL OR v_sub.overage_enabled OR u.used + u.reserved < v_sub.quota_limit)
      RETURNING u.used + u.reserved INTO v_total;
    IF v_total IS NULL THEN
      INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved)
        VALUES (p_tenant, p_plugin, p_environment, v_period, 1)
        ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + 1
          WHERE v_sub.quota_limit IS NULL OR v_sub.overage_enabled OR u.used + u.reserved < v_sub.quota_limit
        RETURNING u.used + u.reserved INTO v_total;
    END IF;
  END IF;
  IF v_total IS NULL THEN
    RETURN QUERY SELECT 'quota_exceeded', NULL::uuid, NULL::timestamptz, v_sub.quota_limit, v_sub.quota_limit, false;
    RETURN;
  END IF;

  INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plugin_name, plan, status, input, routing_method, routing_confidence,
      priority, max_cost_micro_usd, reserved_period, overage, deadline, next_ring_at, traceparent, request_id, created_at)
    VALUES (p_id, p_tenant, p_user, p_key, p_environment, p_conversation, p_plugin, p_plan, 'queued', p_input, p_method, p_confidence,
      p_priority, p_max_cost, v_period, coalesce(v_total > v_sub.quota_limit, false), p_deadline, least(v_now + interval '10 seconds', p_deadline), p_traceparent, p_request, v_now);

  -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
  IF p_idempotency_key IS NOT NULL THEN
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      VALUES (p_tenant, p_environment, 'task-submit', p_idempotency_key, p_request_sha256, p_id);
  END IF;

  RETURN QUERY SELECT 'admitted', p_id, v_now, v_total, v_sub.quota_limit, coalesce(v_total > v_sub.quota_limit, false);
END $$;

-- Takes a task for one executor: `claimed`, or `gone` when it is over, unknown or held by another. A task past its deadline, asked
-- to be cancelled, or left behind by too many executors ends here, as `ended`.
CREATE FUNCTION claim_task(p_id uuid, p_lease_ms int, p_max_crashes int)
RETURNS TABLE (outcome text, task jsonb, lease_token uuid, steps jsonb, plugins jsonb, profile jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; v_error jsonb;
BEGIN
  -- The claim need not wait for the disk: one that a crash of the server forgets leaves a queued task and an executor whose lease is unknown.
  -- What really ends a task, or opens a model call, waits, and with it all that came before.
  PERFORM set_config('role', 'aau_platform', true), set_config('synchronous_commit', 'off', true);
  UPDATE tasks SET status = 'running', attempt = attempt + 1, lease_token = gen_random_uuid(),
      lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond',
      -- This ring was heard: the next time nobody hears one, the pauses begin small again.
      ring_count = 0, started_at = coalesce(started_at, now())
    WHERE id = p_id AND (status = 'queued' OR (status = 'running' AND lease_until < now()))
    RETURNING * INTO t;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'gone', NULL::jsonb, NULL::uuid, NULL::jsonb, NULL::jsonb, NULL::jsonb;
    RETURN;
  END IF;

  -- A later attempt must not wait for calls whose gateway or executor is gone.
  IF t.attempt > 1 THEN
    UPDATE llm_calls SET state = 'unknown', finished_at = now() WHERE task_id = p_id AND state = 'started';
  END IF;

  IF t.cancel_requested_at IS NOT NULL THEN
    PERFORM finish_task(t, 'cancelled', NULL, NULL, '[]');
  ELSIF t.deadline < now() THEN
    v_error := jsonb_build_object('code', 'PLUGIN_TIMEOUT', 'message', 'The deadline passed before the task was finished.', 'cause', 'platform');
  ELSIF t.attempt - t.hand_backs > p_max_crashes THEN
    v_error := jsonb_build_object('code', 'PLUGIN_UNAVAILABLE', 'message', format('%s executors in a row stopped while they ran this task.', p_max_crashes), 'cause', 'platform');
  END IF;
  IF v_error IS NOT NULL THEN PERFORM finish_task(t, 'failed', NULL, v_error, '[]'); END IF;
  IF v_error IS NOT NULL OR t.cancel_requested_at IS NOT NULL THEN
    PERFORM set_config('synchronous_commit', 'on', true);
    RETURN QUERY SELECT 'ended', jsonb_build_object('id', t.id, 'tenant_id', t.tenant_id), NULL::uuid, NULL::jsonb, NULL::jsonb, NULL::jsonb;
    RETURN;
  END IF;

  RETURN QUERY SELECT 'claimed',
    jsonb_build_object('id', t.id, 'tenant_id', t.tenant_id, 'user_id', t.user_id, 'environment', t.environment, 'conversation_id', t.conversation_id,
      'plan', t.plan, 'input', t.input, 'routing_method', t.routing_method, 'priority', t.priority, 'max_cost_micro_usd', t.max_cost_micro_usd,
      'attempt', t.attempt, 'hand_backs', t.hand_backs, 'deadline_ms', (extract(epoch FROM t.deadline - now()) * 1000)::bigint, 'deadline', t.deadline, 'event_seq', t.event_seq,
      'created_at', t.created_at, 'traceparent', t.traceparent, 'request_id', t.request_id),
    t.lease_token,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'status', s.status, 'output', s.output)), '[]') FROM task_steps s WHERE s.task_id = p_id),
    (SELECT coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'version', pv.version, 'endpoint', pv.endpoint, 'manifest', pv.manifest, 'status', pv.status,
        'config', coalesce(c.config, '{}'))), '[]')
      FROM jsonb_to_recordset(t.plan) AS step(plugin text, version text)
      JOIN plugins p ON p.name = step.plugin
      JOIN plugin_versions pv ON pv.plugin_id = p.id AND pv.version = step.version
      LEFT JOIN tenant_plugin_config c ON c.tenant_id = t.tenant_id AND c.plugin_id = p.id),
    (SELECT jsonb_build_object('role', u.role) FROM users u WHERE u.id = t.user_id AND u.tenant_id = t.tenant_id);
END $$;

-- One task as its tenant sees it: one round trip, where a transaction around a SELECT takes four.
CREATE FUNCTION read_task(p_tenant uuid, p_id uuid)
RETURNS TABLE (id uuid, plugin_name text, status text, routing_method text, routing_confidence real, created_at timestamptz, started_at timestamptz,
               completed_at timestamptz, result jsonb, error jsonb, tokens_used bigint, cost_micro_usd bigint, attempt int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT t.id, t.plugin_name, t.status, t.routing_method, t.routing_confidence, t.created_at, t.started_at, t.completed_at, t.result, t.error,
    t.tokens_used, t.cost_micro_usd, t.attempt FROM tasks t WHERE t.tenant_id = p_tenant AND t.id = p_id;
END $$;

-- Renews the lease and appends progress. `held` false: another executor has the task, or it is over.
CREATE FUNCTION renew_lease(p_tenant uuid, p_id uuid, p_lease uuid, p_lease_ms int, p_events jsonb)
RETURNS TABLE (held boolean, cancel_requested boolean, last_seq int) LANGUAGE plpgsql AS $$
DECLARE v_seq int; v_cancel boolean; v_events int := jsonb_array_length(p_events);
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE tasks SET lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond',
      event_seq = event_seq + v_events
    WHERE id = p_id AND lease_token = p_lease AND status = 'running'
    RETURNING event_seq, cancel_requested_at IS NOT NULL INTO v_seq, v_cancel;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, false, 0;
    RETURN;
  END IF;
  IF v_events > 0 THEN
    INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
      SELECT p_id, v_seq - v_events + e.ordinality, p_tenant, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
      FROM jsonb_array_elements(p_events) WITH ORDINALITY e;
  END IF;
  RETURN QUERY SELECT true, v_cancel, v_seq;
END $$;

-- Settles a task under its lease. False: the lease is lost, and nothing was written. A step carries the attempt that its writer
-- ran under, not the one in the row: a write that slipped past the fence would show.
CREATE FUNCTION settle_task(p_tenant uuid, p_id uuid, p_lease uuid, p_status text, p_result jsonb, p_error jsonb, p_steps jsonb, p_events jsonb)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE t tasks;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND lease_token = p_lease AND status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO task_steps (task_id, tenant_id, step, plugin_name, plugin_version, attempt, status, output, latency_ms)
    SELECT p_id, p_tenant, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, s.output, s.latency_ms
    FROM jsonb_to_recordset(p_steps) AS s(step text, plugin_name text, plugin_version text, attempt int, status text, output jsonb, latency_ms int)
    ON CONFLICT (task_id, step) DO NOTHING;
  PERFORM finish_task(t, p_status, p_result, p_error, p_events);
  RETURN true;
END $$;

-- Gives a task back to the queue after an orderly stop, to be rung after a delay. False: the lease is lost.
CREATE FUNCTION hand_back_task(p_tenant uuid, p_id uuid, p_lease uuid, p_delay_ms int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE tasks SET status = 'queued', lease_token = NULL, lease_until = NULL, hand_backs = hand_backs + 1,
      next_ring_at = least(now() + p_delay_ms * interval '1 millisecond', greatest(deadline, now()))
    WHERE id = p_id AND lease_token = p_lease AND status = 'running';
  RETURN FOUND;
END $$;

-- Cancels: a queued task at once, a running one by request. Returns the status that holds now; no row: unknown to this tenant.
CREATE FUNCTION cancel_task(p_tenant uuid, p_id uuid) RETURNS TABLE (status text, was_over boolean, plugin_name text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  IF t.status IN ('queued', 'pending') THEN
    PERFORM finish_task(t, 'cancelled', NULL, NULL, '[]');
    RETURN QUERY SELECT 'cancelled', false, t.plugin_name;
  ELSIF t.status = 'running' THEN
    UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = p_id;
    RETURN QUERY SELECT 'cancelling', false, t.plugin_name;
  ELSE
    RETURN QUERY SELECT t.status, true, t.plugin_name;
  END IF;
END $$;

-- Fails the work of an event that could not be delivered, unless someone holds the task or it is over.
CREATE FUNCTION fail_undeliverable_task(p_id uuid, p_error jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE t tasks;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND (status = 'queued' OR (status = 'running' AND lease_until < now())) FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM finish_task(t, 'failed', NULL, p_error, '[]');
  RETURN true;
END $$;

-- Tasks that wait for a ring. Each is rung less and less often, so that a backlog that merely waits its turn does not fill the streams;
-- but at its deadline it is rung in any case, since only a claim ends it then.
CREATE FUNCTION take_due_tasks(p_limit int) RETURNS TABLE (id uuid, plugin_name text, traceparent text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE tasks t SET ring_count = t.ring_count + 1, next_ring_at = least(now() + least(interval '5 minutes', interval '10 seconds' * power(2, least(t.ring_count, 5))),
        greatest(t.deadline, now() + interval '10 seconds'))
    FROM (SELECT d.id FROM tasks d WHERE d.status IN ('queued', 'running') AND d.next_ring_at < now() ORDER BY d.next_ring_at LIMIT p_limit FOR UPDATE SKIP LOCKED) due
    WHERE t.id = due.id
    RETURNING t.id, t.plugin_name, t.traceparent;
END $$;

-- Opens a model call in the journal: `proceed`, `replay` (an earlier attempt has the answer), `in_flight`, `lease_lost`, `cancelled`, `over_cost`.
CREATE FUNCTION begin_llm_call(
  p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text, p_node text, p_id uuid, p_sha256 text, p_occurrence int, p_model text,
  p_price_version text, p_ceiling bigint
) RETURNS TABLE (outcome text, call_no int, answer jsonb, spent_micro_usd bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; c llm_calls; v_spent bigint; v_next int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_task AND lease_token = p_lease AND status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'lease_lost', 0, NULL::jsonb, 0::bigint;
    RETURN;
  END IF;
  IF t.cancel_requested_at IS NOT NULL THEN
    RETURN QUERY SELECT 'cancelled', 0, NULL::jsonb, 0::bigint;
    RETURN;
  END IF;
  SELECT * INTO c FROM llm_calls WHERE task_id = p_task AND step = p_step AND request_sha256 = p_sha256 AND occurrence = p_occurrence AND state IN ('started', 'done');
  IF FOUND THEN
    RETURN QUERY SELECT CASE c.state WHEN 'done' THEN 'replay' ELSE 'in_flight' END, c.call_no, c.answer, 0::bigint;
    RETURN;
  END IF;
  SELECT coalesce(sum(CASE state WHEN 'done' THEN cost_micro_usd WHEN 'started' THEN ceiling_micro_usd ELSE 0 END), 0),
      coalesce(max(call_no) FILTER (WHERE step = p_step), 0) + 1
    INTO v_spent, v_next FROM llm_calls WHERE task_id = p_task;
  IF v_spent + p_ceiling > t.max_cost_micro_usd THEN
    RETURN QUERY SELECT 'over_cost', 0, NULL::jsonb, v_spent;
    RETURN;
  END IF;
  INSERT INTO llm_calls (id, task_id, tenant_id, step, call_no, plugin_name, node, request_sha256, occurrence, attempt, state, model, price_version, ceiling_micro_usd)
    VALUES (p_id, p_task, p_tenant, p_step, v_next, p_plugin, p_node, p_sha256, p_occurrence, t.attempt, 'started', p_model, p_price_version, p_ceiling);
  RETURN QUERY SELECT 'proceed', v_next, NULL::jsonb, v_spent;
END $$;

-- Closes a model call. What the provider counted is always kept; only a call that is still open can become `done`.
CREATE FUNCTION end_llm_call(
  p_tenant uuid, p_id uuid, p_state text, p_model text, p_usage jsonb, p_input int, p_output int, p_cache_write int, p_cache_read int, p_cost bigint,
  p_provider_request text, p_answer jsonb, p_error jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE llm_calls SET model = coalesce(p_model, model), usage = p_usage, input_tokens = p_input, output_tokens = p_output, cache_write_tokens = p_cache_write,
      cache_read_tokens = p_cache_read, cost_micro_usd = p_cost, provider_request_id = p_provider_request, answer = p_answer, error = p_error, finished_at = now(),
      state = CASE state WHEN 'started' THEN p_state ELSE state END
    WHERE id = p_id AND state IN ('started', 'unknown');
  RETURN FOUND;
END $$;

-- The key is a parameter: it never stands in SQL text. An AES-256 message of pgcrypto carries its own integrity check.
CREATE FUNCTION put_tenant_secret(p_tenant uuid, p_plugin text, p_name text, p_value text, p_key text, p_key_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  INSERT INTO tenant_secrets (tenant_id, plugin_name, secret_name, secret_value, key_id)
    VALUES (p_tenant, p_plugin, p_name, pgp_sym_encrypt(p_value, p_key, 'cipher-algo=aes256'), p_key_id)
    ON CONFLICT (tenant_id, plugin_name, secret_name) DO UPDATE SET secret_value = EXCLUDED.secret_value, key_id = EXCLUDED.key_id;
END $$;

CREATE FUNCTION reveal_tenant_secrets(p_tenant uuid, p_plugin text, p_names text[], p_key text) RETURNS TABLE (name text, value text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT s.secret_name, pgp_sym_decrypt(s.secret_value, p_key) FROM tenant_secrets s
    WHERE s.tenant_id = p_tenant AND s.plugin_name = p_plugin AND s.secret_name = ANY (p_names);
END $$;

-- A row: the lease lives.
CREATE FUNCTION check_lease(p_tenant uuid, p_id uuid, p_lease uuid) RETURNS TABLE (cancel_requested boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT t.cancel_requested_at IS NOT NULL FROM tasks t WHERE t.id = p_id AND t.lease_token = p_lease AND t.status = 'running';
END $$;

-- Progress that a plugin reports by itself: it does not renew the lease, which is the executor's.
CREATE FUNCTION append_progress(p_tenant uuid, p_id uuid, p_lease uuid, p_events jsonb) RETURNS TABLE (held boolean, cancel_requested boolean) LANGUAGE plpgsql AS $$
DECLARE v_seq int; v_cancel boolean; v_events int := jsonb_array_length(p_events);
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE tasks SET event_seq = event_seq + v_events WHERE id = p_id AND lease_token = p_lease AND status = 'running' AND event_seq < 20000
    RETURNING event_seq, cancel_requested_at IS NOT NULL INTO v_seq, v_cancel;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, false;
    RETURN;
  END IF;
  INSERT INTO task_events (task_id, seq, tenant_id, type, data)
    SELECT p_id, v_seq - v_events + e.ordinality, p_tenant, e.value->>'type', e.value->'data' FROM jsonb_array_elements(p_events) WITH ORDINALITY e;
  RETURN QUERY SELECT true, v_cancel;
END $$;

-- Null: the lease is lost, or the task has its full number of artifacts.
CREATE FUNCTION put_artifact(p_tenant uuid, p_task uuid, p_lease uuid, p_id uuid, p_plugin text, p_name text, p_media_type text, p_size bigint, p_sha256 text,
  p_key text, p_max int) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v_id uuid;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  PERFORM 1 FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  IF (SELECT count(*) FROM artifacts a WHERE a.task_id = p_task AND a.name <> p_name) >= p_max THEN RETURN NULL; END IF;
  INSERT INTO artifacts AS a (id, tenant_id, task_id, plugin_name, name, media_type, size_bytes, sha256, storage_key)
    VALUES (p_id, p_tenant, p_task, p_plugin, p_name, p_media_type, p_size, p_sha256, p_key)
    ON CONFLICT (task_id, name) DO UPDATE SET media_type = EXCLUDED.media_type, size_bytes = EXCLUDED.size_bytes, sha256 = EXCLUDED.sha256, storage_key = EXCLUDED.storage_key
    RETURNING a.id INTO v_id;
  RETURN v_id;
END $$;
