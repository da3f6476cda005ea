-- Why: submits that arrive while a statement is under way wait for it anyway; admitted together they share one round trip, one
-- snapshot and one commit. Each is admitted by admit_task as if it came alone. If one fails, none of the batch was admitted, and
-- the host runs each alone. Ordered like the usage rows, so that two batches take their locks in the same order.
CREATE FUNCTION admit_tasks(p_batch jsonb)
RETURNS TABLE (place int, outcome text, task_id uuid, created_at timestamptz, quota_used int, quota_limit int, overage boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE b record;
BEGIN
  FOR b IN
    SELECT * FROM jsonb_to_recordset(p_batch) AS r(place int, tenant uuid, id uuid, "user" uuid, key uuid, environment text, conversation text, plugin text, plan jsonb,
      input jsonb, method text, confidence real, priority text, max_cost bigint, deadline timestamptz, traceparent text, request text, idempotency_key text, request_sha256 text)
    ORDER BY r.tenant, r.plugin, r.environment, r.id
  LOOP
    RETURN QUERY SELECT b.place, a.outcome, a.task_id, a.created_at, a.quota_used, a.quota_limit, a.overage FROM admit_task(
      b.tenant, b.id, b."user", b.key, b.environment, b.conversation, b.plugin, b.plan, b.input, b.method, b.confidence, b.priority, b.max_cost, b.deadline,
      b.traceparent, b.request, b.idempotency_key, b.request_sha256) a;
  END LOOP;
END $$;
