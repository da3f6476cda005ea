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

-- Files that the object store did not take: kept here until it does. Both rows are written in one transaction, so that no artifact
-- points at nothing. Bounded per task and per tenant: what does not fit is refused, and the task waits for the store instead.
ALTER TABLE artifacts ADD COLUMN state text NOT NULL DEFAULT 'stored' CHECK (state IN ('stored', 'pending'));

CREATE TABLE artifact_uploads (
  artifact_id uuid PRIMARY KEY REFERENCES artifacts(id) ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  task_id uuid NOT NULL,
  bytes bytea NOT NULL,
  attempts int NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now()
);
-- What an upload holds is packed already as a rule, and read back once.
ALTER TABLE artifact_uploads ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE INDEX artifact_uploads_due ON artifact_uploads (next_attempt_at);
CREATE INDEX artifact_uploads_of_tenant ON artifact_uploads (tenant_id);
ALTER TABLE artifact_uploads ENABLE ROW LEVEL SECURITY;
ALTER TABLE artifact_uploads FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON artifact_uploads TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()));
CREATE POLICY all_tenants ON artifact_uploads TO aau_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON artifact_uploads TO aau_app, aau_platform;

-- What is done with the row that put_artifact returns, in the same statement: SELECT mark_stored(put_artifact(…)). The role is entered by
-- then, and null stays null.
CREATE FUNCTION mark_stored(p_artifact uuid) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM artifact_uploads u WHERE u.artifact_id = p_artifact;
  UPDATE artifacts a SET state = 'stored' WHERE a.id = p_artifact AND a.state <> 'stored';
  RETURN p_artifact;
END $$;

-- AAU01: too much waits already, of this task or of this tenant. An error, so that the row which put_artifact wrote does not stay: it would
-- point at nothing.
CREATE FUNCTION mark_pending(p_artifact uuid, p_bytes bytea, p_task_bytes bigint, p_tenant_bytes bigint) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v artifacts;
BEGIN
  SELECT * INTO v FROM artifacts a WHERE a.id = p_artifact;
  IF NOT FOUND THEN RETURN NULL; END IF;
  DELETE FROM artifact_uploads u WHERE u.artifact_id = v.id;
  -- Summed from the artifacts' sizes, so that no waiting file is read.
  IF (SELECT coalesce(sum(a.size_bytes) FILTER (WHERE u.task_id = v.task_id), 0) + v.size_bytes > p_task_bytes OR coalesce(sum(a.size_bytes), 0) + v.size_bytes > p_tenant_bytes
      FROM artifact_uploads u JOIN artifacts a ON a.id = u.artifact_id WHERE u.tenant_id = v.tenant_id) THEN
    RAISE EXCEPTION 'too much waits for the object store' USING ERRCODE = 'AAU01';
  END IF;
  UPDATE artifacts a SET state = 'pending' WHERE a.id = v.id;
  INSERT INTO artifact_uploads (artifact_id, tenant_id, task_id, bytes) VALUES (v.id, v.tenant_id, v.task_id, p_bytes);
  RETURN v.id;
END $$;

-- The next file to upload, put off so that nobody else takes it meanwhile, and longer each time. Only of tasks that are over: nothing is
-- replaced there, so that what is uploaded here cannot overtake a newer file of the same name.
CREATE FUNCTION take_due_upload() RETURNS TABLE (artifact_id uuid, storage_key text, media_type text, sha256 text, bytes bytea, attempts int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE artifact_uploads u SET attempts = u.attempts + 1, next_attempt_at = now() + least(interval '10 minutes', interval '15 seconds' * power(2, least(u.attempts, 6)))
    FROM artifacts a
    WHERE a.id = u.artifact_id AND u.artifact_id = (
      SELECT d.artifact_id FROM artifact_uploads d JOIN tasks t ON t.id = d.task_id
        WHERE d.next_attempt_at <= now() AND t.status IN ('success', 'partial', 'failed', 'cancelled')
        ORDER BY d.next_attempt_at LIMIT 1 FOR UPDATE OF d SKIP LOCKED)
    RETURNING a.id, a.storage_key, a.media_type, a.sha256, u.bytes, u.attempts;
END $$;

CREATE FUNCTION finish_upload(p_artifact uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  DELETE FROM artifact_uploads u WHERE u.artifact_id = p_artifact;
  UPDATE artifacts a SET state = 'stored' WHERE a.id = p_artifact;
END $$;

-- The envelopes as JSON Schema, for those who write a plugin without the SDK. The SDK's own schemas are the source: `migrate` writes
-- what they say now, after the last migration, so that no hand keeps two in step.
CREATE TABLE envelope_schemas (
  version text NOT NULL CHECK (version ~ '^\d+\.\d+$'),
  message text NOT NULL CHECK (message IN ('input', 'output')),
  -- The one that the platform speaks by itself; the others are accepted, and their plugins' callers are told.
  is_current boolean NOT NULL,
  schema jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (version, message)
);
GRANT SELECT ON envelope_schemas TO aau_app, aau_platform;
