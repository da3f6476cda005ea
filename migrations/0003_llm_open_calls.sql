-- Why: a gateway that is killed leaves its calls `started`. The claim of a later attempt closes them, but a plugin that asks
-- again within the same attempt would be told "in flight" until the task fails, and the ceiling of the dead call would count
-- against max_cost_usd. So an open call carries a sign of life, and these functions wrap begin_llm_call and end_llm_call.

ALTER TABLE llm_calls ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now();

-- begin_llm_call, after calls of this task whose gateway has been silent for too long became `unknown`. `tokens_used` counts
-- what this step has used so far.
CREATE FUNCTION open_llm_call(
  p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text, p_node text, p_id uuid, p_sha256 text, p_occurrence int, p_model text,
  p_price_version text, p_ceiling bigint, p_silence_ms int
) RETURNS TABLE (outcome text, call_no int, answer jsonb, spent_micro_usd bigint, tokens_used bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE llm_calls SET state = 'unknown', finished_at = now(), error = '{"type": "gateway_lost"}'
    WHERE task_id = p_task AND state = 'started' AND seen_at < now() - p_silence_ms * interval '1 millisecond';
  RETURN QUERY
    SELECT b.outcome, b.call_no, b.answer, b.spent_micro_usd,
      (SELECT coalesce(sum(c.input_tokens::bigint + c.output_tokens + c.cache_write_tokens + c.cache_read_tokens), 0)::bigint
        FROM llm_calls c WHERE c.task_id = p_task AND c.step = p_step AND c.state = 'done')
    FROM begin_llm_call(p_tenant, p_task, p_lease, p_step, p_plugin, p_node, p_id, p_sha256, p_occurrence, p_model, p_price_version, p_ceiling) b;
END $$;

-- end_llm_call, and the state that the call really has now: a second try after a lost reply finds `done`; a call that somebody
-- gave up stays `unknown`. No row: the task was erased.
CREATE FUNCTION close_llm_call(
  p_tenant uuid, p_id uuid, p_state text, p_model text, p_usage jsonb, p_input int, p_output int, p_cache_write int, p_cache_read int, p_cost bigint,
  p_provider_request text, p_answer jsonb, p_error jsonb
) RETURNS TABLE (state text, tokens_used bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM end_llm_call(p_tenant, p_id, p_state, p_model, p_usage, p_input, p_output, p_cache_write, p_cache_read, p_cost, p_provider_request, p_answer, p_error);
  RETURN QUERY
    SELECT c.state,
      (SELECT coalesce(sum(d.input_tokens::bigint + d.output_tokens + d.cache_write_tokens + d.cache_read_tokens), 0)::bigint
        FROM llm_calls d WHERE d.task_id = c.task_id AND d.step = c.step AND d.state = 'done')
    FROM llm_calls c WHERE c.id = p_id;
END $$;

-- A sign of life for all open calls of one gateway, whoever's they are, and which of them have to be closed. `p_leases[i]` is
-- the lease under which call `p_ids[i]` was opened.
CREATE FUNCTION watch_llm_calls(p_ids uuid[], p_leases uuid[], p_beat_ms int) RETURNS TABLE (id uuid, reason text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE llm_calls SET seen_at = now() WHERE id = ANY (p_ids) AND state = 'started' AND seen_at < now() - p_beat_ms * interval '1 millisecond';
  RETURN QUERY
    SELECT o.id, CASE WHEN t.status = 'cancelled' OR t.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'lease_lost' END
    FROM unnest(p_ids, p_leases) AS o(id, lease)
    LEFT JOIN llm_calls c ON c.id = o.id
    LEFT JOIN tasks t ON t.id = c.task_id
    WHERE t.id IS NULL OR t.cancel_requested_at IS NOT NULL OR t.status <> 'running' OR t.lease_token IS DISTINCT FROM o.lease;
END $$;
