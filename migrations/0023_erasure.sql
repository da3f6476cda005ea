-- Why: a person may ask that the platform forgets them. The request is a row before anything is deleted, so that whoever is killed on the way
-- leaves behind what is still to do; and when all is done the row says what went, without saying whose it was.

CREATE TABLE erasure_requests (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  -- SHA-256 over tenant and user, whose ids are too random to be guessed: it tells that a restored backup holds somebody who was erased.
  subject_sha256 text NOT NULL,
  -- While the erasure is under way, and no longer. No foreign key: the user's row goes first.
  user_id uuid,
  -- Stands for the user where a row has to stay. Random; forgotten with the user.
  pseudonym text,
  requested_by text NOT NULL CHECK (requested_by IN ('user', 'tenant', 'restore')),
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'completed')),
  -- The stores that are done, and what each batch took away, counted in the batch's own transaction.
  done text[] NOT NULL DEFAULT '{}',
  counts jsonb NOT NULL DEFAULT '{}',
  -- Looks that found something after all stores were done; then they are all done again.
  leftovers int NOT NULL DEFAULT 0,
  certificate jsonb,
  attempts int NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  ring_count int NOT NULL DEFAULT 0,
  next_ring_at timestamptz NOT NULL DEFAULT now() + interval '10 seconds',
  lease_token uuid,
  lease_until timestamptz,
  requested_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz,
  CHECK ((state = 'completed') = (user_id IS NULL)),
  -- Asking twice, or twice at once, is one erasure.
  UNIQUE (tenant_id, subject_sha256)
);
CREATE INDEX erasure_requests_under_way ON erasure_requests (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX erasure_requests_due ON erasure_requests (next_ring_at) WHERE state <> 'completed';

-- The subject's tasks and conversations: listed once nothing can be added, so that every store, and the look afterwards, goes by the same list
-- when the rows themselves no longer say whose they are.
CREATE TABLE erasure_items (
  erasure_id uuid NOT NULL REFERENCES erasure_requests(id) ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('task', 'conversation')),
  item_id uuid NOT NULL,
  PRIMARY KEY (erasure_id, kind, item_id)
);
CREATE INDEX erasure_items_of_tenant ON erasure_items (tenant_id);

-- Users who were removed and not erased: what they did is still there, and may be asked for.
CREATE TABLE removed_users (
  tenant_id uuid NOT NULL,
  user_id uuid NOT NULL,
  removed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id)
);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['erasure_requests', 'erasure_items', 'removed_users'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
  END LOOP;
END $$;
-- Nobody can take a certificate away.
GRANT SELECT, INSERT, UPDATE ON erasure_requests TO aau_app, aau_platform;
GRANT SELECT ON erasure_items TO aau_app;
GRANT SELECT, INSERT, DELETE ON erasure_items TO aau_platform;

GRANT SELECT, INSERT, UPDATE, DELETE ON removed_users TO aau_app, aau_platform;

CREATE FUNCTION note_removed_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO removed_users (tenant_id, user_id) SELECT OLD.tenant_id, OLD.id
    WHERE NOT EXISTS (SELECT FROM erasure_requests e WHERE e.user_id = OLD.id) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER note_removed_user AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_removed_user();

CREATE FUNCTION erasure_subject(p_owner_tenant uuid, p_user uuid) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT encode(sha256(convert_to(p_owner_tenant || '/' || p_user, 'UTF8')), 'hex') $$;

-- No task begins for somebody whose data is being erased, also not by a request that was let in just before their keys were revoked. The row is
-- written by then, so its transaction has a number and a later one waits for it (see erasure_barrier).
CREATE FUNCTION refuse_erased_subject() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM erasure_requests e WHERE e.user_id = NEW.user_id) THEN
    RAISE EXCEPTION 'the data of this user is being erased' USING ERRCODE = 'AAU03';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER refuse_erased_subject AFTER INSERT ON tasks FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION refuse_erased_subject();

