-- Why: a plan has several steps now. One that has finished is kept at once, so that no later attempt runs it again; each settles on its own
-- plugin's usage row; a step that was left out, and one that could not be run, show with the others. What the plugins were told of the
-- conversation and of the organisation's knowledge stays with a task while it runs, so that a later attempt asks a model the same.

ALTER TABLE tasks ADD COLUMN context jsonb, ADD COLUMN command_embedding bytea, ADD COLUMN command_embedding_model text;

-- `latency_ms` is null where the plugin was never called.
ALTER TABLE task_steps ADD COLUMN error jsonb, ADD COLUMN confidence real, ALTER COLUMN latency_ms DROP NOT NULL, DROP CONSTRAINT task_steps_status_check,
  ADD CONSTRAINT task_steps_status_check CHECK (status IN ('success', 'partial', 'failed', 'cancelled', 'skipped'));

-- Two steps may store a file under one name.
ALTER TABLE artifacts ADD COLUMN step text NOT NULL DEFAULT 'main', DROP CONSTRAINT artifacts_task_id_name_key, ADD UNIQUE (task_id, step, name);

DROP FUNCTION put_artifact(uuid, uuid, uuid, uuid, text, text, text, bigint, text, text, int);
-- Null: the lease is lost, or the step has its full number of artifacts.
CREATE FUNCTION put_artifact(p_tenant uuid, p_task uuid, p_lease uuid, p_id uuid, p_plugin text, p_name text, p_media_type text, p_size bigint, p_sha256 text,
  p_key text, p_max int, p_step text DEFAULT 'main') RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v_id uuid;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  PERFORM 1 FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  IF (SELECT count(*) FROM artifacts a WHERE a.task_id = p_task AND a.step = p_step AND a.name <> p_name) >= p_max THEN RETURN NULL; END IF;
  INSERT INTO artifacts AS a (id, tenant_id, task_id, step, plugin_name, name, media_type, size_bytes, sha256, storage_key)
    VALUES (p_id, p_tenant, p_task, p_step, p_plugin, p_name, p_media_type, p_size, p_sha256, p_key)
    ON CONFLICT (task_id, step, name) DO UPDATE SET media_type = EXCLUDED.media_type, size_bytes = EXCLUDED.size_bytes, sha256 = EXCLUDED.sha256, storage_key = EXCLUDED.storage_key
    RETURNING a.id INTO v_id;
  RETURN v_id;
END $$;

-- Keeps a finished step under the task's lease, with the progress that led to it. Written twice is written once. `held` false: the lease is
-- lost, and nothing was written.
CREATE FUNCTION record_step(p_tenant uuid, p_id uuid, p_lease uuid, p_step jsonb, p_events jsonb) RETURNS TABLE (held boolean, cancel_requested boolean) LANGUAGE plpgsql AS $$
DECLARE v_seq int; v_cancel boolean; v_events int := jsonb_array_length(p_events);
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT t.event_seq, t.cancel_requested_at IS NOT NULL INTO v_seq, v_cancel FROM tasks t
    WHERE t.id = p_id AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, false;
    RETURN;
  END IF;
  INSERT INTO task_steps (task_id, tenant_id, step, plugin_name, plugin_version, attempt, status, output, error, confidence, latency_ms)
    SELECT p_id, p_tenant, s.step, s.plugin_name, s.plugin_version, s.attempt, s.status, s.output, s.error, s.confidence, s.latency_ms
      FROM jsonb_to_record(p_step) AS s(step text, plugin_name text, plugin_version text, attempt int, status text, output jsonb, error jsonb, confidence real, latency_ms int)
    ON CONFLICT (task_id, step) DO NOTHING;
  IF FOUND AND v_events > 0 THEN
    UPDATE tasks SET event_seq = v_seq + v_events WHERE id = p_id;
    INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
      SELECT p_id, v_seq + e.ordinality, p_tenant, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
        FROM jsonb_array_elements(p_events) WITH ORDINALITY e;
  END IF;
  RETURN QUERY SELECT true, v_cancel;
