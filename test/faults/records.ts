/**
 * The independent records that the auditor compares: the client's journal, PostgreSQL, the provider's ledger, and the listing of the object
 * store. Everything is read as data; nothing here asks the platform's own code.
 */
import { existsSync, readFileSync } from "node:fs";
import pg from "pg";
import * as v from "valibot";
import { type Around, Heard, readBooks, readLogs, readObjects } from "./records-around.ts";

/** How a task has to end, as whoever injected its fault sees it. */
const Deserved = v.object({
  status: v.array(v.string()),
  /** Of the error; any when it is not given. */
  code: v.optional(v.array(v.string())),
  cause: v.optional(v.array(v.string())),
  method: v.optional(v.array(v.string())),
  warning: v.optional(v.string()),
});
export type Deserved = v.InferOutput<typeof Deserved>;

const JournalEntry = v.object({
  at: v.number(),
  /** `peek`: somebody reads what is another tenant's. */
  op: v.picklist(["submit", "cancel", "read", "peek"]),
  /** Names the job; also its Idempotency-Key, and part of its command. */
  marker: v.string(),
  /** `info`: the caller cannot know. `fail`: refused for good. */
  outcome: v.picklist(["invoke", "ok", "fail", "info"]),
  status: v.optional(v.nullable(v.number())),
  task_id: v.optional(v.string()),
  deserves: v.optional(Deserved),
  /** The task's status that the answer told. */
  seen: v.optional(v.string()),
  /** Whose key asked; a UUID. */
  tenant: v.optional(v.string()),
  /** The marks that the answer showed. */
  marks: v.optional(v.array(v.string())),
});
export type JournalEntry = v.InferOutput<typeof JournalEntry>;

const count = v.pipe(v.union([v.string(), v.number()]), v.transform(Number), v.safeInteger());

const Task = v.object({
  id: v.string(),
  tenant_id: v.string(),
  plugin_name: v.nullable(v.string()),
  plan: v.array(v.object({ id: v.string(), plugin: v.string() })),
  environment: v.string(),
  marker: v.nullable(v.string()),
  status: v.string(),
  attempt: v.number(),
  holds_reservation: v.boolean(),
  deadline: v.date(),
  created_at: v.date(),
  completed_at: v.nullable(v.date()),
  tokens_used: count,
  cost: count,
  result: v.nullable(v.string()),
  error_code: v.nullable(v.string()),
  error_cause: v.nullable(v.string()),
  routing_method: v.string(),
  warnings: v.array(v.string()),
  /** Nobody can say any more what was asked, or who asked. */
  erased: v.boolean(),
});
const Step = v.object({ task_id: v.string(), step: v.string(), attempt: v.number(), status: v.string() });
const TaskEvent = v.object({ task_id: v.string(), seq: v.number(), type: v.string(), status: v.nullable(v.string()) });
const Key = v.object({ tenant_id: v.string(), key: v.string(), task_id: v.string() });
const Call = v.object({
  id: v.string(),
  task_id: v.string(),
  step: v.string(),
  call_no: v.number(),
  attempt: v.number(),
  state: v.string(),
  question: v.string(),
  input_tokens: v.number(),
  output_tokens: v.number(),
  cache_write_tokens: v.number(),
  cache_read_tokens: v.number(),
  cost: count,
  ceiling: count,
  provider_request_id: v.nullable(v.string()),
  /** The provider counted nothing that can be read. */
  is_estimated: v.boolean(),
});
const Usage = v.object({
  id: v.string(),
  task_id: v.string(),
  step: v.string(),
  attempt: v.number(),
  billable: v.boolean(),
  input_tokens: count,
  output_tokens: count,
  cache_tokens: count,
  cost: count,
});
const Period = v.object({
  tenant_id: v.string(),
  plugin_name: v.string(),
  environment: v.string(),
  month: v.string(),
  used: v.number(),
  reserved: v.number(),
  quota_limit: v.nullable(v.number()),
  overage_enabled: v.nullable(v.boolean()),
});
/** In the platform's own tracker: the tool of ticket-processor. */
const TicketEntry = v.object({ tenant_id: v.string(), number: v.number(), fingerprint: v.string(), task_id: v.string(), marker: v.nullable(v.string()) });
const Artifact = v.object({ task_id: v.string(), name: v.string(), storage_key: v.string(), size_bytes: count });

