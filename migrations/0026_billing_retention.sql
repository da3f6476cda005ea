-- Why: what a tenant was billed is kept for seven years and then goes, an invoice with its lines and the usage that it stands for; what is on no
-- invoice, as the usage of test keys, goes by its day. The tenant's own role still deletes none of it.

GRANT DELETE ON usage_days, invoice_lines, invoices TO aau_platform;

-- A batch at a time; how much went.
CREATE FUNCTION purge_invoices(p_before timestamptz, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_ids uuid[]; v_days int;
BEGIN
  PERFORM enter_platform();
  v_ids := ARRAY(SELECT i.id FROM invoices i WHERE i.closed_at < p_before ORDER BY i.closed_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
  DELETE FROM usage_days d WHERE d.invoice_id = ANY (v_ids);
  DELETE FROM invoice_lines l WHERE l.invoice_id = ANY (v_ids);
  DELETE FROM invoices i WHERE i.id = ANY (v_ids);
  DELETE FROM usage_days d WHERE d.id IN (
    SELECT u.id FROM usage_days u WHERE u.invoice_id IS NULL AND u.day < (p_before AT TIME ZONE 'UTC')::date LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_days = ROW_COUNT;
  RETURN cardinality(v_ids) + v_days;
END $$;