END $$;

-- Keeps what the plugins are told. It need not wait for the disk: a model call that follows does, and with it all that came before.
CREATE FUNCTION keep_task_context(p_tenant uuid, p_id uuid, p_lease uuid, p_context jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  UPDATE tasks SET context = p_context WHERE id = p_id AND lease_token = p_lease AND status = 'running';
  RETURN FOUND;
END $$;

-- Ends tasks: the one place where a terminal status is written. The caller holds the row locks and has entered a role.
CREATE OR REPLACE FUNCTION finish_tasks(p_ends task_end[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- An open call of an executor that is gone really may have happened: it stays listed, and is billed to nobody. It is closed before the
  -- sums are read: one that its gateway closes, and pays, in this moment counts.
  UPDATE llm_calls c SET state = 'unknown', finished_at = now() FROM unnest(p_ends) e
    WHERE c.task_id = e.task_id AND CASE c.state WHEN 'started' THEN true END;

  WITH was AS (
    SELECT t.id, t.tenant_id, t.user_id, t.plugin_name, t.plan, t.environment, t.reserved_period, t.routing_method, t.overage, t.attempt, t.event_seq,
        e.status, e.status IN ('success', 'partial') AS is_done, e.result, e.error,
        e.events || jsonb_build_array(jsonb_build_object('type', 'finished', 'data', jsonb_build_object('status', e.status))) AS events
      FROM unnest(p_ends) e JOIN tasks t ON t.id = e.task_id
  ), paid AS (
    SELECT c.task_id, c.step, max(c.plugin_name) AS plugin_name, max(c.model) AS model, sum(c.input_tokens) AS input_tokens, sum(c.output_tokens) AS output_tokens,
        sum(c.cache_write_tokens + c.cache_read_tokens) AS cache_tokens, sum(c.cost_micro_usd) AS cost
      FROM unnest(p_ends) e JOIN llm_calls c ON c.task_id = e.task_id WHERE CASE c.state WHEN 'done' THEN true END GROUP BY c.task_id, c.step
  ), ended AS (
    UPDATE tasks t SET status = w.status, result = w.result, error = w.error, completed_at = now(), lease_until = NULL, next_ring_at = NULL, reserved_period = NULL,
        context = NULL, command_embedding = NULL, command_embedding_model = NULL,
        tokens_used = coalesce((SELECT sum(p.input_tokens + p.output_tokens + p.cache_tokens) FROM paid p WHERE p.task_id = w.id), 0),
        cost_micro_usd = coalesce((SELECT sum(p.cost) FROM paid p WHERE p.task_id = w.id), 0),
        event_seq = w.event_seq + jsonb_array_length(w.events)
      FROM was w WHERE t.id = w.id
  ), held AS (
    SELECT r.* FROM (
        SELECT o.tenant_id, o.plugin_name, o.environment, o.reserved_period, count(*)::int AS reserved, (count(*) FILTER (WHERE o.is_used))::int AS used FROM (
            SELECT w.tenant_id, w.plugin_name, w.environment, w.reserved_period, w.is_done AS is_used
              FROM was w WHERE w.reserved_period IS NOT NULL AND jsonb_array_length(w.plan) = 1
            UNION ALL
            -- Of several steps each holds one execution of its plugin, whatever became of it.
            SELECT w.tenant_id, p.plugin, w.environment, w.reserved_period, w.is_done AND s.status IN ('success', 'partial')
              FROM was w CROSS JOIN jsonb_to_recordset(w.plan) AS p(id text, plugin text) LEFT JOIN task_steps s ON s.task_id = w.id AND s.step = p.id
              WHERE w.reserved_period IS NOT NULL AND jsonb_array_length(w.plan) > 1
          ) o GROUP BY o.tenant_id, o.plugin_name, o.environment, o.reserved_period
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
          d.status IN ('success', 'partial') AND w.is_done AND w.environment = 'live',
          -- Admission marks the steps of a plan that are over their plugin's quota.
          CASE WHEN jsonb_array_length(w.plan) > 1 THEN jsonb_path_exists(w.plan, '$[*] ? (@.id == $id && @.overage == true)', jsonb_build_object('id', d.step)) ELSE w.overage END
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
      ON CONFLICT (task_id, step) DO NOTHING
  )
  INSERT INTO task_events (task_id, seq, tenant_id, type, data, at)
    SELECT w.id, w.event_seq + e.ordinality, w.tenant_id, e.value->>'type', e.value->'data', coalesce((e.value->>'at')::timestamptz, now())
      FROM was w CROSS JOIN jsonb_array_elements(w.events) WITH ORDINALITY e;
END $$;

-- Settles tasks, each under its lease. Where the lease is lost, nothing is written and `settled` is false. A step carries the attempt
-- that its writer ran under, not the one in the row: a write that slipped past the fence would show. Where the task belongs to a
-- conversation, its turns are appended; `overflowed` asks to ring for a summary.
DROP FUNCTION settle_tasks(jsonb);
CREATE FUNCTION settle_tasks(p_batch jsonb) RETURNS TABLE (place int, settled boolean, overflowed boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_held uuid[]; v_overflowed uuid[] := '{}'; t tasks;
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
    PERFORM finish_tasks(ARRAY(
      SELECT ROW(b.id, b.status, b.result, b.error, b.events)::task_end
        FROM jsonb_to_recordset(p_batch) AS b(id uuid, status text, result jsonb, error jsonb, events jsonb) WHERE b.id = ANY (v_held)));
    -- In one order in every batch, since each locks its conversation's row.
    FOR t IN SELECT k.* FROM jsonb_to_recordset(p_batch) AS b(id uuid, in_conversation boolean) JOIN tasks k ON k.id = b.id
        WHERE b.in_conversation AND b.id = ANY (v_held) ORDER BY k.tenant_id, k.user_id, k.conversation_id, k.id LOOP
      IF append_conversation_turns(t, t.status, t.result) THEN v_overflowed := v_overflowed || t.id; END IF;
    END LOOP;
  END IF;
  RETURN QUERY SELECT b.place, b.id = ANY (v_held), b.id = ANY (v_overflowed) FROM jsonb_to_recordset(p_batch) AS b(place int, id uuid);
END $$;

-- Why a task may not go on, null when it may.
CREATE FUNCTION overdue(p_task tasks, p_max_crashes int) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN p_task.deadline < now() THEN
      jsonb_build_object('code', 'PLUGIN_TIMEOUT', 'message', 'The deadline passed before the task was finished.', 'cause', 'platform')
    WHEN p_task.attempt - p_task.hand_backs > p_max_crashes THEN
      jsonb_build_object('code', 'PLUGIN_UNAVAILABLE', 'message', format('%s executors in a row stopped while they ran this task.', p_max_crashes), 'cause', 'platform')
  END
$$;

-- Takes tasks for one executor. A row for each that is `claimed`, or that was past its deadline, asked to be cancelled, or left behind by
-- too many executors, and has `ended` here; none for one that is over, unknown or held by another. One that is overdue and has finished
-- steps is claimed with the reason in `due`: what is done makes a partial result. The plan's plugin versions are in the registry, whose
-- generation comes along; the tenant's own configuration of them is here.
CREATE OR REPLACE FUNCTION claim_tasks(p_ids uuid[], p_lease_ms int, p_max_crashes int)
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
      ELSIF EXISTS (SELECT FROM task_steps s WHERE s.task_id = t.id AND s.status IN ('success', 'partial')) THEN
        v_claimed := v_claimed || t.id;
        CONTINUE;
      ELSE
        PERFORM finish_task(t, 'failed', NULL, overdue(t, p_max_crashes), '[]');
      END IF;
      RETURN QUERY SELECT t.id, 'ended', jsonb_build_object('id', t.id, 'tenant_id', t.tenant_id), NULL::uuid, NULL::jsonb, NULL::jsonb, NULL::jsonb, NULL::text;
    END LOOP;
  END IF;

  RETURN QUERY SELECT k.id, 'claimed',
      jsonb_build_object('id', k.id, 'tenant_id', k.tenant_id, 'user_id', k.user_id, 'environment', k.environment, 'conversation_id', k.conversation_id,
        'plan', k.plan, 'input', k.input, 'routing_method', k.routing_method, 'priority', k.priority, 'max_cost_micro_usd', k.max_cost_micro_usd,
        'attempt', k.attempt, 'hand_backs', k.hand_backs, 'deadline_ms', (extract(epoch FROM k.deadline - now()) * 1000)::bigint, 'deadline', k.deadline,
        'event_seq', k.event_seq, 'created_at', k.created_at, 'traceparent', k.traceparent, 'request_id', k.request_id,
        'due', CASE WHEN k.attempt > 1 THEN overdue(k, p_max_crashes) END, 'context', k.context,
        'command_embedding', CASE WHEN k.context IS NULL THEN encode(k.command_embedding, 'base64') END, 'command_embedding_model', k.command_embedding_model),
      k.lease_token,
      -- A first attempt finds none.
      CASE WHEN k.attempt = 1 THEN '[]' ELSE (
        SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'plugin_name', s.plugin_name, 'plugin_version', s.plugin_version, 'status', s.status,
            'output', s.output, 'error', s.error, 'latency_ms', s.latency_ms)), '[]')
          FROM task_steps s WHERE s.task_id = k.id) END,
      (SELECT coalesce(jsonb_object_agg(p.name, c.config), '{}') FROM tenant_plugin_config c JOIN plugins p ON p.id = c.plugin_id
        WHERE c.tenant_id = k.tenant_id AND p.name IN (SELECT s.value->>'plugin' FROM jsonb_array_elements(k.plan) s)),
      (SELECT jsonb_build_object('role', u.role) FROM users u WHERE u.id = k.user_id AND u.tenant_id = k.tenant_id),
      (SELECT r.generation::text FROM registry_state r)
    FROM tasks k WHERE k.id = ANY (v_claimed);
END $$;

-- Tasks as their tenants see them; `tenants[i]` asks for `ids[i]`. Each is read in its tenant's name, so that row-level security stands
-- behind every one. Of a plan of one step the task itself says how it ended.
DROP FUNCTION read_tasks(uuid[], uuid[]);
CREATE FUNCTION read_tasks(p_tenants uuid[], p_ids uuid[])
RETURNS TABLE (tenant_id uuid, id uuid, plugin_name text, status text, routing_method text, routing_confidence real, created_at timestamptz,
               started_at timestamptz, completed_at timestamptz, result jsonb, error jsonb, tokens_used bigint, cost_micro_usd bigint, attempt int,
               plan jsonb, ended_steps jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true);
  FOR i IN 1 .. cardinality(p_ids) LOOP
    PERFORM set_config('app.tenant', p_tenants[i]::text, true);
    RETURN QUERY SELECT t.tenant_id, t.id, t.plugin_name, t.status, t.routing_method, t.routing_confidence, t.created_at, t.started_at, t.completed_at, t.result,
      t.error, t.tokens_used, t.cost_micro_usd, t.attempt, t.plan,
      CASE WHEN jsonb_array_length(t.plan) > 1 THEN (
        SELECT jsonb_agg(jsonb_build_object('id', s.step, 'status', s.status, 'error', s.error, 'latency_ms', s.latency_ms, 'confidence', s.confidence))
          FROM task_steps s WHERE s.task_id = t.id AND s.tenant_id = t.tenant_id) END
      FROM tasks t WHERE t.tenant_id = p_tenants[i] AND t.id = p_ids[i];
  END LOOP;
END $$;

-- A function that is replaced forgets its settings; 0005 says why it has them.
DO $$
DECLARE f regprocedure;
BEGIN
  FOREACH f IN ARRAY ARRAY['finish_tasks(task_end[])', 'settle_tasks(jsonb)', 'claim_tasks(uuid[], int, int)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_hashjoin = off', f);
    EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', f);
  END LOOP;
END $$;