const Effect = v.object({ key: v.string(), marker: v.string() });

const LedgerEntry = v.object({
  call: v.number(),
  requestId: v.string(),
  /** The task that asked, as the provider read it in the prompt. */
  marker: v.string(),
  status: v.nullable(v.number()),
  usage: v.nullable(
    v.object({ input_tokens: v.number(), output_tokens: v.number(), cache_creation_input_tokens: v.optional(v.number(), 0), cache_read_input_tokens: v.optional(v.number(), 0) }),
  ),
  completed: v.boolean(),
  closedEarly: v.boolean(),
});

export type TaskRecord = v.InferOutput<typeof Task>;
export type CallRecord = v.InferOutput<typeof Call>;
export type LedgerRecord = v.InferOutput<typeof LedgerEntry>;

export interface Records {
  journal: JournalEntry[];
  tasks: TaskRecord[];
  steps: v.InferOutput<typeof Step>[];
  events: v.InferOutput<typeof TaskEvent>[];
  keys: v.InferOutput<typeof Key>[];
  calls: CallRecord[];
  usage: v.InferOutput<typeof Usage>[];
  periods: v.InferOutput<typeof Period>[];
  artifacts: v.InferOutput<typeof Artifact>[];
  tickets: v.InferOutput<typeof TicketEntry>[];
  ledger: LedgerRecord[];
  /** Sizes in bytes by storage key. */
  objects: ReadonlyMap<string, number>;
  /** What reached the tool outside. */
  effects: v.InferOutput<typeof Effect>[];
  /** Null when it was not measured. */
  pace: Pace | null;
  levels: Level[];
  around: Around;
}

/** 95th percentile from submit to done. */
export interface Pace {
  beforeMs: number;
  afterMs: number;
  /** Null: it has not come back within the time that I13 gives. */
  recoveredAfterSec: number | null;
}

/** Something that must not grow. */
export interface Level {
  what: string;
  before: number;
  after: number;
  limit: number;
}

const QUERIES = {
  tasks: `SELECT id, tenant_id, plugin_name, environment,
      (SELECT coalesce(jsonb_agg(jsonb_build_object('id', s->>'id', 'plugin', s->>'plugin')), '[]') FROM jsonb_array_elements(plan) s) AS plan, substring(input->>'command' FROM '\\[mark ([\\w-]+)\\]') AS marker, status, attempt,
      reserved_period IS NOT NULL AS holds_reservation, deadline, created_at, completed_at, tokens_used, cost_micro_usd AS cost, result->>'result' AS result, error->>'code' AS error_code,
      error->>'cause' AS error_cause, routing_method, ARRAY(SELECT w->>'code' FROM jsonb_array_elements(coalesce(result->'warnings', '[]')) w) AS warnings, input IS NULL AS erased
    FROM tasks ORDER BY id`,
  steps: "SELECT task_id, step, attempt, status FROM task_steps",
  events: "SELECT task_id, seq, type, data->>'status' AS status FROM task_events ORDER BY task_id, seq",
  keys: "SELECT tenant_id, key, task_id FROM idempotency_keys",
  calls: `SELECT id, task_id, step, call_no, attempt, state, request_sha256 || '/' || occurrence AS question, input_tokens, output_tokens, cache_write_tokens, cache_read_tokens,
      cost_micro_usd AS cost, ceiling_micro_usd AS ceiling, provider_request_id,
      coalesce((usage->>'estimated')::boolean, false) AS is_estimated FROM llm_calls`,
  usage: "SELECT id, task_id, step, attempt, billable, input_tokens, output_tokens, cache_tokens, cost_micro_usd AS cost FROM execution_events",
  periods: `SELECT u.tenant_id, u.plugin_name, u.environment, to_char(u.period_start, 'YYYY-MM') AS month, u.used, u.reserved, s.quota_limit, s.overage_enabled
    FROM usage_periods u LEFT JOIN plugins p ON p.name = u.plugin_name LEFT JOIN subscriptions s ON s.tenant_id = u.tenant_id AND s.plugin_id = p.id AND s.ended_at IS NULL`,
  artifacts: "SELECT task_id, name, storage_key, size_bytes FROM artifacts",
  tickets: "SELECT tenant_id, number, fingerprint, source_task AS task_id, substring(title FROM '\\[mark ([\\w-]+)\\]') AS marker FROM tickets",
} as const;

