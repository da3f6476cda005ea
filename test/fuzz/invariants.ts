/** What holds of every answer, whatever was asked, and of the database afterwards. */
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import type pg from "pg";
import { ERRORS, type ErrorCode } from "../../shared/errors.ts";
import type { ApiReply } from "../../shared/host/openapi.ts";
import { DOCUMENT } from "../batteries/declared.ts";
import { type FuzzRequest, OPERATIONS } from "./requests.ts";

export interface Answer {
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  text: string;
  ms: number;
}

/** Nothing that is asked here waits for anything. */
export const SLOW_MS = 10_000;

const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema({ $id: "document", components: DOCUMENT.components });
const validators = new Map<string, ValidateFunction>();
const repliesOf = new Map<string, Record<string, ApiReply>>(OPERATIONS.map(([name, { responses }]) => [name, responses]));

function validatorOf(name: string, schema: unknown): ValidateFunction {
  const known = validators.get(name);
  if (known) return known;
  const made = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/components/', '"document#/components/')));
  validators.set(name, made);
  return made;
}

/** What is wrong with an answer; null when nothing is. */
export function problemOf(request: FuzzRequest, answer: Answer): string | null {
  const { status, text, ms } = answer;
  const said = `${status} ${text.slice(0, 300)}`;
  if (ms > SLOW_MS) return `answered after ${Math.round(ms)} ms`;
  if (status >= 500) return `a fault of the platform's own: ${said}`;
  if (typeof answer.headers["x-request-id"] !== "string") return `no X-Request-Id: ${said}`;
  const wrong = status >= 400 && request.method !== "HEAD" ? wrongRefusal(answer) : null;
  if (wrong) return `${wrong}: ${said}`;
  return request.isAtHome ? undocumented(request, answer) : null;
}

function wrongRefusal({ status, headers, text }: Answer): string | null {
  if (headers["content-type"] !== "application/json; charset=utf-8") return `a refusal as ${headers["content-type"]}`;
  const { error, ...rest } = Object(readJson(text));
  if (typeof error !== "object" || error === null || Object.keys(rest).length > 0) return "a refusal in another format";
  if (!Object.hasOwn(ERRORS, error.code)) return "a refusal with a code that nobody knows";
  const known = ERRORS[error.code as ErrorCode];
  if (known.status !== status || known.retryable !== error.retryable) return "a refusal that contradicts the table of errors";
  if (error.request_id !== headers["x-request-id"]) return "a refusal with another request's id";
  return typeof error.message === "string" && error.message.length > 5 ? null : "a refusal without a message";
}

function undocumented({ operation }: FuzzRequest, { status, headers, text }: Answer): string | null {
  const reply = repliesOf.get(operation)?.[status];
  if (!reply) return `the document has no ${status}: ${text.slice(0, 300)}`;
  const code = status >= 400 ? Object(readJson(text)).error.code : null;
  if (code && !reply["x-error-codes"]?.includes(code)) return `the document has no ${code}`;
  const { schema } = reply.content?.["application/json"] ?? {};
  if (!schema || !String(headers["content-type"]).startsWith("application/json")) return null;
  const validate = validatorOf(`${operation} ${status}`, schema);
  return validate(readJson(text)) ? null : `not as the document's schema says: ${ajv.errorsText(validate.errors)}: ${text.slice(0, 300)}`;
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Rows that only half of a request would have left, past what foreign keys hold already; each statement finds none. */
const HALVES: Readonly<Record<string, string>> = {
  "an idempotency key without its task": "SELECT 1 FROM idempotency_keys i WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = i.task_id AND t.tenant_id = i.tenant_id)",
  "a task whose events are not those that it counts": "SELECT 1 FROM tasks t WHERE t.event_seq <> (SELECT coalesce(max(e.seq), 0) FROM task_events e WHERE e.task_id = t.id)",
  "an event without a task": "SELECT 1 FROM task_events e WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = e.task_id)",
  "a task that is queued and holds no reservation": "SELECT 1 FROM tasks t WHERE t.status = 'queued' AND t.reserved_period IS NULL",
  "reservations that are not those of the open tasks": `SELECT 1 FROM (SELECT sum(reserved) AS held FROM usage_periods) u,
    (SELECT coalesce(sum(jsonb_array_length(t.plan)), 0) AS open FROM tasks t WHERE t.reserved_period IS NOT NULL) t WHERE u.held <> t.open`,
  "a delivery without its endpoint": "SELECT 1 FROM webhook_deliveries d WHERE NOT EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id AND w.tenant_id = d.tenant_id)",
  "a key whose user is gone":
    "SELECT 1 FROM api_keys k WHERE k.user_id IS NOT NULL AND k.revoked_at IS NULL AND NOT EXISTS (SELECT FROM users u WHERE u.id = k.user_id AND u.tenant_id = k.tenant_id)",
  "two subscriptions to one plugin": "SELECT 1 FROM subscriptions WHERE ended_at IS NULL GROUP BY tenant_id, plugin_id HAVING count(*) > 1",
  "a tenant without an owner": "SELECT 1 FROM tenants t WHERE NOT EXISTS (SELECT FROM users u WHERE u.tenant_id = t.id AND u.role = 'owner')",
  "an audit log that does not verify": "SELECT 1 FROM tenants t CROSS JOIN LATERAL verify_audit_log(t.id, 0, '', 100000) a WHERE a.problem IS NOT NULL",
};

export async function findHalves(admin: pg.Client): Promise<string[]> {
  const found: string[] = [];
  for (const [what, statement] of Object.entries(HALVES)) {
    const { rowCount } = await admin.query(statement);
    if (rowCount) found.push(`${what}: ${rowCount} times`);
  }
  return found;
}
