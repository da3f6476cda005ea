-- Why: an endpoint that failed once, long ago, was taken out of use at its next failed attempt, since nothing between the two had reset its
-- failures: an endpoint without events is not failing. And a delivery that was asked for again during its last attempt was lost.

ALTER TABLE webhooks ADD COLUMN last_failure_at timestamptz;

-- Puts down how an attempt ended: `delivered`, `refused` (try again after p_delay_ms; null: no more), `gone`, or `erased`, where nothing was sent.
-- `held` false: the lease is lost, and nothing was written. Returns the endpoints to ring for. A delivery without tries was asked for again while
-- this attempt was on its way: unless it has arrived, it is due now, also when this was its last attempt.
CREATE OR REPLACE FUNCTION finish_webhook_attempt(p_tenant uuid, p_webhook uuid, p_delivery uuid, p_lease uuid, p_outcome text, p_status int, p_ms int, p_error text, p_answer text,
  p_delay_ms bigint, p_give_up_ms bigint) RETURNS TABLE (held boolean, disabled boolean, rings uuid[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE h webhooks; d webhook_deliveries; v_rings uuid[] := '{}'; v_disabled boolean := false; v_before int;
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  -- The endpoint before the delivery, as everywhere.
  SELECT * INTO h FROM webhooks w WHERE w.id = p_webhook AND w.tenant_id = p_tenant FOR NO KEY UPDATE;
  UPDATE webhook_deliveries x SET lease_token = NULL, lease_until = NULL,
      status = CASE WHEN p_outcome = 'delivered' THEN 'delivered' WHEN p_delay_ms IS NULL AND NOT (x.tries = 0 AND p_outcome = 'refused') THEN 'failed'
        WHEN h.status = 'active' THEN 'pending' ELSE 'held' END,
      next_attempt_at = CASE WHEN x.tries = 0 THEN now() ELSE coalesce(now() + p_delay_ms * interval '1 millisecond', x.next_attempt_at) END,
      finished_at = CASE WHEN p_outcome = 'delivered' OR (p_delay_ms IS NULL AND NOT (x.tries = 0 AND p_outcome = 'refused')) THEN now() END
    WHERE x.id = p_delivery AND x.webhook_id = p_webhook AND x.lease_token = p_lease AND x.status = 'pending' RETURNING * INTO d;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, false, '{}'::uuid[];
    RETURN;
  END IF;
  INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, at, status, ms, error, answer)
    VALUES (d.id, d.attempts, d.tenant_id, now() - p_ms * interval '1 millisecond', p_status, p_ms, p_error, p_answer) ON CONFLICT DO NOTHING;

  IF p_outcome = 'delivered' THEN
    -- Not for every one: an endpoint that is well would be rewritten thousands of times.
    UPDATE webhooks w SET failures = 0, failing_since = NULL, resume_at = NULL, last_success_at = now()
      WHERE w.id = p_webhook AND (w.failures > 0 OR w.last_success_at IS NULL OR w.last_success_at < now() - interval '1 minute');
  ELSIF h.status = 'active' AND p_outcome <> 'erased' THEN
    -- Attempts of one delivery are a day apart at most: after a silence of two, this is another story.
    v_before := CASE WHEN h.last_failure_at < now() - interval '2 days' THEN 0 ELSE h.failures END;
    UPDATE webhooks w SET failures = v_before + 1, failing_since = CASE WHEN v_before = 0 THEN now() ELSE coalesce(w.failing_since, now()) END, last_failure_at = now(),
        resume_at = CASE WHEN v_before >= 4 THEN now() + least(interval '10 minutes', interval '15 seconds' * power(2, least(v_before - 4, 6))) END
      WHERE w.id = p_webhook RETURNING * INTO h;
    IF p_outcome = 'gone' OR (h.failures >= 5 AND h.failing_since < now() - p_give_up_ms * interval '1 millisecond') THEN
      v_disabled := true;
      v_rings := disable_webhook(h, CASE p_outcome WHEN 'gone' THEN 'gone' ELSE 'failing' END);
    END IF;
  END IF;
  RETURN QUERY SELECT true, v_disabled, v_rings;
END $$;

-- Gives a delivery back that was not sent, as if it had not been claimed. False: the lease is lost.
CREATE OR REPLACE FUNCTION release_webhook_delivery(p_tenant uuid, p_delivery uuid, p_lease uuid, p_delay_ms int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE webhook_deliveries d SET lease_token = NULL, lease_until = NULL, attempts = d.attempts - 1, tries = greatest(d.tries - 1, 0), next_attempt_at = now() + p_delay_ms * interval '1 millisecond'
    WHERE d.id = p_delivery AND d.lease_token = p_lease AND d.status = 'pending';
  RETURN FOUND;
END $$;
