-- Why: a question may offer a plan (a plugin with what it builds on, or each part of the command to a plugin of its own), so an answer reserves one
-- execution for every step, or none at all. And the command's vector is kept with the question: answering it embeds nothing again.

-- As in 0008, with the vector. A candidate is {plugin, plugins, description, confidence, parts?}: `plugins` are those of all its steps.
DROP FUNCTION ask_caller(uuid, uuid, uuid, uuid, text, text, jsonb, text, jsonb, text, real, text, bigint, timestamptz, int, int, text, text, text, text);
CREATE FUNCTION ask_caller(
  p_tenant uuid, p_id uuid, p_user uuid, p_key uuid, p_environment text, p_conversation text, p_input jsonb, p_question text, p_candidates jsonb,
  p_method text, p_confidence real, p_priority text, p_max_cost bigint, p_deadline timestamptz, p_ask_ms int, p_run_ms int, p_traceparent text, p_request text,
  p_idempotency_key text, p_request_sha256 text, p_embedding bytea, p_embedding_model text
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

  -- Two submits at once with one key: the second fails here as a whole, is run again, and finds the first.
  IF p_idempotency_key IS NOT NULL THEN
    INSERT INTO idempotency_keys (tenant_id, environment, route, key, request_sha256, task_id)
      VALUES (p_tenant, p_environment, 'task-submit', p_idempotency_key, p_request_sha256, p_id);
  END IF;
  RETURN QUERY SELECT 'asked', p_id;
END $$;

-- Puts a pending task into the queue with the plan of one of its candidates, counted from 0: `answered`; `answered_before` (with this very candidate),
-- `not_pending`, `too_late`, `not_subscribed`, `quota_exceeded` (these two name the plugin): then nothing is written. No row: unknown to this
-- tenant. Of two answers at once the second waits for the row and finds what the first has made of it. The reservation is reserve_plan's.
DROP FUNCTION answer_task(uuid, uuid, text, jsonb);
CREATE FUNCTION answer_task(p_tenant uuid, p_id uuid, p_choice int, p_plugin text, p_plan jsonb)
RETURNS TABLE (outcome text, traceparent text, plugin text, quota_limit int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; v_reserved record; v_deadline timestamptz; v_refused text; v_period date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT * INTO t FROM tasks WHERE id = p_id AND tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;

  IF t.status <> 'pending' THEN
    -- A task that was answered before this function existed has no `chosen`; its plugin says which it was.
    v_refused := CASE WHEN t.routing_method = 'clarified' AND coalesce((t.input_request->>'chosen')::int = p_choice, t.plugin_name = p_plugin) THEN 'answered_before' ELSE 'not_pending' END;
  ELSIF t.deadline < now() THEN
    v_refused := 'too_late';
  END IF;
  IF v_refused IS NOT NULL THEN
    RETURN QUERY SELECT v_refused, t.traceparent, NULL::text, NULL::int;
    RETURN;
  END IF;
  SELECT * INTO v_reserved FROM reserve_plan(p_tenant, t.environment, v_period, p_plan);
  IF v_reserved.refused IS NOT NULL THEN
    RETURN QUERY SELECT v_reserved.refused, t.traceparent, v_reserved.plugin, v_reserved.quota_limit;
    RETURN;
  END IF;

  -- The time in which an answer was awaited is not taken from the plugin, unless the caller named the hour.
  v_deadline := coalesce(now() + (t.input_request->>'run_ms')::int * interval '1 millisecond', t.deadline);
  UPDATE tasks SET status = 'queued', plugin_name = p_plugin, plan = v_reserved.plan, routing_method = 'clarified', routing_confidence = 1, reserved_period = v_period,
      overage = v_reserved.overage, input_request = input_request || jsonb_build_object('chosen', p_choice),
      deadline = v_deadline, next_ring_at = least(now() + interval '10 seconds', v_deadline), event_seq = event_seq + 1
    WHERE id = p_id;
  INSERT INTO task_events (task_id, seq, tenant_id, type, data) VALUES (p_id, t.event_seq + 1, p_tenant, 'answered', jsonb_build_object('plugin', p_plugin));
  RETURN QUERY SELECT 'answered', t.traceparent, NULL::text, NULL::int;
END $$;
