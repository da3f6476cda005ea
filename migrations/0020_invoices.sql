-- Why: a month is closed once, in one transaction for each tenant: its lines, their sum, and the rows of usage_days that they stand for.
-- The tenant's row is the lock, and `closed_until` the mark that moves in the same transaction, so closing may be done twice, in two places at
-- once, or be killed anywhere. What is settled after its month was closed makes a new row there, and goes on the next invoice with its month.

CREATE TABLE tenant_billing (
  tenant_id uuid PRIMARY KEY REFERENCES tenants(id),
  -- The first day that is on no closed month.
  closed_until date NOT NULL,
  invoices int NOT NULL DEFAULT 0
);

-- What it is made of stays with it: the tenant's name and plan, and the prices, as they were. `announced_at`: a payment system has taken it.
CREATE TABLE invoices (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  -- 1, 2, 3 … of the tenant, without gaps.
  number int NOT NULL,
  period_start date NOT NULL,
  period_end date NOT NULL,
  tenant_name text NOT NULL,
  plan_tier text NOT NULL,
  price_version text NOT NULL,
  prices jsonb NOT NULL,
  total_micro_usd bigint NOT NULL,
  closed_at timestamptz NOT NULL DEFAULT now(),
  announced_at timestamptz,
  announce_at timestamptz NOT NULL DEFAULT now(),
  announce_attempts int NOT NULL DEFAULT 0,
  UNIQUE (tenant_id, period_start),
  UNIQUE (tenant_id, number)
);
CREATE INDEX invoices_to_announce ON invoices (announce_at) WHERE announced_at IS NULL;

