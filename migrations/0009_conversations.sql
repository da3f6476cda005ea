-- Why: tasks with the same conversation_id of the same user know what was said before. Turns are kept whole and in order; what is
-- older than the last ones is told by a running summary that reaches to a cursor, so that a turn is in the one or among the others,
-- never in both and never in neither.

CREATE TABLE conversations (
  -- Follows from tenant, user and name (conversation_uuid), so that whoever knows these three finds the cache without asking here.
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  -- The caller's conversation_id.
  name text NOT NULL,
  last_seq bigint NOT NULL,
  -- The summary tells the turns up to and including this one.
  summarised_through bigint NOT NULL DEFAULT 0,
  summary text,
  summary_model text,
  -- Characters of the turns after the cursor.
  open_chars bigint NOT NULL,
  -- Set while more turns are open than a plugin is given.
  summary_due_at timestamptz,
  summary_rings int NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX conversations_of_user ON conversations (tenant_id, user_id);
CREATE INDEX conversations_due ON conversations (summary_due_at) WHERE summary_due_at IS NOT NULL;

CREATE TABLE messages (
  conversation_id uuid NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
  seq bigint NOT NULL,
  tenant_id uuid NOT NULL,
  task_id uuid NOT NULL,
  role text NOT NULL CHECK (role IN ('user', 'assistant')),
  content text NOT NULL,
  chars int NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (conversation_id, seq)
);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['conversations', 'messages'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO aau_app, aau_platform', t);
  END LOOP;
END $$;

-- The same in shared/conversations/conversation-id.ts.
CREATE FUNCTION conversation_uuid(p_owner_tenant uuid, p_user uuid, p_name text) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT encode(substr(sha256(convert_to(p_owner_tenant || '/' || p_user || '/' || p_name, 'UTF8')), 1, 16), 'hex')::uuid $$;

-- What a plugin is given at most: so many turns with so many characters.
CREATE FUNCTION conversation_overflows(p_turns bigint, p_chars bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT p_turns > 20 OR p_chars > 40000 $$;

-- One turn's text, cut to size. Null: there is nothing to keep.
CREATE FUNCTION conversation_turn(p_text text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT CASE WHEN length(t.trimmed) > 8000 THEN left(t.trimmed, 7996) || ' […]' ELSE nullif(t.trimmed, '') END FROM (SELECT btrim(p_text, E' \t\r\n') AS trimmed) t $$;

-- Writes the exchange of a task that ends to its conversation, in the transaction that ends it; the caller has entered a role and holds
-- the task's row. Only an answered command is part of a conversation. A service account has no user, and so no conversation.
-- True: more turns are open now than a plugin is given; ring for a summary. It is said once until there is one.
CREATE FUNCTION append_conversation_turns(p_task tasks, p_status text, p_result jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  v_said text; v_answered text; v_turns int; v_chars int; v_id uuid; v_last bigint; v_open bigint; v_open_chars bigint; v_due timestamptz;
BEGIN
  IF p_task.conversation_id IS NULL OR p_task.user_id IS NULL OR p_status NOT IN ('success', 'partial') THEN RETURN false; END IF;
  v_said := conversation_turn(p_task.input->>'command');
  IF v_said IS NULL THEN RETURN false; END IF;
  v_answered := conversation_turn(p_result->>'result');
  v_turns := CASE WHEN v_answered IS NULL THEN 1 ELSE 2 END;
  v_chars := length(v_said) + coalesce(length(v_answered), 0);
  v_id := conversation_uuid(p_task.tenant_id, p_task.user_id, p_task.conversation_id);

  -- The row's lock gives turns their order, and only the first exchange finds no row. Its user may have been erased meanwhile.
  UPDATE conversations c SET last_seq = c.last_seq + v_turns, open_chars = c.open_chars + v_chars, updated_at = now() WHERE c.id = v_id
    RETURNING c.last_seq, c.last_seq - c.summarised_through, c.open_chars, c.summary_due_at INTO v_last, v_open, v_open_chars, v_due;
  IF v_last IS NULL THEN
    INSERT INTO conversations AS c (id, tenant_id, user_id, name, last_seq, open_chars)
      SELECT v_id, p_task.tenant_id, u.id, p_task.conversation_id, v_turns, v_chars
      FROM users u WHERE u.id = p_task.user_id AND u.tenant_id = p_task.tenant_id FOR KEY SHARE
      ON CONFLICT (id) DO UPDATE SET last_seq = c.last_seq + v_turns, open_chars = c.open_chars + v_chars, updated_at = now()
      RETURNING c.last_seq, c.last_seq - c.summarised_through, c.open_chars, c.summary_due_at INTO v_last, v_open, v_open_chars, v_due;
    IF v_last IS NULL THEN RETURN false; END IF;
  END IF;

  INSERT INTO messages (conversation_id, seq, tenant_id, task_id, role, content, chars)
    SELECT v_id, v_last - v_turns + t.place, p_task.tenant_id, p_task.id, t.role, t.content, length(t.content)
    FROM (VALUES (1, 'user', v_said), (2, 'assistant', v_answered)) AS t(place, role, content) WHERE t.content IS NOT NULL;

  IF v_due IS NOT NULL OR NOT conversation_overflows(v_open, v_open_chars) THEN RETURN false; END IF;
  -- The settler rings at once; `wake` does when that was not heard. Until then the older turns only wait.
  UPDATE conversations SET summary_due_at = now() + interval '2 minutes', summary_rings = 0 WHERE id = v_id;
  RETURN true;
END $$;

-- What a plugin is told of a conversation: the summary and the turns after it, newest kept. No row: nothing was said yet.
CREATE FUNCTION read_conversation(p_tenant uuid, p_id uuid) RETURNS TABLE (summary text, turns jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT c.summary, (
      SELECT coalesce(jsonb_agg(jsonb_build_object('role', n.role, 'content', n.content) ORDER BY n.seq), '[]')
      FROM (SELECT m.seq, m.role, m.content, row_number() OVER newest AS turns, sum(m.chars) OVER newest AS chars
        FROM (SELECT * FROM messages WHERE conversation_id = c.id AND seq > c.summarised_through ORDER BY seq DESC LIMIT 21) m
        WINDOW newest AS (ORDER BY m.seq DESC)) n
      WHERE NOT conversation_overflows(n.turns, n.chars))
    FROM conversations c WHERE c.id = p_id AND c.tenant_id = p_tenant;
END $$;

-- The oldest turns that no longer fit, as many as one summary takes in at a time, and the cursor that they were read at. No row: all fit.
CREATE FUNCTION read_conversation_overflow(p_id uuid)
RETURNS TABLE (tenant_id uuid, summary text, summarised_through bigint, through bigint, turns jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    WITH conversation AS (SELECT * FROM conversations WHERE id = p_id),
    open AS (
      SELECT m.seq, m.role, row_number() OVER newest AS turns, sum(m.chars) OVER newest AS chars,
        row_number() OVER oldest AS turns_before, sum(m.chars) OVER oldest AS chars_before
      FROM messages m JOIN conversation c ON m.conversation_id = c.id AND m.seq > c.summarised_through
      WINDOW newest AS (ORDER BY m.seq DESC), oldest AS (ORDER BY m.seq)
    ),
    overflow AS (SELECT * FROM open o WHERE conversation_overflows(o.turns, o.chars) AND o.turns_before <= 40 AND o.chars_before <= 60000)
    SELECT c.tenant_id, c.summary, c.summarised_through, max(o.seq), jsonb_agg(jsonb_build_object('role', m.role, 'content', m.content) ORDER BY m.seq)
    FROM conversation c CROSS JOIN overflow o JOIN messages m ON m.conversation_id = c.id AND m.seq = o.seq
    GROUP BY c.tenant_id, c.summary, c.summarised_through;
END $$;

-- Moves the cursor from where the turns were read. False: somebody else moved it, or the conversation was erased; nothing is written.
CREATE FUNCTION move_conversation_summary(p_id uuid, p_from bigint, p_through bigint, p_summary text, p_model text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_chars bigint;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT coalesce(sum(m.chars), 0) INTO v_chars FROM messages m WHERE m.conversation_id = p_id AND m.seq > p_from AND m.seq <= p_through;
  UPDATE conversations c SET summary = p_summary, summary_model = p_model, summarised_through = p_through, open_chars = c.open_chars - v_chars, summary_rings = 0,
      updated_at = now(), summary_due_at = CASE WHEN conversation_overflows(c.last_seq - p_through, c.open_chars - v_chars) THEN now() END
    WHERE c.id = p_id AND c.summarised_through = p_from AND p_through > p_from AND p_through <= c.last_seq;
  RETURN FOUND;
END $$;

-- There is no model now: `wake` rings again, not before this time.
CREATE FUNCTION put_off_conversation_summary(p_id uuid, p_delay_ms int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE conversations c SET summary_due_at = greatest(c.summary_due_at, now() + p_delay_ms * interval '1 millisecond') WHERE c.id = p_id AND c.summary_due_at IS NOT NULL;
END $$;

-- Conversations that wait for a summary and were not heard, each rung less and less often.
CREATE FUNCTION take_due_conversations(p_limit int) RETURNS TABLE (id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE conversations c SET summary_rings = c.summary_rings + 1, summary_due_at = now() + least(interval '1 hour', interval '2 minutes' * power(2, least(c.summary_rings, 5)))
    FROM (SELECT d.id FROM conversations d WHERE d.summary_due_at < now() ORDER BY d.summary_due_at LIMIT p_limit FOR UPDATE SKIP LOCKED) due
    WHERE c.id = due.id
    RETURNING c.id;
END $$;
