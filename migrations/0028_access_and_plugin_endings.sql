-- Why: subscribers hear of every step of a plugin's end, not of the first alone, and a subscription that ends with its plugin is told to the audit log
-- as any other end is.

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
