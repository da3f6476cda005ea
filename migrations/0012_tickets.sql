-- Why: the built-in tracker. Tickets belong to the tenant and outlive the task that made them; plugins reach them through the scope
-- gateway alone, under the lease of the task that they work on. A fingerprint says which issue a ticket is about, so that the
-- same issue, found again, finds its ticket.

-- T-1, T-2 … of each tenant. The row's lock makes one creator wait for another, so that numbers have no gaps and no two tickets get one.
CREATE TABLE ticket_counters (tenant_id uuid PRIMARY KEY, last_number int NOT NULL DEFAULT 0);

CREATE TABLE tickets (
  tenant_id uuid NOT NULL,
  number int NOT NULL,
  fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
  title text NOT NULL,
  description text NOT NULL DEFAULT '',
  type text NOT NULL,
  priority text NOT NULL CHECK (priority IN ('critical', 'high', 'medium', 'low')),
  status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
  assignee text,
  team text,
  component text,
  labels text[] NOT NULL DEFAULT '{}',
  -- The task that made the ticket, which plugin had found the issue, and where.
  source_task uuid NOT NULL,
  source_plugin text NOT NULL,
  source_reference text,
  sla_due_at timestamptz,
  resolved_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, number)
);
CREATE UNIQUE INDEX one_live_ticket_per_fingerprint ON tickets (tenant_id, fingerprint) WHERE status <> 'closed';
CREATE INDEX tickets_of_task ON tickets (tenant_id, source_task, fingerprint);
CREATE INDEX tickets_unfinished ON tickets (tenant_id, number) WHERE status IN ('open', 'in_progress');

CREATE TABLE ticket_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid NOT NULL,
  number int NOT NULL,
  type text NOT NULL CHECK (type IN ('created', 'changed', 'noted')),
  data jsonb NOT NULL DEFAULT '{}',
  task_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (tenant_id, number) REFERENCES tickets (tenant_id, number) ON DELETE CASCADE
);
CREATE INDEX ticket_events_of_ticket ON ticket_events (tenant_id, number, id);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['ticket_counters', 'tickets', 'ticket_events'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO aau_app, aau_platform', t);
  END LOOP;
END $$;

-- A ticket as plugins see it, without its description; whether its time is over is said on the database's clock.
CREATE FUNCTION ticket_json(t tickets) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('id', 'T-' || t.number, 'title', t.title, 'type', t.type, 'priority', t.priority, 'status', t.status, 'assignee', t.assignee,
    'team', t.team, 'component', t.component, 'labels', to_jsonb(t.labels), 'fingerprint', t.fingerprint,
    'source', jsonb_build_object('task', t.source_task, 'plugin', t.source_plugin, 'reference', t.source_reference),
    'sla_due_at', t.sla_due_at, 'sla_breached', coalesce(coalesce(t.resolved_at, now()) > t.sla_due_at, false),
    'created_at', t.created_at, 'updated_at', t.updated_at, 'resolved_at', t.resolved_at)
$$;

-- One ticket for each fingerprint: `created` by this task, by this attempt or an earlier one, or `known` already. All or none; no row: the
-- lease is lost. Closed tickets do not count, except those of the task itself, which a later attempt must not file again.
CREATE FUNCTION create_tickets(p_tenant uuid, p_task uuid, p_lease uuid, p_plugin text, p_tickets jsonb)
RETURNS TABLE (place int, outcome text, ticket jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE d record; v_known tickets; v_last int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  PERFORM 1 FROM tasks t WHERE t.id = p_task AND t.lease_token = p_lease AND t.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
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

-- Changes what `p_change` names, and adds its `note` once a task. `changed`, `unchanged`, `reopen_first` for a closed ticket that cannot go on from
-- there, `taken` when a reopened ticket's issue has another ticket by now. No row: the lease is lost, or with outcome `unknown`, no such ticket.
CREATE FUNCTION change_ticket(p_tenant uuid, p_task uuid, p_lease uuid, p_number int, p_change jsonb)
RETURNS TABLE (outcome text, ticket jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t tickets; v_next tickets; v_note text := p_change->>'note'; v_delta jsonb;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  PERFORM 1 FROM tasks k WHERE k.id = p_task AND k.lease_token = p_lease AND k.status = 'running' FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
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
