-- Why: subscribers hear of every step of a plugin's end, not of the first alone, and a subscription that ends with its plugin is told to the audit log
-- as any other end is. And what a step left behind writes nothing once the step has ended: not its reads alone are refused, its tickets, files and
-- reports are too.

-- As in 0017, for every step: the caller takes each step once, under the plugin's lock, so the time of the step makes the notice another one, and a
-- guide that is changed and changed back is told each time. Those whose subscriptions ended at the sunset hear of what comes after it.
CREATE OR REPLACE FUNCTION tell_of_plugin(p_plugin uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE p plugins; v_tenant uuid;
BEGIN
  SELECT * INTO p FROM plugins WHERE id = p_plugin;
  FOR v_tenant IN
    SELECT s.tenant_id FROM subscriptions s WHERE s.plugin_id = p.id AND (s.ended_at IS NULL OR s.ended_at >= p.sunset_at)
    UNION SELECT p.owner_tenant_id WHERE p.owner_tenant_id IS NOT NULL ORDER BY 1
  LOOP
    PERFORM enqueue_webhook_event(v_tenant, 'plugin.deprecated', format('%s:%s:%s', p.id, p.status, extract(epoch FROM now())),
      jsonb_build_object('plugin', p.name, 'status', p.status, 'deprecated_at', p.deprecated_at, 'sunset_at', p.sunset_at, 'migration_guide_url', p.migration_guide_url));
  END LOOP;
END $$;

-- As in 0017, and what has changed is told too.
CREATE OR REPLACE FUNCTION deprecate_plugin(p_name text, p_sunset_at timestamptz, p_guide text, p_notice interval)
RETURNS TABLE (outcome text, status text, deprecated_at timestamptz, sunset_at timestamptz, migration_guide_url text, generation text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE p plugins; v_sunset timestamptz; v_outcome text;
BEGIN
  PERFORM enter_platform();
  SELECT * INTO p FROM plugins WHERE name = p_name FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  v_sunset := coalesce(p_sunset_at, p.sunset_at, now() + p_notice);
  IF p.status IN ('sunset', 'retired') THEN v_outcome := 'over';
  ELSIF p.status = 'active' AND v_sunset < now() + p_notice THEN v_outcome := 'too_soon';
  ELSIF p.status = 'deprecated' AND v_sunset < p.sunset_at THEN v_outcome := 'too_soon';
  ELSIF p.status = 'deprecated' AND v_sunset = p.sunset_at AND coalesce(p_guide, p.migration_guide_url) IS NOT DISTINCT FROM p.migration_guide_url THEN v_outcome := 'unchanged';
  ELSE
    v_outcome := CASE p.status WHEN 'active' THEN 'deprecated' ELSE 'changed' END;
    UPDATE plugins u SET status = 'deprecated', deprecated_at = coalesce(u.deprecated_at, now()), sunset_at = v_sunset, migration_guide_url = coalesce(p_guide, u.migration_guide_url)
      WHERE u.id = p.id RETURNING * INTO p;
    UPDATE registry_state SET generation = generation + 1;
    PERFORM tell_of_plugin(p.id);
  END IF;
  RETURN QUERY SELECT v_outcome, p.status, p.deprecated_at, p.sunset_at, p.migration_guide_url, (SELECT r.generation::text FROM registry_state r);
END $$;

-- As in 0017, and told.
CREATE OR REPLACE FUNCTION restore_plugin(p_name text) RETURNS TABLE (outcome text, status text, generation text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE p plugins; v_outcome text;
BEGIN
  PERFORM enter_platform();
  SELECT * INTO p FROM plugins WHERE name = p_name FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  v_outcome := CASE p.status WHEN 'deprecated' THEN 'active' WHEN 'active' THEN 'unchanged' ELSE 'over' END;
  IF v_outcome = 'active' THEN
    UPDATE plugins u SET status = 'active', deprecated_at = NULL, sunset_at = NULL, migration_guide_url = NULL WHERE u.id = p.id RETURNING * INTO p;
    UPDATE registry_state SET generation = generation + 1;
    PERFORM tell_of_plugin(p.id);
  END IF;
  RETURN QUERY SELECT v_outcome, p.status, (SELECT r.generation::text FROM registry_state r);
END $$;

-- An id as the outside sees it, `publicId` of shared/ids.ts: 26 characters of base32, two zero bits first.
CREATE FUNCTION public_id(p_prefix text, p_id uuid) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p_prefix || '_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', substring(B'00' || ('x' || replace(p_id::text, '-', ''))::bit(128) FROM i * 5 + 1 FOR 5)::int + 1, 1), '' ORDER BY i)
    FROM generate_series(0, 25) i
$$;

-- As in 0017, and every step is told, and every subscription that ends is in its tenant's audit log: here and not by the caller, for a plugin may have
-- thousands, and while this runs their tenants' other deeds wait.
CREATE OR REPLACE FUNCTION advance_plugins() RETURNS TABLE (name text, status text, subscriptions_ended int, generation text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE p plugins; v_ended int;
BEGIN
  PERFORM enter_platform();
  FOR p IN SELECT * FROM plugins d WHERE (d.status = 'deprecated' AND d.sunset_at <= now()) OR d.status = 'sunset' ORDER BY d.id FOR UPDATE SKIP LOCKED LOOP
    v_ended := 0;
    IF p.status = 'deprecated' THEN
      UPDATE plugins u SET status = 'sunset' WHERE u.id = p.id;
      WITH over AS (UPDATE subscriptions s SET ended_at = now() WHERE s.plugin_id = p.id AND s.ended_at IS NULL RETURNING s.tenant_id, s.id)
        INSERT INTO audit_log (tenant_id, actor, action, target_type, target_id, details)
        SELECT o.tenant_id, 'platform:plugin-lifecycle', 'subscription.ended', 'subscription', public_id('sub', o.id), jsonb_build_object('plugin', p.name)
          FROM over o ORDER BY o.tenant_id;
      GET DIAGNOSTICS v_ended = ROW_COUNT;
    ELSIF plugin_tasks_in_flight(p.name, NULL) > 0 THEN
      CONTINUE;
    ELSE
      UPDATE plugins u SET status = 'retired', retired_at = now() WHERE u.id = p.id;
      UPDATE plugin_versions v SET status = 'retired' WHERE v.plugin_id = p.id;
    END IF;
    PERFORM tell_of_plugin(p.id);
    UPDATE registry_state SET generation = generation + 1;
    RETURN QUERY SELECT p.name, (SELECT u.status FROM plugins u WHERE u.id = p.id), v_ended, (SELECT r.generation::text FROM registry_state r);
  END LOOP;
END $$;

-- Whether a step may still write, and the task's row locked when it may: a step ends under that lock too, so it has either ended, and this sees it,
-- or it ends after the write. Null: not of one step, as the executor's own progress; and what a gateway of the release before still asks. The caller
-- has entered a role. Two statements, for the second one sees what was committed while the first one waited.
CREATE FUNCTION hold_step(p_task uuid, p_lease uuid, p_step text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  RETURN NOT EXISTS (SELECT FROM task_steps s WHERE s.task_id = p_task AND s.step = p_step);
END $$;

-- As in 0002, for a step that has not ended.
DROP FUNCTION append_progress(uuid, uuid, uuid, jsonb);
CREATE FUNCTION append_progress(p_tenant uuid, p_id uuid, p_lease uuid, p_events jsonb, p_step text DEFAULT NULL)
RETURNS TABLE (held boolean, cancel_requested boolean) LANGUAGE plpgsql AS $$
DECLARE v_seq int; v_cancel boolean; v_events int := jsonb_array_length(p_events);
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF hold_step(p_id, p_lease, p_step) THEN
    UPDATE tasks SET event_seq = event_seq + v_events WHERE id = p_id AND lease_token = p_lease AND status = 'running' AND event_seq < 20000
      RETURNING event_seq, cancel_requested_at IS NOT NULL INTO v_seq, v_cancel;
  END IF;
  IF v_seq IS NULL THEN
    RETURN QUERY SELECT false, false;
    RETURN;
  END IF;
  INSERT INTO task_events (task_id, seq, tenant_id, type, data)
    SELECT p_id, v_seq - v_events + e.ordinality, p_tenant, e.value->>'type', e.value->'data' FROM jsonb_array_elements(p_events) WITH ORDINALITY e;
  RETURN QUERY SELECT true, v_cancel;
END $$;

-- As in 0006, for a step that has not ended.
CREATE OR REPLACE FUNCTION put_artifact(p_tenant uuid, p_task uuid, p_lease uuid, p_id uuid, p_plugin text, p_name text, p_media_type text, p_size bigint, p_sha256 text,
  p_key text, p_max int, p_step text DEFAULT 'main') RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v_id uuid;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF NOT hold_step(p_task, p_lease, p_step) THEN RETURN NULL; END IF;
  IF (SELECT count(*) FROM artifacts a WHERE a.task_id = p_task AND a.step = p_step AND a.name <> p_name) >= p_max THEN RETURN NULL; END IF;
  INSERT INTO artifacts AS a (id, tenant_id, task_id, step, plugin_name, name, media_type, size_bytes, sha256, storage_key)
    VALUES (p_id, p_tenant, p_task, p_step, p_plugin, p_name, p_media_type, p_size, p_sha256, p_key)
    ON CONFLICT (task_id, step, name) DO UPDATE SET media_type = EXCLUDED.media_type, size_bytes = EXCLUDED.size_bytes, sha256 = EXCLUDED.sha256, storage_key = EXCLUDED.storage_key
    RETURNING a.id INTO v_id;
  RETURN v_id;
END $$;

-- As in 0012, for a step that has not ended.
DROP FUNCTION create_tickets(uuid, uuid, uuid, text, jsonb);
CREATE FUNCTION create_tickets(p_tenant uuid, p_task uuid, p_lease uuid, p_plugin text, p_tickets jsonb, p_step text DEFAULT NULL)
RETURNS TABLE (place int, outcome text, ticket jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE d record; v_known tickets; v_last int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF NOT hold_step(p_task, p_lease, p_step) THEN RETURN; END IF;
  INSERT INTO ticket_counters (tenant_id) VALUES (p_tenant) ON CONFLICT DO NOTHING;
  SELECT c.last_number INTO v_last FROM ticket_counters c WHERE c.tenant_id = p_tenant FOR UPDATE;
  FOR d IN
    SELECT * FROM jsonb_to_recordset(p_tickets) AS r(place int, fingerprint text, title text, description text, type text, priority text, assignee text, team text,
      component text, labels text[], found_by text, reference text, sla_due_at timestamptz) ORDER BY r.place
  LOOP
    SELECT * INTO v_known FROM tickets t WHERE t.tenant_id = p_tenant AND t.fingerprint = d.fingerprint AND (t.status <> 'closed' OR t.source_task = p_task)
      ORDER BY t.status = 'closed', t.number LIMIT 1;
    IF FOUND THEN
      RETURN QUERY SELECT d.place, CASE WHEN v_known.source_task = p_task THEN 'created' ELSE 'known' END, ticket_json(v_known);
      CONTINUE;
    END IF;
    v_last := v_last + 1;
    INSERT INTO tickets (tenant_id, number, fingerprint, title, description, type, priority, assignee, team, component, labels, source_task, source_plugin,
        source_reference, sla_due_at)
      VALUES (p_tenant, v_last, d.fingerprint, d.title, d.description, d.type, d.priority, d.assignee, d.team, d.component, d.labels, p_task,
        coalesce(d.found_by, p_plugin), d.reference, d.sla_due_at)
      RETURNING * INTO v_known;
    INSERT INTO ticket_events (tenant_id, number, type, task_id) VALUES (p_tenant, v_last, 'created', p_task);
    RETURN QUERY SELECT d.place, 'created', ticket_json(v_known);
  END LOOP;
  UPDATE ticket_counters c SET last_number = v_last WHERE c.tenant_id = p_tenant AND c.last_number < v_last;
END $$;

-- As in 0012, for a step that has not ended.
DROP FUNCTION change_ticket(uuid, uuid, uuid, int, jsonb);
CREATE FUNCTION change_ticket(p_tenant uuid, p_task uuid, p_lease uuid, p_number int, p_change jsonb, p_step text DEFAULT NULL)
RETURNS TABLE (outcome text, ticket jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tickets; v_next tickets; v_note text := p_change->>'note'; v_delta jsonb;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF NOT hold_step(p_task, p_lease, p_step) THEN RETURN; END IF;
  -- Whoever opens a ticket waits for those who file: both ask whether the issue has another one.
  IF p_change->>'status' = 'open' THEN PERFORM 1 FROM ticket_counters c WHERE c.tenant_id = p_tenant FOR UPDATE; END IF;
  SELECT * INTO t FROM tickets k WHERE k.tenant_id = p_tenant AND k.number = p_number FOR UPDATE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'unknown', NULL::jsonb;
    RETURN;
  END IF;
  v_delta := p_change - 'note';
  v_next := jsonb_populate_record(t, v_delta);
  IF t.status = 'closed' AND v_next.status NOT IN ('closed', 'open') THEN
    RETURN QUERY SELECT 'reopen_first', ticket_json(t);
    RETURN;
  END IF;
  IF t.status = 'closed' AND v_next.status = 'open' AND EXISTS (SELECT FROM tickets k WHERE k.tenant_id = p_tenant AND k.fingerprint = t.fingerprint AND k.status <> 'closed') THEN
    RETURN QUERY SELECT 'taken', ticket_json(t);
    RETURN;
  END IF;
  IF v_next IS DISTINCT FROM t THEN
    UPDATE tickets k SET status = v_next.status, assignee = v_next.assignee, team = v_next.team, priority = v_next.priority, component = v_next.component,
        type = v_next.type, labels = v_next.labels, sla_due_at = v_next.sla_due_at, updated_at = now(),
        resolved_at = CASE WHEN v_next.status IN ('resolved', 'closed') THEN coalesce(t.resolved_at, now()) END
      WHERE k.tenant_id = p_tenant AND k.number = p_number RETURNING * INTO v_next;
    INSERT INTO ticket_events (tenant_id, number, type, data, task_id) VALUES (p_tenant, p_number, 'changed', v_delta, p_task);
  END IF;
  IF v_note IS NOT NULL AND NOT EXISTS (SELECT FROM ticket_events e WHERE e.tenant_id = p_tenant AND e.number = p_number AND e.task_id = p_task
      AND e.type = 'noted' AND e.data->>'text' = v_note) THEN
    INSERT INTO ticket_events (tenant_id, number, type, data, task_id) VALUES (p_tenant, p_number, 'noted', jsonb_build_object('text', v_note), p_task);
  END IF;
  -- A later attempt finds its own work done: to its reader that is a change.
  RETURN QUERY SELECT CASE WHEN EXISTS (SELECT FROM ticket_events e WHERE e.tenant_id = p_tenant AND e.number = p_number AND e.task_id = p_task AND e.type <> 'created')
    THEN 'changed' ELSE 'unchanged' END, ticket_json(v_next);
END $$;

-- As in 0019, and says whether the fallback is on its way out, for its results have to.
DROP FUNCTION lock_fallback(uuid, uuid, uuid, text, text);
CREATE FUNCTION lock_fallback(p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text)
RETURNS TABLE (plugin text, version text, endpoint text, manifest jsonb, config jsonb, status text, sunset_at timestamptz, migration_guide_url text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t record; v_locked jsonb; v_found record; v_total int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT k.fallbacks -> p_step AS locked, k.environment, k.reserved_period INTO t FROM tasks k
    WHERE k.id = p_task AND k.lease_token = p_lease AND k.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;

  v_locked := t.locked;
  IF v_locked IS NULL THEN
    SELECT pv.version, s.quota_limit, s.overage_enabled INTO v_found
      FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id JOIN subscriptions s ON s.plugin_id = p.id AND s.tenant_id = p_tenant AND s.ended_at IS NULL
      WHERE p.name = p_plugin AND p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')
      ORDER BY pv.version_sort[4] DESC, pv.version_sort DESC LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    v_locked := jsonb_build_object('plugin', p_plugin, 'version', v_found.version);
    IF t.reserved_period IS NOT NULL THEN
      v_total := reserve_executions(p_tenant, p_plugin, t.environment, t.reserved_period, 1, v_found.quota_limit, v_found.overage_enabled);
      IF v_total IS NULL THEN RETURN; END IF;
      v_locked := v_locked || jsonb_build_object('period', t.reserved_period);
    END IF;
    UPDATE tasks k SET fallbacks = coalesce(k.fallbacks, '{}') || jsonb_build_object(p_step, v_locked) WHERE k.id = p_task;
  END IF;

  RETURN QUERY
    SELECT p.name, pv.version, pv.endpoint, pv.manifest, coalesce(c.config, '{}'), p.status, p.sunset_at, p.migration_guide_url
    FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id AND pv.version = v_locked ->> 'version'
    LEFT JOIN tenant_plugin_config c ON c.tenant_id = p_tenant AND c.plugin_id = p.id
    WHERE p.name = p_plugin AND p.name = v_locked ->> 'plugin';
END $$;
