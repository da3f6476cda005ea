-- Why: a plugin may have a part of its work done by another one, `plugin:chain`. Such a call is a step of the caller's own task: it stands in the
-- task's plan behind its parent, holds an execution of its own plugin's quota, is billed when the task is settled, and ends with the task. So
-- nothing that counts, bills or ends a task has to know of it. An executor leaves steps with `chained_by` to whoever runs their parent.

-- What a step has asked of other plugins, under the digest of the question, so that a later attempt finds the step that answered it; and who is
-- carrying it out now. The holder is the fence: a gateway that finds another one there stops.
CREATE TABLE chained_steps (
  task_id uuid NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
  parent text NOT NULL,
  key text NOT NULL,
  step text NOT NULL,
  tenant_id uuid NOT NULL,
  holder uuid,
  -- The task's: whoever held it under an earlier one is stopped by the lease.
  attempt int NOT NULL DEFAULT 1,
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, parent, key),
  UNIQUE (task_id, step)
);
ALTER TABLE chained_steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE chained_steps FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON chained_steps TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()));
CREATE POLICY all_tenants ON chained_steps TO aau_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON chained_steps TO aau_app, aau_platform;

-- Begins a chained step, or says why not: `begun`; `ended` (it has succeeded before: `step` is its row), `in_flight` (another gateway is at it),
-- `lease_lost` (the task or the parent step is over), `cancelled`, `too_many`, `not_included` (the tenant's tier), `not_subscribed`,
-- `quota_exceeded`. `tokens_used` is what the parent and all that it has chained have used.
CREATE FUNCTION begin_chained_step(
  p_tenant uuid, p_task uuid, p_lease uuid, p_parent text, p_key text, p_plugin text, p_version text, p_holder uuid, p_silence_ms int, p_max int
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
      IF v_sub.quota_limit > 0 OR v_sub.quota_limit IS NULL OR v_sub.overage_enabled THEN
        INSERT INTO usage_periods AS u (tenant_id, plugin_name, environment, period_start, reserved)
          VALUES (p_tenant, p_plugin, t.environment, t.reserved_period, 1)
          ON CONFLICT (tenant_id, plugin_name, environment, period_start) DO UPDATE SET reserved = u.reserved + 1
            WHERE v_sub.quota_limit IS NULL OR v_sub.overage_enabled OR u.used + u.reserved < v_sub.quota_limit
          RETURNING u.used + u.reserved INTO v_total;
      END IF;
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
  INSERT INTO chained_steps (task_id, parent, key, step, tenant_id, holder, attempt) VALUES (p_task, p_parent, p_key, v_step, p_tenant, p_holder, t.attempt)
    ON CONFLICT (task_id, parent, key) DO UPDATE SET holder = p_holder, attempt = t.attempt, seen_at = now();
  RETURN QUERY SELECT 'begun', v_step, v_known->>'version', NULL::jsonb,
    (SELECT coalesce(sum(l.input_tokens::bigint + l.output_tokens + l.cache_write_tokens + l.cache_read_tokens), 0)::text FROM llm_calls l
      WHERE l.task_id = p_task AND l.state = 'done' AND (l.step = p_parent OR starts_with(l.step, p_parent || '.'))),
    v_limit,
    jsonb_build_object('deadline_ms', (extract(epoch FROM t.deadline - now()) * 1000)::bigint, 'user_id', t.user_id, 'context', t.context, 'priority', t.priority, 'request_id', t.request_id, 'traceparent', t.traceparent,
      'created_at', t.created_at, 'routing_method', t.routing_method,
      'config', (SELECT g.config FROM tenant_plugin_config g JOIN plugins p ON p.id = g.plugin_id WHERE g.tenant_id = p_tenant AND p.name = p_plugin),
      'profile', (SELECT jsonb_build_object('role', u.role) FROM users u WHERE u.id = t.user_id AND u.tenant_id = p_tenant));
END $$;

-- A sign of life, and whether to go on: `held` false when the task, its parent step or this hold of it is over.
CREATE FUNCTION watch_chained_step(p_tenant uuid, p_task uuid, p_lease uuid, p_parent text, p_step text, p_holder uuid)
RETURNS TABLE (held boolean, cancel_requested boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE chained_steps c SET seen_at = now() WHERE c.task_id = p_task AND c.step = p_step AND c.holder = p_holder;
  RETURN QUERY SELECT FOUND AND t.id IS NOT NULL AND NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p_task AND s.step = p_parent),
      coalesce(t.cancel_requested_at IS NOT NULL, false)
    FROM (SELECT 1) one LEFT JOIN tasks t ON t.id = p_task AND t.lease_token = p_lease AND t.status = 'running';
END $$;

-- Keeps what came of it, under the task's lease and this hold, and says what it and all that it chained have used. `held` false: one of them is
-- lost, and nothing was written. Without a step it only lets go.
CREATE FUNCTION end_chained_step(p_tenant uuid, p_task uuid, p_lease uuid, p_name text, p_holder uuid, p_step jsonb, p_events jsonb)
RETURNS TABLE (held boolean, tokens_used text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_held boolean := false;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  PERFORM 1 FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF FOUND THEN
    UPDATE chained_steps c SET holder = NULL WHERE c.task_id = p_task AND c.step = p_name AND c.holder = p_holder;
    IF FOUND AND p_step IS NOT NULL THEN
      SELECT r.held INTO v_held FROM record_step(p_tenant, p_task, p_lease, p_step, p_events) r;
    END IF;
  END IF;
  RETURN QUERY SELECT v_held, coalesce(sum(c.input_tokens::bigint + c.output_tokens + c.cache_write_tokens + c.cache_read_tokens), 0)::text FROM llm_calls c
    WHERE c.task_id = p_task AND c.state = 'done' AND (c.step = p_name OR starts_with(c.step, p_name || '.'));
END $$;

-- Questions of tasks that are over are of no use to anybody.
CREATE FUNCTION forget_chained_steps() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM enter_platform();
  DELETE FROM chained_steps c USING tasks t WHERE t.id = c.task_id AND c.seen_at < now() - interval '1 hour' AND t.status NOT IN ('queued', 'running');
END $$;

-- A capability dies with its step, not only with its task: what was left behind by a step that has ended opens nothing while others run.
CREATE FUNCTION check_lease(p_tenant uuid, p_id uuid, p_lease uuid, p_step text) RETURNS TABLE (cancel_requested boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT t.cancel_requested_at IS NOT NULL FROM tasks t WHERE t.id = p_id AND t.lease_token = p_lease AND t.status = 'running'
    AND NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p_id AND s.step = p_step);
END $$;

-- As in 0003, for a step that has not ended.
CREATE OR REPLACE FUNCTION open_llm_call(
  p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text, p_node text, p_id uuid, p_sha256 text, p_occurrence int, p_model text,
  p_price_version text, p_ceiling bigint, p_silence_ms int
) RETURNS TABLE (outcome text, call_no int, answer jsonb, spent_micro_usd bigint, tokens_used bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF EXISTS (SELECT FROM task_steps s WHERE s.task_id = p_task AND s.step = p_step) THEN
    RETURN QUERY SELECT 'lease_lost', 0, NULL::jsonb, 0::bigint, 0::bigint;
    RETURN;
  END IF;
  UPDATE llm_calls SET state = 'unknown', finished_at = now(), error = '{"type": "gateway_lost"}'
    WHERE task_id = p_task AND state = 'started' AND seen_at < now() - p_silence_ms * interval '1 millisecond';
  RETURN QUERY
    SELECT b.outcome, b.call_no, b.answer, b.spent_micro_usd,
      (SELECT coalesce(sum(c.input_tokens::bigint + c.output_tokens + c.cache_write_tokens + c.cache_read_tokens), 0)::bigint
        FROM llm_calls c WHERE c.task_id = p_task AND c.step = p_step AND c.state = 'done')
    FROM begin_llm_call(p_tenant, p_task, p_lease, p_step, p_plugin, p_node, p_id, p_sha256, p_occurrence, p_model, p_price_version, p_ceiling) b;
END $$;
