-- Why: a command that may be for several plugins becomes a question to its caller: a task that is `pending`, holds no reservation
-- and cannot be claimed, until the answer puts it into the queue. The row remembers the question, so an answer may come days of
-- deployments later, through any key of the tenant, and twice.

-- {question, candidates: [{plugin, description, confidence, subscribed}], answer_by}, and run_ms: how long the task may take once it is
-- answered, where its caller named no deadline. No word of the command stands in it. It stays when the task goes on.
ALTER TABLE tasks ADD COLUMN input_request jsonb;
-- Few tasks wait for an answer at a time; the index holds no others.
CREATE INDEX tasks_asking ON tasks (deadline) WHERE status = 'pending';

-- Stores a question, or says why not: `asked`, `replayed` (the idempotency key is known), `key_reused` (for another body). The plan of
-- a pending task is empty: nothing is planned yet, and only a queued task is ever claimed.
CREATE FUNCTION ask_caller(
  p_tenant uuid, p_id uuid, p_user uuid, p_key uuid, p_environment text, p_conversation text, p_input jsonb, p_question text, p_candidates jsonb,
  p_method text, p_confidence real, p_priority text, p_max_cost bigint, p_deadline timestamptz, p_ask_ms int, p_run_ms int, p_traceparent text, p_request text,
  p_idempotency_key text, p_request_sha256 text
) RETURNS TABLE (outcome text, task_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_old record; v_now timestamptz := now(); v_answer_by timestamptz; v_request jsonb;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);

  IF p_idempotency_key IS NOT NULL THEN
    SELECT i.task_id, i.request_sha256, i.created_at INTO v_old FROM idempotency_keys i
      WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    IF FOUND AND v_old.created_at > v_now - interval '24 hours' THEN
      RETURN QUERY SELECT CASE WHEN v_old.request_sha256 = p_request_sha256 THEN 'replayed' ELSE 'key_reused' END, v_old.task_id;
      RETURN;
    ELSIF FOUND THEN
      DELETE FROM idempotency_keys i WHERE i.tenant_id = p_tenant AND i.environment = p_environment AND i.route = 'task-submit' AND i.key = p_idempotency_key;
    END IF;
  END IF;

  v_answer_by := coalesce(p_deadline, v_now + p_ask_ms * interval '1 millisecond');
  SELECT jsonb_build_object('question', p_question, 'answer_by', to_char(v_answer_by AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'candidates', jsonb_agg(c.value || jsonb_build_object('subscribed', EXISTS (
      SELECT FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id WHERE s.tenant_id = p_tenant AND p.name = c.value->>'plugin' AND s.ended_at IS NULL)) ORDER BY c.ordinality))
    || CASE WHEN p_deadline IS NULL THEN jsonb_build_object('run_ms', p_run_ms) ELSE '{}' END
    INTO v_request FROM jsonb_array_elements(p_candidates) WITH ORDINALITY c;

  INSERT INTO tasks (id, tenant_id, user_id, api_key_id, environment, conversation_id, plan, status, input, input_request, routing_method, routing_confidence,
      priority, max_cost_micro_usd, deadline, event_seq, traceparent, request_id, created_at)
    VALUES (p_id, p_tenant, p_user, p_key, p_environment, p_conversation, '[]', 'pending', p_input, v_request, p_method, p_confidence,
      p_priority, p_max_cost, v_answer_by, 1, p_traceparent, p_request, v_now);
  INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES (p_id, 1, p_tenant, 'needs_input', v_request - 'run_ms');

  -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
  IF p_idempotency_key IS NOT NULL THEN
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      VALUES (p_tenant, p_environment, 'task-submit', p_idempotency_key, p_request_sha256, p_id);
  END IF;
  RETURN QUERY SELECT 'asked', p_id;
END $$;

-- Puts a pending task into the queue: `answered`; `answered_before` (with this very plugin), `not_pending`, `too_late`, `no_candidate`,
-- `not_subscribed`, `quota_exceeded`: then nothing is written. No row: unknown to this tenant. Of two answers at once the second waits for
-- the row and finds what the first has made of it. The reservation is that of admit_task, for the one step that a question is about.
CREATE FUNCTION answer_task(p_tenant uuid, p_id uuid, p_plugin text, p_plan jsonb)
RETURNS TABLE (outcome text, traceparent text, quota_limit int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  t tasks; v_sub record; v_period date; v_total int; v_deadline timestamptz; v_refused text;
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
    SELECT s.quota_limit, s.overage_enabled INTO v_sub FROM subscriptions s JOIN plugins p ON p.id = s.plugin_id
      WHERE s.tenant_id = p_tenant AND p.name = p_plugin AND s.ended_at IS NULL;
    IF NOT FOUND THEN v_refused := 'not_subscribed'; END IF;
  END IF;
  IF v_refused IS NOT NULL THEN
    RETURN QUERY SELECT v_refused, t.traceparent, NULL::int;
    RETURN;
  END IF;

  v_period := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
  IF v_sub.quota_limit > 0 OR v_sub.quota_limit IS NULL OR v_sub.overage_enabled THEN
    INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved)
      VALUES (p_tenant, p_plugin, t.environment, v_period, 1)
      ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + 1
        WHERE v_sub.quota_limit IS NULL OR v_sub.overage_enabled OR u.used + u.reserved < v_sub.quota_limit
      RETURNING u.used + u.reserved INTO v_total;
  END IF;
  IF v_total IS NULL THEN
    RETURN QUERY SELECT 'quota_exceeded', t.traceparent, v_sub.quota_limit;
    RETURN;
  END IF;

  -- The time in which an answer was awaited is not taken from the plugin, unless the caller named the hour.
  v_deadline := coalesce(now() + (t.input_request->>'run_ms')::int * interval '1 millisecond', t.deadline);
  UPDATE tasks SET status = 'queued', plugin_name = p_plugin, plan = p_plan, routing_method = 'clarified', routing_confidence = 1, reserved_period = v_period,
      overage = coalesce(v_total > v_sub.quota_limit, false), deadline = v_deadline, next_ring_at = least(now() + interval '10 seconds', v_deadline), event_seq = event_seq + 1
    WHERE id = p_id;
  INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES (p_id, t.event_seq + 1, p_tenant, 'answered', jsonb_build_object('plugin', p_plugin));
  RETURN QUERY SELECT 'answered', t.traceparent, v_sub.quota_limit;
END $$;

-- Ends questions that nobody answered. The ring and the claim know nothing of them: no plugin has them yet.
CREATE FUNCTION end_unanswered_tasks(p_limit int, p_error jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE t tasks; v_count int := 0;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  FOR t IN SELECT * FROM tasks WHERE status = 'pending' AND deadline < now() ORDER BY deadline LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED LOOP
    PERFORM finish_task(t, 'failed', NULL, p_error, '[]');
    v_count := v_count + 1;
  END LOOP;
  RETURN v_count;
END $$;

-- As in 0006, with the question.
DROP FUNCTION read_tasks(uuid[], uuid[]);
CREATE FUNCTION read_tasks(p_tenants uuid[], p_ids uuid[])
RETURNS TABLE (tenant_id uuid, id uuid, plugin_name text, status text, routing_method text, routing_confidence real, created_at timestamptz,
               started_at timestamptz, completed_at timestamptz, result jsonb, error jsonb, tokens_used bigint, cost_micro_usd bigint, attempt int,
               plan jsonb, ended_steps jsonb, input_request jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true);
  FOR i IN 1 .. cardinality(p_ids) LOOP
    PERFORM set_config('app.tenant', p_tenants[i]::text, true);
    RETURN QUERY SELECT t.tenant_id, t.id, t.plugin_name, t.status, t.routing_method, t.routing_confidence, t.created_at, t.started_at, t.completed_at, t.result,
      t.error, t.tokens_used, t.cost_micro_usd, t.attempt, t.plan,
      CASE WHEN jsonb_array_length(t.plan) > 1 THEN (
        SELECT jsonb_agg(jsonb_build_object('id', s.step, 'status', s.status, 'error', s.error, 'latency_ms', s.latency_ms, 'confidence', s.confidence))
          FROM task_steps s WHERE s.task_id = t.id AND s.tenant_id = t.tenant_id) END,
      t.input_request
      FROM tasks t WHERE t.tenant_id = p_tenants[i] AND t.id = p_ids[i];
  END LOOP;
END $$;
