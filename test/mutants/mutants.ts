/**
 * Safeguards, each with the text that takes it out and the one test that has to see it. A function of the database stands in several migrations; the text is
 * taken out of the newest.
 */

export interface Mutant {
  name: string;
  /** What is no longer so. */
  what: string;
  file: string;
  /** Stands in the file exactly once. */
  from: string;
  to: string;
  test: { file: string /** Suites and test, joined by spaces. */; name: string };
}

const deliver = "test/webhooks/deliver.test.ts";

export const MUTANTS: readonly Mutant[] = [
  {
    name: "fence-settle",
    what: "whoever once held a task's lease may settle it",
    file: "migrations/0022_webhook_deliveries.sql",
    from: "JOIN tasks t ON t.id = b.id AND t.tenant_id = b.tenant AND t.lease_token = b.lease",
    to: "JOIN tasks t ON t.id = b.id AND t.tenant_id = b.tenant",
    test: { file: "test/execution/fence.test.ts", name: "an executor whose task another one has claimed settles nothing" },
  },
  {
    name: "fence-renew",
    what: "whoever once held a task's lease may renew it",
    file: "migrations/0002_task_transitions.sql",
    from: "WHERE id = p_id AND lease_token = p_lease AND status = 'running'\n    RETURNING event_seq",
    to: "WHERE id = p_id AND status = 'running'\n    RETURNING event_seq",
    test: { file: "test/execution/fence.test.ts", name: "an executor whose task another one has claimed renews nothing, and adds no progress" },
  },
  {
    name: "idempotency-key",
    what: "an idempotency key may be written twice",
    file: "migrations/0001_foundation.sql",
    from: "  created_at timestamptz NOT NULL DEFAULT now(),\n  PRIMARY KEY (tenant_id, environment, route, key)\n",
    to: "  created_at timestamptz NOT NULL DEFAULT now()\n",
    test: { file: "test/tasks/submit.test.ts", name: "Idempotency-Key makes one task of submits that have all looked for the key before the first has written it" },
  },
  {
    name: "quota",
    what: "an admission does not look at the quota",
    file: "migrations/0027_plans_over_time.sql",
    from: ") n WHERE n.quota_limit IS NULL OR n.overage_enabled OR n.total <= n.quota_limit",
    to: ") n",
    test: { file: "test/tasks/submit.test.ts", name: "quota admits exactly as many as are left, however many come at once" },
  },
  {
    name: "quota-of-plans",
    what: "a plan of several steps is reserved whatever is left",
    file: "migrations/0027_plans_over_time.sql",
    from: "\n      WHERE p_limit IS NULL OR p_overage OR u.used + u.reserved + p_count <= p_limit",
    to: "",
    test: { file: "test/tasks/plans.test.ts", name: "a plan of the caller's own reserves all or nothing, and names the plugin whose quota is used up" },
  },
  {
    name: "row-level-security",
    what: "the policy of the first tables shows every tenant's rows",
    file: "migrations/0001_foundation.sql",
    from: "'CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK",
    to: "'CREATE POLICY own_tenant ON %I TO aau_app USING (true) WITH CHECK",
    test: { file: "test/access/tenant-isolation.test.ts", name: "row-level security shows nothing without a tenant, and nothing of another" },
  },
  {
    name: "key-generation",
    what: "a cached key counts whatever was changed since it was cached",
    file: "shared/access/key-cache.ts",
    from: "if entry.x or redis.call('GET', 'authgen:' .. entry.t) == entry.g then return entry end\n  return nil",
    to: "return entry",
    test: { file: "test/access/api-keys.test.ts", name: "api-key-revoke ends a cached key with the very next request, and can be repeated" },
  },
  {
    name: "grace-cap",
    what: "a rotated key lives through its grace, also past its own end",
    file: "shared/access/api-keys.ts",
    from: "least(expires_at, now() + ${graceSec} * interval '1 second')",
    to: "now() + ${graceSec} * interval '1 second'",
    test: { file: "test/access/api-keys.test.ts", name: "api-key-rotate never makes a key live longer than it would have" },
  },
  {
    name: "pinned-address",
    what: "a name is judged by one look-up and connected to by another",
    file: "shared/sdk/src/guarded-connect.ts",
    from: "      const [first] = addresses;\n",
    to: "      return resolve(hostname, { ...options, all: true }, (failed, others) => (options.all ? done(failed, others) : done(failed, others[0]?.address ?? '', others[0]?.family)));\n      const [first] = addresses;\n",
    test: { file: "test/webhooks/ssrf.test.ts", name: "a connection is not made for a name that is rebound: public when it is first asked for, private after" },
  },
  {
    name: "webhook-signature",
    what: "the signature says nothing of when it was made",
    file: "shared/webhooks/sign-webhook.ts",
    from: "`${id}.${timestamp}.${body}`",
    to: "`${id}.${body}`",
    test: { file: deliver, name: "an endpoint is told of a task that ended: once, signed in both ways, with what GET shows" },
  },
  {
    name: "webhook-in-flight",
    what: "an endpoint is sent as many requests at once as there are senders",
    file: "migrations/0022_webhook_deliveries.sql",
    from: "  IF (SELECT count(*) FROM webhook_deliveries f WHERE f.webhook_id = h.id AND f.lease_until > now()) >= (CASE WHEN h.resume_at IS NULL THEN p_at_once ELSE 1 END) THEN RETURN; END IF;\n",
    to: "",
    test: { file: deliver, name: "an endpoint is given no more than two at a time by all senders together, however many wake up for it" },
  },
  {
    name: "webhook-fence",
    what: "whoever once held a delivery's lease may put down how it ended",
    file: "migrations/0029_webhook_endings.sql",
    from: "WHERE x.id = p_delivery AND x.webhook_id = p_webhook AND x.lease_token = p_lease AND x.status = 'pending'",
    to: "WHERE x.id = p_delivery AND x.webhook_id = p_webhook AND x.status = 'pending'",
    test: { file: deliver, name: "an endpoint has each attempt put down by the sender that holds it, and by none whose lease was taken over" },
  },
  {
    name: "audit-hash",
    what: "the hash of an audit entry leaves out who did it",
    file: "migrations/0014_audit_log.sql",
    from: "    p.actor, p.key_ref, p.action",
    to: "    p.key_ref, p.action",
    test: { file: "test/access/tenant-command.test.ts", name: "npm run audit:verify finds whatever was changed, removed, moved or added" },
  },
  {
    name: "single-probe",
    what: "everybody may probe a circuit whose time is over",
    file: "shared/execution/circuit-breaker.ts",
    from: "if taken > 0 then return {'half_open', 0, math.min(taken, tonumber(ARGV[3]))} end\n",
    to: "",
    test: { file: "test/execution/failure-circuit.test.ts", name: "a circuit lets one caller probe when its time is over, whoever asks at the same moment" },
  },
  {
    name: "tombstone",
    what: "nothing outside of PostgreSQL remembers who was erased",
    file: "shared/privacy/tombstones.ts",
    from: "  await storage.put(`${PREFIX}",
    to: "  if (storage === null) await storage.put(`${PREFIX}",
    test: { file: "test/privacy/erasure.test.ts", name: "an erasure is done again when a backup from before comes back" },
  },
  {
    name: "text-to-store",
    what: "text with NUL is taken for PostgreSQL to refuse",
    file: "shared/host/request-body.ts",
    from: '  if (text.includes("\\0")) throw new Refusal',
    to: '  if (text === "\\0\\0") throw new Refusal',
    test: {
      file: "test/fuzz/fuzz.test.ts",
      name: "1,500 requests, drawn from the document and damaged, break no rule of any answer and leave no half of anything behind",
    },
  },
  {
    name: "invoiced-once",
    what: "usage that is on an invoice stays to be invoiced",
    file: "migrations/0027_plans_over_time.sql",
    from: "    UPDATE usage_days SET invoice_id = p_id WHERE id = ANY (v_rows);\n",
    to: "",
    test: {
      file: "test/metering/invoices.test.ts",
      name: "closing a month puts usage that is settled after its month was closed on the next invoice, with its month, and on no other",
    },
  },
];

/** The file's text with the safeguard taken out. */
export function mutate({ name, file, from, to }: Mutant, text: string): string {
  const found = text.split(from).length - 1;
  if (found !== 1) throw new Error(`${name}: its text stands in ${file} ${found} times, not once. Has the safeguard changed?`);
  return text.replace(from, () => to);
}