export interface Sources {
  journalFile: string;
  databaseUrl: string;
  ledgerFile: string;
  /** Which task asked which call, written by the provider's script. */
  markersFile: string;
  /** What the tool outside was asked to do, a line each. */
  effectsFile: string;
  /** What receivers of webhooks heard, a line each. */
  heardFile: string;
  logFolder: string;
  s3: { endpoint: string; bucket: string };
}

/** What only the run itself knows. */
export type OfRun = Pick<Records, "pace" | "levels"> & Pick<Around, "endpoints" | "erased" | "facts">;

export async function readRecords(sources: Sources, { pace, levels, ...ofRun }: OfRun): Promise<Records> {
  const [{ books, ...database }, { sizes, marked }] = await Promise.all([readDatabase(sources.databaseUrl), readObjects(sources.s3)]);
  const prompts = v.parse(v.array(v.object({ call: v.number(), marks: v.array(v.string()) })), readLines(sources.markersFile));
  return {
    ...database,
    pace,
    levels,
    objects: sizes,
    journal: v.parse(v.array(JournalEntry), readLines(sources.journalFile)),
    ledger: readLedger(sources),
    effects: v.parse(v.array(Effect), readLines(sources.effectsFile)),
    around: { ...books, ...ofRun, prompts, objects: marked, heard: v.parse(v.array(Heard), readLines(sources.heardFile)), logs: readLogs(sources.logFolder) },
  };
}

async function readDatabase(url: string) {
  const client = new pg.Client({ connectionString: url, query_timeout: 30_000 });
  await client.connect();
  try {
    // One snapshot for all tables.
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const read = async <S extends v.GenericSchema>(schema: S, text: string) => v.parse(v.array(schema), (await client.query(text)).rows);
    return {
      tasks: await read(Task, QUERIES.tasks),
      steps: await read(Step, QUERIES.steps),
      events: await read(TaskEvent, QUERIES.events),
      keys: await read(Key, QUERIES.keys),
      calls: await read(Call, QUERIES.calls),
      usage: await read(Usage, QUERIES.usage),
      periods: await read(Period, QUERIES.periods),
      artifacts: await read(Artifact, QUERIES.artifacts),
      tickets: await read(TicketEntry, QUERIES.tickets),
      books: await readBooks(client),
    };
  } finally {
    await client.end();
  }
}

/** The last line of a call says how it went; the lines before it were written before any byte left. */
function readLedger({ ledgerFile, markersFile }: Sources): LedgerRecord[] {
  const markers = new Map(v.parse(v.array(v.object({ call: v.number(), marker: v.string() })), readLines(markersFile)).map(({ call, marker }) => [call, marker]));
  const calls = new Map<number, LedgerRecord>();
  for (const line of v.parse(v.array(v.looseObject({ call: v.number() })), readLines(ledgerFile))) {
    calls.set(line.call, v.parse(LedgerEntry, { ...line, marker: markers.get(line.call) ?? "" }));
  }
  return [...calls.values()];
}

function readLines(file: string): unknown[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line): unknown => JSON.parse(line));
}
