-- Why: who did what to keys, users, secrets, webhooks, subscriptions, configuration and personal data. The application's roles can add
-- a row and read it, and nothing else. Each row carries the hash of the row before, so one that was changed, taken out or moved by
-- somebody who may do more than the application shows; the heads show rows that are missing at the end.

-- Actors and targets are public ids or names, never addresses: an erasure leaves the chain as it is. No foreign key to tenants: what was
-- done stays known.
CREATE TABLE audit_log (
  tenant_id uuid NOT NULL,
  seq bigint NOT NULL,
  at timestamptz NOT NULL,
  actor text NOT NULL,
  -- The key that a person or a service account used.
  key_ref text,
  action text NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
  target_type text NOT NULL,
  target_id text NOT NULL,
  details jsonb NOT NULL DEFAULT '{}' CHECK (pg_column_size(details) < 8192),
  prev_hash bytea NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX audit_log_by_action ON audit_log (tenant_id, action, seq);
CREATE INDEX audit_log_by_actor ON audit_log (tenant_id, actor, seq);

-- One row per tenant: its lock puts writers in line, whichever transaction they are in.
CREATE TABLE audit_heads (
  tenant_id uuid PRIMARY KEY,
  seq bigint NOT NULL,
  hash bytea NOT NULL
) WITH (fillfactor = 50);

CREATE FUNCTION audit_hash(p audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
  SELECT sha256(p.prev_hash || convert_to(jsonb_build_array(
    'aau audit v1', p.tenant_id, p.seq, to_char(p.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    p.actor, p.key_ref, p.action, p.target_type, p.target_id, p.details)::text, 'UTF8'))
$$;

-- Number, time and hashes are made here, under the head's lock, whatever the statement says.
CREATE FUNCTION chain_audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_heads AS h (tenant_id, seq, hash) VALUES (NEW.tenant_id, 1, '')
    ON CONFLICT (tenant_id) DO UPDATE SET seq = h.seq + 1
    RETURNING h.seq, h.hash INTO NEW.seq, NEW.prev_hash;
  NEW.at := clock_timestamp();
  NEW.hash := audit_hash(NEW);
  UPDATE audit_heads SET hash = NEW.hash WHERE tenant_id = NEW.tenant_id;
  RETURN NEW;
END $$;
CREATE TRIGGER chain_audit_row BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION chain_audit_row();

-- The rows after p_seq, whose last had p_hash, in their order: how many fit, and the first that does not. Pages, so that a log of any
-- length can be read through in short statements.
CREATE FUNCTION verify_audit_log(p_tenant uuid, p_seq bigint, p_hash bytea, p_limit int)
RETURNS TABLE (checked int, seq bigint, hash bytea, broken_seq bigint, problem text) LANGUAGE sql STABLE AS $$
  WITH page AS (
    SELECT a.*, audit_hash(a) AS expected, lag(a.seq, 1, p_seq) OVER w AS seq_before, lag(a.hash, 1, p_hash) OVER w AS hash_before
    FROM audit_log a WHERE a.tenant_id = p_tenant AND a.seq > p_seq WINDOW w AS (ORDER BY a.seq) ORDER BY a.seq LIMIT p_limit
  ), judged AS (
    SELECT page.seq, CASE
        WHEN page.seq <> page.seq_before + 1 THEN 'missing'
        WHEN page.prev_hash <> page.hash_before THEN 'out_of_order'
        WHEN page.hash <> page.expected THEN 'changed'
      END AS problem FROM page
  ), broken AS (SELECT * FROM judged WHERE judged.problem IS NOT NULL ORDER BY judged.seq LIMIT 1)
  SELECT (SELECT count(*)::int FROM page), last.seq, last.hash, broken.seq, broken.problem
    FROM (SELECT 1) AS one LEFT JOIN broken ON true LEFT JOIN (SELECT page.seq, page.hash FROM page ORDER BY page.seq DESC LIMIT 1) AS last ON true
$$;

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['audit_log', 'audit_heads'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT ON audit_log TO aau_app, aau_platform;
GRANT SELECT, INSERT, UPDATE ON audit_heads TO aau_app, aau_platform;
