-- Why: tenants set secrets and configuration by themselves. A secret is sealed with a key of its own, which the platform derives from
-- the ring's key, the tenant, the plugin and the name: a sealed value that is moved to another row cannot be opened, and the ring's
-- keys never come here, neither as text nor as parameter. `key_id` says which key of the ring it was.
--
-- put_tenant_secret and reveal_tenant_secrets stay for functions of the release before; nothing new calls them.

ALTER TABLE tenant_secrets ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE tenant_plugin_config ADD COLUMN version bigint NOT NULL DEFAULT 1;

-- p_key has 256 random bits, so stretching it would only cost time.
CREATE FUNCTION seal_tenant_secret(p_tenant uuid, p_plugin text, p_name text, p_value text, p_key text, p_key_id text)
RETURNS TABLE (is_new boolean, created_at timestamptz, updated_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    INSERT INTO tenant_secrets AS s (tenant_id, plugin_name, secret_name, secret_value, key_id)
      VALUES (p_tenant, p_plugin, p_name, pgp_sym_encrypt(p_value, p_key, 'cipher-algo=aes256, s2k-mode=1, s2k-digest-algo=sha256'), p_key_id)
      ON CONFLICT (tenant_id, plugin_name, secret_name) DO UPDATE SET secret_value = EXCLUDED.secret_value, key_id = EXCLUDED.key_id, updated_at = now()
      RETURNING s.xmax = 0, s.created_at, s.updated_at;
END $$;

-- The named secrets that are set. p_keys[i] opens the secret p_key_names[i] where it was sealed with the ring's key p_key_ids[i]; a
-- secret without such a key comes without its value.
CREATE FUNCTION open_tenant_secrets(p_tenant uuid, p_plugin text, p_names text[], p_key_names text[], p_key_ids text[], p_keys text[])
RETURNS TABLE (name text, key_id text, value text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT s.secret_name, s.key_id, pgp_sym_decrypt(s.secret_value, k.key)
    FROM tenant_secrets s LEFT JOIN unnest(p_key_names, p_key_ids, p_keys) AS k(name, key_id, key) ON k.name = s.secret_name AND k.key_id = s.key_id
    WHERE s.tenant_id = p_tenant AND s.plugin_name = p_plugin AND s.secret_name = ANY (p_names);
END $$;

-- Seals secrets with another key of the ring, each by itself: one that its key does not open is left as it is and counted. Those that
-- were written anew in the meantime no longer have p_key_ids[i] and are left alone too.
CREATE FUNCTION reseal_tenant_secrets(p_ids uuid[], p_key_ids text[], p_keys text[], p_new_keys text[], p_new_key_id text)
RETURNS TABLE (resealed int, unreadable int) LANGUAGE plpgsql AS $$
DECLARE r record; v_resealed int := 0; v_unreadable int := 0;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  FOR r IN SELECT * FROM unnest(p_ids, p_key_ids, p_keys, p_new_keys) AS u(id, key_id, key, new_key) LOOP
    BEGIN
      UPDATE tenant_secrets s SET key_id = p_new_key_id,
          secret_value = pgp_sym_encrypt(pgp_sym_decrypt(s.secret_value, r.key), r.new_key, 'cipher-algo=aes256, s2k-mode=1, s2k-digest-algo=sha256')
        WHERE s.id = r.id AND s.key_id = r.key_id;
      IF FOUND THEN v_resealed := v_resealed + 1; END IF;
    EXCEPTION WHEN external_routine_invocation_exception THEN
      v_unreadable := v_unreadable + 1;
    END;
  END LOOP;
  RETURN QUERY SELECT v_resealed, v_unreadable;
END $$;

-- Replaces the tenant's configuration of a plugin. With p_version only if that is the one there is; 0 stands for none. No row: it is not.
CREATE FUNCTION put_plugin_config(p_tenant uuid, p_plugin text, p_config jsonb, p_version bigint)
RETURNS TABLE (version bigint, updated_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  IF p_version > 0 THEN
    RETURN QUERY
      UPDATE tenant_plugin_config c SET config = p_config, version = c.version + 1, updated_at = now()
      FROM plugins p WHERE p.name = p_plugin AND c.plugin_id = p.id AND c.tenant_id = p_tenant AND c.version = p_version
      RETURNING c.version, c.updated_at;
  ELSE
    RETURN QUERY
      INSERT INTO tenant_plugin_config AS c (tenant_id, plugin_id, config) SELECT p_tenant, p.id, p_config FROM plugins p WHERE p.name = p_plugin
        ON CONFLICT (tenant_id, plugin_id) DO UPDATE SET config = EXCLUDED.config, version = c.version + 1, updated_at = now() WHERE p_version IS NULL
        RETURNING c.version, c.updated_at;
  END IF;
END $$;