CREATE TABLE invoice_lines (
  invoice_id uuid NOT NULL REFERENCES invoices(id),
  position int NOT NULL,
  tenant_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('plan_fee', 'plugin_fee', 'bundle_discount', 'executions', 'overage', 'volume', 'model_usage')),
  plugin_name text,
  model text,
  -- The month in which the work was done; before `period_start` for late usage.
  origin date NOT NULL,
  description text NOT NULL,
  quantity bigint NOT NULL,
  unit text NOT NULL,
  unit_micro_usd bigint,
  amount_micro_usd bigint NOT NULL,
  price_version text NOT NULL,
  tokens jsonb,
  PRIMARY KEY (invoice_id, position)
);
ALTER TABLE usage_days ADD FOREIGN KEY (invoice_id) REFERENCES invoices(id);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['tenant_billing', 'invoices', 'invoice_lines'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT ON %I TO aau_app', t);
    EXECUTE format('GRANT SELECT, INSERT ON %I TO aau_platform', t);
  END LOOP;
END $$;
-- What was closed stays as it is.
GRANT UPDATE ON tenant_billing TO aau_platform;
GRANT UPDATE (announced_at, announce_at, announce_attempts) ON invoices TO aau_platform;

-- The lines of a month, made of the subscriptions that stood in it and of usage that is on no invoice yet: of the rows `p_rows`, or of all until its
-- end. `p_prices` is {version, plans} of plan-prices.ts. Fees are by the day, rounded to the tenant's favour; what stands for a month that goes on is
-- taken to stand until its end. Nothing is locked. The caller has entered a role.
CREATE FUNCTION draft_invoice(p_tenant uuid, p_month date, p_prices jsonb, p_rows bigint[])
RETURNS TABLE (kind text, plugin_name text, model text, origin date, description text, quantity bigint, unit text, unit_micro_usd bigint, amount_micro_usd bigint,
               price_version text, tokens jsonb) LANGUAGE sql STABLE AS $$
  WITH month AS (
    SELECT p_month AS first, (p_month + interval '1 month')::date AS after, (p_month + interval '1 month')::date - p_month AS days
  ), plan AS (
    SELECT t.plan_tier AS tier, p_prices->'plans'->t.plan_tier AS terms, greatest(0, m.after - greatest(m.first, (t.created_at AT TIME ZONE 'UTC')::date)) AS days
      FROM tenants t CROSS JOIN month m WHERE t.id = p_tenant
  ), subscribed AS (
    -- Once a plugin and day, however often it was subscribed to on that day.
    SELECT DISTINCT ON (s.plugin_id, d.day) p.name AS plugin, d.day, s.tier, p_prices->'plans'->s.tier AS terms
      FROM month m CROSS JOIN LATERAL (SELECT m.first + n AS day FROM generate_series(0, m.days - 1) n) d
      JOIN subscriptions s ON s.tenant_id = p_tenant AND (s.started_at AT TIME ZONE 'UTC')::date <= d.day AND (s.ended_at IS NULL OR (s.ended_at AT TIME ZONE 'UTC')::date >= d.day)
      JOIN plugins p ON p.id = s.plugin_id
      ORDER BY s.plugin_id, d.day, s.started_at DESC
  ), discounts AS (
    SELECT sum((g.terms->>'pluginFee')::numeric * g.count * (g.terms->'bundleDiscounts'->>(least(g.count, jsonb_array_length(g.terms->'bundleDiscounts')) - 1)::int)::numeric) AS hundredths
      FROM (SELECT s.day, s.terms, count(*) AS count FROM subscribed s GROUP BY s.day, s.terms) g
  ), used AS (
    SELECT y.*, date_trunc('month', y.day)::date AS origin FROM usage_days y, month m
      WHERE y.tenant_id = p_tenant AND y.invoice_id IS NULL AND y.day < m.after AND (p_rows IS NULL OR y.id = ANY (p_rows))
  ), bands AS (
    SELECT b.ordinality, coalesce(lag((b.value->>'upTo')::bigint) OVER (ORDER BY b.ordinality), 0) AS above, (b.value->>'upTo')::bigint AS up_to, (b.value->>'each')::bigint AS each, n.total
      FROM plan CROSS JOIN jsonb_array_elements(plan.terms->'volume') WITH ORDINALITY b CROSS JOIN (SELECT coalesce(sum(u.billable), 0)::bigint AS total FROM used u) n
  ), lines AS (
    SELECT 1 AS part, 'plan_fee' AS kind, NULL AS plugin, NULL AS model, p_month AS origin, initcap(plan.tier) || ' plan' AS description, plan.days::bigint AS quantity, 'day' AS unit,
        NULL::bigint AS unit_price, ((plan.terms->>'platformFee')::bigint * plan.days / m.days) AS amount, p_prices->>'version' AS version, NULL::jsonb AS tokens
      FROM plan, month m WHERE (plan.terms->>'platformFee')::bigint > 0 AND plan.days > 0
    UNION ALL
    SELECT 2, 'plugin_fee', s.plugin, NULL, p_month, s.plugin || ': subscription', count(*), 'day', NULL, (s.terms->>'pluginFee')::bigint * count(*) / m.days, p_prices->>'version', NULL
      FROM subscribed s, month m WHERE (s.terms->>'pluginFee')::bigint > 0 GROUP BY s.plugin, s.tier, s.terms, m.days
    UNION ALL
    SELECT 3, 'bundle_discount', NULL, NULL, p_month, 'Discount for several plugins', 1, 'month', NULL, -ceil(d.hundredths / (10000 * m.days))::bigint, p_prices->>'version', NULL
      FROM discounts d, month m WHERE d.hundredths > 0
    UNION ALL
    SELECT 4, 'executions', u.plugin_name, NULL, u.origin, u.plugin_name || ': executions that the plan includes', sum(u.billable - u.overage), 'execution', 0, 0, p_prices->>'version', NULL
      FROM used u, plan WHERE jsonb_array_length(plan.terms->'volume') = 0 GROUP BY u.plugin_name, u.origin HAVING sum(u.billable - u.overage) > 0
    UNION ALL
    SELECT 5, 'overage', u.plugin_name, NULL, u.origin, u.plugin_name || ': executions beyond the quota', sum(u.overage), 'execution', coalesce((plan.terms->>'overage')::bigint, 0),
        sum(u.overage) * coalesce((plan.terms->>'overage')::bigint, 0), p_prices->>'version', NULL
      FROM used u, plan WHERE jsonb_array_length(plan.terms->'volume') = 0 GROUP BY u.plugin_name, u.origin, plan.terms HAVING sum(u.overage) > 0
    UNION ALL
    SELECT 6, 'volume', NULL, NULL, p_month, 'Executions ' || CASE WHEN b.up_to IS NULL THEN 'from ' || b.above + 1 ELSE b.above + 1 || ' to ' || b.up_to END,
        least(b.total, coalesce(b.up_to, b.total)) - b.above, 'execution', b.each, (least(b.total, coalesce(b.up_to, b.total)) - b.above) * b.each, p_prices->>'version', NULL
      FROM bands b WHERE b.total > b.above
    UNION ALL
    SELECT 7, 'model_usage', u.plugin_name, u.model, u.origin, u.plugin_name || ': ' || u.model, (sum(u.input_tokens + u.output_tokens + u.cache_write_tokens + u.cache_read_tokens))::bigint, 'token',
        NULL, sum(u.cost_micro_usd)::bigint, u.price_version,
        jsonb_build_object('input', sum(u.input_tokens), 'output', sum(u.output_tokens), 'cache_write', sum(u.cache_write_tokens), 'cache_read', sum(u.cache_read_tokens))
      FROM used u WHERE u.model IS NOT NULL GROUP BY u.plugin_name, u.model, u.price_version, u.origin
      HAVING sum(u.cost_micro_usd) > 0 OR sum(u.input_tokens + u.output_tokens + u.cache_write_tokens + u.cache_read_tokens) > 0
  )
  SELECT l.kind, l.plugin, l.model, l.origin, l.description || CASE WHEN l.origin < p_month THEN ', late from ' || to_char(l.origin, 'YYYY-MM') ELSE '' END, l.quantity, l.unit, l.unit_price,
      l.amount, l.version, l.tokens
    FROM lines l ORDER BY l.part, l.plugin NULLS FIRST, l.origin, l.model, l.version, l.quantity DESC
$$;

-- Closes one month of one tenant: `closed`; `empty`, when there is nothing to invoice; `known`, when it was closed before; `out_of_order`, when it is not
-- the next one. AAU02: what settling has counted is not what the events say; then the month stays open until somebody has looked.
CREATE FUNCTION close_month(p_tenant uuid, p_month date, p_prices jsonb, p_id uuid, p_public_id text)
RETURNS TABLE (outcome text, invoice uuid, total_micro_usd bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  t tenants; v_after date := (p_month + interval '1 month')::date; v_until date; v_number int; v_rows bigint[]; v_lines int; v_total bigint; v_known invoices; v_off record;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  SELECT * INTO t FROM tenants k WHERE k.id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO tenant_billing (tenant_id, closed_until) VALUES (p_tenant, date_trunc('month', t.created_at AT TIME ZONE 'UTC')::date) ON CONFLICT DO NOTHING;
  SELECT b.closed_until, b.invoices + 1 INTO v_until, v_number FROM tenant_billing b WHERE b.tenant_id = p_tenant;
  IF v_until <> p_month THEN
    SELECT * INTO v_known FROM invoices i WHERE i.tenant_id = p_tenant AND i.period_start = p_month;
    RETURN QUERY SELECT CASE WHEN v_until > p_month THEN 'known' ELSE 'out_of_order' END, v_known.id, v_known.total_micro_usd;
    RETURN;
  END IF;

  -- As settling locks them. These rows and no others are on the invoice: one that comes in this moment is for the next.
  v_rows := ARRAY(SELECT y.id FROM usage_days y WHERE y.tenant_id = p_tenant AND y.invoice_id IS NULL AND y.day < v_after
    ORDER BY y.day, y.plugin_name, y.environment, y.api_key_id, y.model, y.price_version FOR UPDATE);
  SELECT e.billable AS events, y.billable AS days, e.cost AS events_cost, y.cost AS days_cost INTO v_off FROM
    (SELECT count(*) AS billable, coalesce(sum(x.cost_micro_usd), 0) AS cost FROM execution_events x
      WHERE x.tenant_id = p_tenant AND x.timestamp >= p_month::timestamp AT TIME ZONE 'UTC' AND x.timestamp < v_after::timestamp AT TIME ZONE 'UTC' AND x.billable) e,
    (SELECT coalesce(sum(k.billable), 0) AS billable, coalesce(sum(k.cost_micro_usd), 0) AS cost FROM usage_days k WHERE k.tenant_id = p_tenant AND k.day >= p_month AND k.day < v_after) y;
  IF v_off.events <> v_off.days OR v_off.events_cost <> v_off.days_cost THEN
    RAISE EXCEPTION 'usage_days say % executions for % micro-USD, the events % for %', v_off.days, v_off.days_cost, v_off.events, v_off.events_cost USING ERRCODE = 'AAU02';
  END IF;

  SELECT count(*), coalesce(sum(d.amount_micro_usd), 0) INTO v_lines, v_total FROM draft_invoice(p_tenant, p_month, p_prices, v_rows) d;
  IF v_lines > 0 THEN
    INSERT INTO invoices (id, tenant_id, number, period_start, period_end, tenant_name, plan_tier, price_version, prices, total_micro_usd)
      VALUES (p_id, p_tenant, v_number, p_month, v_after - 1, t.name, t.plan_tier, p_prices->>'version', p_prices->'plans'->t.plan_tier, v_total);
    INSERT INTO invoice_lines (invoice_id, position, tenant_id, kind, plugin_name, model, origin, description, quantity, unit, unit_micro_usd, amount_micro_usd, price_version, tokens)
      SELECT p_id, d.ordinality, p_tenant, d.kind, d.plugin_name, d.model, d.origin, d.description, d.quantity, d.unit, d.unit_micro_usd, d.amount_micro_usd, d.price_version, d.tokens
        FROM draft_invoice(p_tenant, p_month, p_prices, v_rows) WITH ORDINALITY d;
    UPDATE usage_days SET invoice_id = p_id WHERE id = ANY (v_rows);
    PERFORM enqueue_webhook_event(p_tenant, 'invoice.closed', p_public_id, jsonb_build_object('invoice_id', p_public_id, 'number', v_number, 'period_start', p_month,
      'period_end', v_after - 1, 'currency', 'USD', 'total_usd', to_char(v_total / 1000000.0, 'FM999999999999990.000000')));
  END IF;
  UPDATE tenant_billing SET closed_until = v_after, invoices = invoices + (v_lines > 0)::int WHERE tenant_id = p_tenant;
  RETURN QUERY SELECT CASE WHEN v_lines > 0 THEN 'closed' ELSE 'empty' END, CASE WHEN v_lines > 0 THEN p_id END, v_total;
END $$;

-- Months that are over since `p_grace`, the oldest first, but none of `p_except`.
CREATE FUNCTION months_to_close(p_grace interval, p_except uuid[], p_limit int) RETURNS TABLE (tenant_id uuid, month text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    SELECT d.id, d.month::text FROM (
      SELECT t.id, coalesce(b.closed_until, date_trunc('month', t.created_at AT TIME ZONE 'UTC')::date) AS month FROM tenants t LEFT JOIN tenant_billing b ON b.tenant_id = t.id
    ) d WHERE d.month < date_trunc('month', (now() - p_grace) AT TIME ZONE 'UTC')::date AND d.id <> ALL (p_except) ORDER BY d.month, d.id LIMIT p_limit;
END $$;

-- The open month as it would be closed now. Nothing is written.
CREATE FUNCTION preview_invoice(p_tenant uuid, p_prices jsonb) RETURNS TABLE (tenant_name text, plan_tier text, period_start text, period_end text, lines jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT t.name, t.plan_tier, v_month::text, ((v_month + interval '1 month')::date - 1)::text, coalesce((SELECT jsonb_agg(invoice_line_json(d.kind, d.plugin_name, d.model, d.origin, d.description, d.quantity,
        d.unit, d.unit_micro_usd, d.amount_micro_usd, d.price_version, d.tokens) ORDER BY d.ordinality) FROM draft_invoice(p_tenant, v_month, p_prices, NULL) WITH ORDINALITY d), '[]')
      FROM tenants t WHERE t.id = p_tenant;
END $$;

-- Amounts as texts: JSON numbers of micro-USD would lose digits in JavaScript.
CREATE FUNCTION invoice_line_json(kind text, plugin_name text, model text, origin date, description text, quantity bigint, unit text, unit_micro_usd bigint, amount_micro_usd bigint,
  price_version text, tokens jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('kind', kind, 'plugin', plugin_name, 'model', model, 'origin', to_char(origin, 'YYYY-MM'), 'description', description, 'quantity', quantity, 'unit', unit,
    'unit_micro_usd', unit_micro_usd::text, 'amount_micro_usd', amount_micro_usd::text, 'price_version', price_version, 'tokens', tokens)
$$;

-- Whole invoices: those named, or of the tenant the latest before `p_before`. Null for the tenant stands for the platform's own reading.
CREATE FUNCTION invoice_json(i invoices) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('id', i.id, 'number', i.number, 'tenant_id', i.tenant_id, 'tenant_name', i.tenant_name, 'plan_tier', i.plan_tier, 'period_start', i.period_start, 'period_end', i.period_end,
    'price_version', i.price_version, 'total_micro_usd', i.total_micro_usd::text, 'closed_at', to_char(i.closed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'lines', (SELECT coalesce(jsonb_agg(invoice_line_json(l.kind, l.plugin_name, l.model, l.origin, l.description, l.quantity, l.unit, l.unit_micro_usd, l.amount_micro_usd, l.price_version,
      l.tokens) ORDER BY l.position), '[]') FROM invoice_lines l WHERE l.invoice_id = i.id AND l.tenant_id = i.tenant_id))
$$;

CREATE FUNCTION read_invoice(p_tenant uuid, p_id uuid) RETURNS TABLE (invoice jsonb) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY SELECT invoice_json(i) FROM invoices i WHERE i.tenant_id = p_tenant AND i.id = p_id;
END $$;

-- The next invoices that the payment system has not taken, put off so that nobody else sends them meanwhile, and longer each time.
CREATE FUNCTION take_invoices_to_announce(p_limit int) RETURNS TABLE (invoice jsonb, attempt int) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  RETURN QUERY
    UPDATE invoices i SET announce_attempts = i.announce_attempts + 1, announce_at = now() + least(interval '1 hour', interval '30 seconds' * power(2, least(i.announce_attempts, 8)))
      FROM (SELECT d.id FROM invoices d WHERE d.announced_at IS NULL AND d.announce_at <= now() ORDER BY d.announce_at LIMIT p_limit FOR UPDATE SKIP LOCKED) due
      WHERE i.id = due.id RETURNING invoice_json(i), i.announce_attempts;
END $$;

CREATE FUNCTION mark_announced(p_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE invoices i SET announced_at = coalesce(i.announced_at, now()) WHERE i.id = p_id;
END $$;

-- What each plugin brought and cost, by month: invoiced lines against the provider's calls, those included that nobody pays for, and unknown ones at their ceiling.
CREATE VIEW margin_by_month WITH (security_invoker = true) AS
  SELECT coalesce(c.tenant_id, r.tenant_id) AS tenant_id, coalesce(c.month, r.month) AS month, coalesce(c.plugin_name, r.plugin_name) AS plugin_name,
      coalesce(r.invoiced, 0) AS invoiced_micro_usd, coalesce(c.billed, 0) AS billed_cost_micro_usd, coalesce(c.unbilled, 0) AS unbilled_cost_micro_usd,
      coalesce(c.unknown_calls, 0) AS unknown_calls, coalesce(c.unknown, 0) AS unknown_cost_micro_usd,
      coalesce(r.invoiced, 0) - coalesce(c.billed, 0) - coalesce(c.unbilled, 0) - coalesce(c.unknown, 0) AS margin_micro_usd
    FROM (SELECT y.tenant_id, date_trunc('month', y.day)::date AS month, y.plugin_name, sum(y.cost_micro_usd) AS billed, sum(y.unbilled_micro_usd) AS unbilled,
        sum(y.unknown_calls) AS unknown_calls, sum(y.unknown_micro_usd) AS unknown FROM usage_days y GROUP BY 1, 2, 3) c
    FULL JOIN (SELECT l.tenant_id, l.origin AS month, l.plugin_name, sum(l.amount_micro_usd) AS invoiced FROM invoice_lines l GROUP BY 1, 2, 3) r
      ON r.tenant_id = c.tenant_id AND r.month = c.month AND coalesce(r.plugin_name, '') = coalesce(c.plugin_name, '');
GRANT SELECT ON margin_by_month TO aau_platform;
