-- Why: a key of a user can do no more than the user's role allows, and whatever lessens what a key may do holds from the next request on.
--
-- Each tenant has a generation of its keys and roles. Triggers count it up in the transaction of the change, so no change can forget to;
-- a cached key carries the generation that it was read with, and is good for nothing once there is a newer one.

ALTER TABLE tenants ADD COLUMN access_generation bigint NOT NULL DEFAULT 1, ADD COLUMN access_changed_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX tenants_access_changed ON tenants (access_changed_at);
GRANT UPDATE (access_generation, access_changed_at) ON tenants TO aau_app;

CREATE FUNCTION count_access_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE tenants SET access_generation = access_generation + 1, access_changed_at = now() WHERE id = coalesce(NEW.tenant_id, OLD.tenant_id);
  RETURN NULL;
END $$;
CREATE TRIGGER count_access_change AFTER UPDATE OF scopes, expires_at, revoked_at, user_id, environment OR DELETE ON api_keys FOR EACH ROW EXECUTE FUNCTION count_access_change();
CREATE TRIGGER count_access_change AFTER UPDATE OF role OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION count_access_change();

CREATE FUNCTION count_own_access_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.access_generation := OLD.access_generation + 1;
  NEW.access_changed_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER count_own_access_change BEFORE UPDATE OF plan_tier, settings ON tenants FOR EACH ROW EXECUTE FUNCTION count_own_access_change();

-- Who holds the key with this hash. The second look reads key, role, tier and generation in one snapshot: a role from before a change must
-- never come with the generation from after it. The use is noted here, since a busy key comes by once in a cache's life: at most one write
-- in five minutes, one that waits for no lock and no disk. authenticate_key stays for functions of the release before.
CREATE FUNCTION identify_key(p_hash text)
RETURNS TABLE (key_id uuid, tenant_id uuid, user_id uuid, role text, environment text, scopes text[], plan_tier text, settings jsonb, generation bigint,
               expires_in_ms bigint, revoked boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_tenant uuid; v_used timestamptz;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.key_hash', p_hash, true), set_config('app.tenant', '', true);
  SELECT k.tenant_id, k.last_used_at INTO v_tenant, v_used FROM api_keys k WHERE k.key_hash = p_hash;
  IF NOT FOUND THEN RETURN; END IF;
  PERFORM set_config('app.tenant', v_tenant::text, true);
  RETURN QUERY
    SELECT k.id, k.tenant_id, k.user_id, u.role, k.environment, k.scopes, t.plan_tier, t.settings, t.access_generation,
        (extract(epoch FROM k.expires_at - now()) * 1000)::bigint, k.revoked_at IS NOT NULL
      FROM api_keys k JOIN tenants t ON t.id = k.tenant_id LEFT JOIN users u ON u.id = k.user_id WHERE k.key_hash = p_hash;
  IF v_used IS NULL OR v_used < now() - interval '5 minutes' THEN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE api_keys SET last_used_at = now() WHERE id = (
      SELECT k.id FROM api_keys k WHERE k.key_hash = p_hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) FOR NO KEY UPDATE SKIP LOCKED);
  END IF;
END $$;

-- A key that is gone takes nothing with it; keys are purged one by one, in the order in which they ended.
ALTER TABLE api_keys DROP CONSTRAINT api_keys_rotated_to_fkey, ADD CONSTRAINT api_keys_rotated_to_fkey FOREIGN KEY (rotated_to) REFERENCES api_keys(id) ON DELETE SET NULL;
CREATE INDEX api_keys_successor ON api_keys (rotated_to) WHERE rotated_to IS NOT NULL;
CREATE INDEX api_keys_ended ON api_keys (least(revoked_at, expires_at)) WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;
CREATE INDEX api_keys_of_user ON api_keys (user_id) WHERE user_id IS NOT NULL;

CREATE FUNCTION purge_ended_keys(p_days int, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_count int;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  DELETE FROM api_keys WHERE id IN (
    SELECT k.id FROM api_keys k WHERE least(k.revoked_at, k.expires_at) < now() - p_days * interval '1 day' AND (k.revoked_at IS NOT NULL OR k.expires_at IS NOT NULL)
      ORDER BY least(k.revoked_at, k.expires_at) LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END $$;
