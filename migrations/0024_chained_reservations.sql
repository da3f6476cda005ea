-- Why: what a plugin runs for another one reserves as everything does, so that its quota row knows the limit that it was reserved under: a plugin
-- that is only ever called by others is marked as overage over its quota, and its tenant is warned, like any other.

-- Begins a chained step, or says why not: `begun`; `ended` (it has succeeded before: `step` is its row), `in_flight` (another gateway is at it),
-- `lease_lost` (the task or the parent step is over), `cancelled`, `too_many`, `not_included` (the tenant's tier), `not_subscribed`,
-- `quota_exceeded`. `tokens_used` is what the parent and all that it has chained have used.
CREATE OR REPLACE FUNCTION begin_chained_step(
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