-- A number: no writer that may not have seen what is committed now is open any more once erasure_passed says so of it.
CREATE FUNCTION erasure_barrier() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT pg_current_xact_id()::text $$;
CREATE FUNCTION erasure_passed(p_barrier text) RETURNS boolean LANGUAGE sql VOLATILE
  AS $$ SELECT pg_snapshot_xmin(pg_current_snapshot()) > p_barrier::xid8 $$;

-- Takes an erasure for one worker. No row: it is over, not due, or held by another.
CREATE FUNCTION claim_erasure(p_id uuid, p_lease_ms int)
RETURNS TABLE (tenant_id uuid, user_id uuid, subject_sha256 text, pseudonym text, requested_at timestamptz, lease_token uuid, done text[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE erasure_requests e SET state = 'running', attempts = e.attempts + 1, ring_count = 0, lease_token = gen_random_uuid(),
        pseudonym = coalesce(e.pseudonym, 'erased_' || encode(gen_random_bytes(16), 'hex')),
        lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond'
      WHERE e.id = p_id AND e.state <> 'completed' AND e.next_attempt_at <= now() AND (e.lease_until IS NULL OR e.lease_until < now())
      RETURNING e.tenant_id, e.user_id, e.subject_sha256, e.pseudonym, e.requested_at, e.lease_token, e.done;
END $$;

-- Renews the lease and adds to the counts, `{"messages": 12}`. False: the lease is lost.
CREATE FUNCTION note_erased(p_id uuid, p_lease uuid, p_lease_ms int, p_counts jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE erasure_requests e SET lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond',
      counts = e.counts || (SELECT coalesce(jsonb_object_agg(c.key, coalesce((e.counts->>c.key)::bigint, 0) + c.value::bigint), '{}') FROM jsonb_each_text(p_counts) c)
    WHERE e.id = p_id AND e.lease_token = p_lease;
  RETURN FOUND;
END $$;

-- Erasures that wait for a ring, each rung less and less often.
CREATE FUNCTION take_due_erasures(p_limit int) RETURNS TABLE (id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE erasure_requests e SET ring_count = e.ring_count + 1, next_ring_at = now() + least(interval '5 minutes', interval '10 seconds' * power(2, least(e.ring_count, 5)))
    FROM (SELECT d.id FROM erasure_requests d WHERE d.state <> 'completed' AND d.next_ring_at <= now() ORDER BY d.next_ring_at LIMIT p_limit FOR UPDATE SKIP LOCKED) due
    WHERE e.id = due.id
    RETURNING e.id;
END $$;

-- Ends what the subject has under way: at once where nobody works on it, by request where somebody does. How many ended here, how many are still
-- worked on, and the ids of those. A lease that ran out is nobody's: its task ends here too.
CREATE FUNCTION cancel_subject_tasks(p_erasure uuid) RETURNS TABLE (ended int, running uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tasks; v_ended int := 0; v_running uuid[] := '{}';
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  FOR t IN SELECT k.* FROM erasure_items i JOIN tasks k ON k.id = i.item_id
      WHERE i.erasure_id = p_erasure AND i.kind = 'task' AND CASE WHEN k.status IN ('pending', 'queued', 'running') THEN true END ORDER BY k.id LIMIT 500 FOR NO KEY UPDATE OF k LOOP
    IF t.status = 'running' AND t.lease_until >= now() THEN
      UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = t.id;
      v_running := v_running || t.id;
    ELSE
      PERFORM finish_task(t, 'cancelled', NULL, NULL, '[]');
      v_ended := v_ended + 1;
    END IF;
  END LOOP;
  RETURN QUERY SELECT v_ended, v_running;
END $$;

-- As in 0002, but an answer that nobody can ask for any more is not kept: a call may end after its task, and after the task's content went.
CREATE OR REPLACE FUNCTION end_llm_call(
  p_tenant uuid, p_id uuid, p_state text, p_model text, p_usage jsonb, p_input int, p_output int, p_cache_write int, p_cache_read int, p_cost bigint,
  p_provider_request text, p_answer jsonb, p_error jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_running boolean;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE llm_calls c SET model = coalesce(p_model, c.model), usage = p_usage, input_tokens = p_input, output_tokens = p_output, cache_write_tokens = p_cache_write,
      cache_read_tokens = p_cache_read, cost_micro_usd = p_cost, provider_request_id = p_provider_request, answer = p_answer, error = p_error, finished_at = now(),
      state = CASE c.state WHEN 'started' THEN p_state ELSE c.state END
    WHERE c.id = p_id AND c.state IN ('started', 'unknown');
  IF NOT FOUND THEN RETURN false; END IF;
  SELECT t.status = 'running' INTO v_running FROM llm_calls c JOIN tasks t ON t.id = c.task_id WHERE c.id = p_id;
  IF NOT coalesce(v_running, false) THEN
    UPDATE llm_calls c SET answer = NULL, error = NULL, provider_request_id = NULL WHERE c.id = p_id;
  END IF;
  RETURN true;
END $$;

-- A ticket's history is found by the task that wrote it.
CREATE INDEX ticket_events_of_task ON ticket_events (tenant_id, task_id);

-- Retention. Ids of tasks begin with their time, so the oldest stand first in the primary key, and those that were emptied lie before this mark.
CREATE TABLE retention_marks (
  kind text PRIMARY KEY CHECK (kind IN ('content', 'objects')),
  through text NOT NULL DEFAULT ''
);
INSERT INTO retention_marks (kind) VALUES ('content'), ('objects');
GRANT SELECT, UPDATE ON retention_marks TO aau_platform;

-- The first id that a row made at this time can have.
CREATE FUNCTION first_id_at(p_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT rpad(lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0'), 32, '0')::uuid $$;

-- Days that the tenant keeps its files: `settings.retention.artifact_days`, from 1 to what a task is kept, 90 unless said.
CREATE FUNCTION artifact_days(p_settings jsonb) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE jsonb_typeof(p_settings #> '{retention,artifact_days}')
    WHEN 'number' THEN least(395, greatest(1, (p_settings #>> '{retention,artifact_days}')::numeric))::int ELSE 90 END
$$;

CREATE INDEX artifacts_by_age ON artifacts (tenant_id, created_at);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX messages_by_age ON messages (created_at);

-- Deletes turns that are older than p_before, with what is open of them, and conversations of which no turn is left. A conversation that goes on
-- keeps its running summary. How many turns went; 0: there are none.
CREATE FUNCTION purge_turns(p_before timestamptz, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE c conversations; v_through bigint; v_chars bigint; v_gone int; v_total int := 0;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  FOR c IN SELECT k.* FROM conversations k
      WHERE k.id IN (SELECT o.conversation_id FROM (SELECT m.conversation_id FROM messages m WHERE m.created_at < p_before ORDER BY m.created_at LIMIT p_limit) o)
      ORDER BY k.id FOR UPDATE SKIP LOCKED LOOP
    SELECT max(m.seq) INTO v_through FROM messages m WHERE m.conversation_id = c.id AND m.created_at < p_before;
    SELECT coalesce(sum(m.chars), 0) INTO v_chars FROM messages m WHERE m.conversation_id = c.id AND m.seq > c.summarised_through AND m.seq <= v_through;
    DELETE FROM messages m WHERE m.conversation_id = c.id AND m.seq <= v_through;
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    v_total := v_total + v_gone;
    IF EXISTS (SELECT FROM messages m WHERE m.conversation_id = c.id) THEN
      UPDATE conversations SET summarised_through = greatest(summarised_through, v_through), open_chars = open_chars - v_chars WHERE id = c.id;
    ELSE
      DELETE FROM conversations WHERE id = c.id;
    END IF;
  END LOOP;
  RETURN v_total;
END $$;
