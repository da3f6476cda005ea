-- Why: a plugin has a life. A version is routable only after its image's signature was accepted and the platform has seen it healthy; a plugin
-- leaves in steps that its subscribers hear of in time: active → deprecated → sunset → retired. Each step is one guarded UPDATE, in the
-- transaction that ends the subscriptions and writes the notices, so that a step that is taken twice, or in two places at once, is taken once.

-- `pending`: registered, and not yet seen healthy by the platform itself.
ALTER TABLE plugin_versions DROP CONSTRAINT plugin_versions_status_check,
  ADD CONSTRAINT plugin_versions_status_check CHECK (status IN ('pending', 'active', 'inactive', 'deprecated', 'sunset', 'retired')),
  -- The image by digest, and the platform's own signed word that it has accepted this image with this manifest.
  ADD COLUMN image text, ADD COLUMN admission jsonb;

ALTER TABLE plugins ADD COLUMN IF NOT EXISTS owner_tenant_id uuid REFERENCES tenants(id), ADD COLUMN migration_guide_url text, ADD COLUMN retired_at timestamptz;

-- The public halves of developers' signing keys. Null owner: the platform's own plugins.
CREATE TABLE publisher_keys (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  owner_tenant_id uuid REFERENCES tenants(id),
  public_key text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
GRANT SELECT, INSERT, UPDATE ON publisher_keys TO aau_platform;

-- Whether somebody may begin to use this plugin: the one rule that every new subscription asks.
CREATE FUNCTION plugin_takes_subscriptions(p_plugin uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM plugins p WHERE p.id = p_plugin AND p.status = 'active')
    AND EXISTS (SELECT FROM plugin_versions v WHERE v.plugin_id = p_plugin AND v.status IN ('active', 'deprecated'))
$$;

-- Tells the owner and everyone who is subscribed, once for each step of a plugin's life. The caller has entered the platform's role.
CREATE FUNCTION tell_of_plugin(p_plugin uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE p plugins; v_tenant uuid;
BEGIN
  SELECT * INTO p FROM plugins WHERE id = p_plugin;
  FOR v_tenant IN
    SELECT s.tenant_id FROM subscriptions s WHERE s.plugin_id = p.id AND (s.ended_at IS NULL OR s.ended_at = now())
    UNION SELECT p.owner_tenant_id WHERE p.owner_tenant_id IS NOT NULL ORDER BY 1
  LOOP
    PERFORM enqueue_webhook_event(v_tenant, 'plugin.deprecated', format('%s:%s:%s', p.id, p.status, p.deprecated_at),
      jsonb_build_object('plugin', p.name, 'status', p.status, 'deprecated_at', p.deprecated_at, 'sunset_at', p.sunset_at, 'migration_guide_url', p.migration_guide_url));
  END LOOP;
END $$;

-- Begins the end of a plugin: `deprecated`; for one that is deprecated already `changed` (another guide, a later end) or `unchanged`; `too_soon`
-- when the end is nearer than the notice that subscribers are promised, or than they were told; `over` after its sunset. No row: unknown.
CREATE FUNCTION deprecate_plugin(p_name text, p_sunset_at timestamptz, p_guide text, p_notice interval)
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
    IF v_outcome = 'deprecated' THEN PERFORM tell_of_plugin(p.id); END IF;
  END IF;
  RETURN QUERY SELECT v_outcome, p.status, p.deprecated_at, p.sunset_at, p.migration_guide_url, (SELECT r.generation::text FROM registry_state r);
END $$;

-- Takes a deprecation back before the sunset: `active`, `unchanged`, or `over`. No row: unknown.
CREATE FUNCTION restore_plugin(p_name text) RETURNS TABLE (outcome text, status text, generation text) LANGUAGE plpgsql AS $$
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
  END IF;
  RETURN QUERY SELECT v_outcome, p.status, (SELECT r.generation::text FROM registry_state r);
END $$;

-- Whether a task that is not over has this plugin in its plan.
CREATE FUNCTION plugin_tasks_in_flight(p_name text, p_version text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT count(*) FROM tasks t WHERE t.status IN ('queued', 'running')
    AND t.plan @> jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('plugin', p_name, 'version', p_version)))
$$;

-- The steps that are due. At its sunset a plugin takes no new tasks, for its subscriptions end in the same moment; those in flight finish, and
-- when there are none left it is retired.
CREATE FUNCTION advance_plugins() RETURNS TABLE (name text, status text, subscriptions_ended int, generation text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE p plugins; v_ended int;
BEGIN
  PERFORM enter_platform();
  FOR p IN SELECT * FROM plugins d WHERE (d.status = 'deprecated' AND d.sunset_at <= now()) OR d.status = 'sunset' ORDER BY d.id FOR UPDATE SKIP LOCKED LOOP
    v_ended := 0;
    IF p.status = 'deprecated' THEN
      UPDATE plugins u SET status = 'sunset' WHERE u.id = p.id;
      UPDATE subscriptions s SET ended_at = now() WHERE s.plugin_id = p.id AND s.ended_at IS NULL;
      GET DIAGNOSTICS v_ended = ROW_COUNT;
      PERFORM tell_of_plugin(p.id);
    ELSIF plugin_tasks_in_flight(p.name, NULL) > 0 THEN
      CONTINUE;
    ELSE
      UPDATE plugins u SET status = 'retired', retired_at = now() WHERE u.id = p.id;
      UPDATE plugin_versions v SET status = 'retired' WHERE v.plugin_id = p.id;
    END IF;
    UPDATE registry_state SET generation = generation + 1;
    RETURN QUERY SELECT p.name, (SELECT u.status FROM plugins u WHERE u.id = p.id), v_ended, (SELECT r.generation::text FROM registry_state r);
  END LOOP;
END $$;

-- When the platform last asked: a plugin that reports by itself is asked all the same.
ALTER TABLE plugin_versions ADD COLUMN probed_at timestamptz;
CREATE FUNCTION note_probe(p_name text, p_version text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM enter_platform();
  UPDATE plugin_versions v SET probed_at = now() FROM plugins p WHERE p.id = v.plugin_id AND p.name = p_name AND v.version = p_version;
END $$;

CREATE FUNCTION registered_versions(p_name text)
RETURNS TABLE (version text, status text, endpoint text, image text, signed_by text, health text, tasks_in_flight text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM enter_platform();
  RETURN QUERY SELECT v.version, v.status, v.endpoint, v.image, k.name, v.health->>'status', plugin_tasks_in_flight(p_name, v.version)::text
    FROM plugins p JOIN plugin_versions v ON v.plugin_id = p.id LEFT JOIN publisher_keys k ON k.id::text = v.admission->'record'->>'publisher_key'
    WHERE p.name = p_name ORDER BY v.version_sort DESC, v.version DESC;
END $$;
