-- Why: what the ways to fail need to remember: which fallback a task is locked to, files that wait for the object store, and the
-- envelopes that the platform speaks.

-- {step: {plugin, version}}: chosen when a fallback is first needed; later attempts use the same version.
ALTER TABLE tasks ADD COLUMN fallbacks jsonb;

-- The fallback of a step, for a tenant that is subscribed to it. No row: none is there, or the lease is lost.
CREATE FUNCTION lock_fallback(p_tenant uuid, p_task uuid, p_lease uuid, p_step text, p_plugin text)
RETURNS TABLE (plugin text, version text, endpoint text, manifest jsonb, config jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_locked jsonb; v_version text;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  SELECT t.fallbacks -> p_step INTO v_locked FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;

  v_version := CASE WHEN v_locked ->> 'plugin' = p_plugin THEN v_locked ->> 'version' END;
  IF v_version IS NULL THEN
    SELECT pv.version INTO v_version
      FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id JOIN subscriptions s ON s.plugin_id = p.id AND s.tenant_id = p_tenant AND s.ended_at IS NULL
      WHERE p.name = p_plugin AND p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')
      ORDER BY pv.version_sort[4] DESC, pv.version_sort DESC LIMIT 1;
    IF v_version IS NULL THEN RETURN; END IF;
    UPDATE tasks t SET fallbacks = coalesce(t.fallbacks, '{}') || jsonb_build_object(p_step, jsonb_build_object('plugin', p_plugin, 'version', v_version)) WHERE t.id = p_task;
  END IF;

  RETURN QUERY
    SELECT p.name, pv.version, pv.endpoint, pv.manifest, coalesce(c.config, '{}')
    FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id AND pv.version = v_version
    LEFT JOIN tenant_plugin_config c ON c.tenant_id = p_tenant AND c.plugin_id = p.id
    WHERE p.name = p_plugin;
END $$;
