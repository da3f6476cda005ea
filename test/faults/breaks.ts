/**
 * Takes one safeguard out, to show that the auditor sees what it was good for: out of a function of the migrated database, out of the code
 * that is bundled, or out of the server's settings. Each invariant has one that turns it red.
 */
import { readFile } from "node:fs/promises";
import { sep } from "node:path";
import type { Plugin } from "esbuild";
import pg from "pg";
import type { Invariant } from "./invariants.ts";

interface Safeguard {
  /** What is taken out. */
  what: string;
  /** What has to turn red; others may too. */
  turnsRed: Invariant;
  /** The point or scenario that shows it. */
  shows: string;
  /** Functions of the database, each without these parts of its text. */
  functions?: Readonly<Record<string, readonly (string | RegExp)[]>>;
  statements?: readonly string[];
  /** Source files, each without these parts. */
  files?: Readonly<Record<string, readonly string[]>>;
  postgresFlags?: readonly string[];
}

const MISSING_GROUP = "if (isMissingGroup(error)) await ensureGroup(redis, stream).catch(() => {});";

const SAFEGUARDS = {
  wake: {
    what: "nobody rings again for what was not heard",
    turnsRed: "I1",
    shows: "F-02",
    files: { "functions/cron/wake.ts": ["if (!(await ring.isReady())) "] },
  },
  durable: {
    what: "PostgreSQL answers before its log is on the disk: calls that the provider counted are forgotten",
    turnsRed: "I6",
    shows: "F-10",
    postgresFlags: ["-c", "synchronous_commit=off", "-c", "wal_writer_delay=10000", "-c", "wal_writer_flush_after=1GB", "-c", "bgwriter_lru_maxpages=0"],
  },
  unique: {
    what: "idempotency_keys has no primary key: two submits at once with one key may both be admitted",
    turnsRed: "I2",
    shows: "twins",
    statements: ["ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey"],
  },
  fence: {
    what: "settle_tasks and renew_lease no longer ask for the lease: a zombie may write",
    turnsRed: "I3",
    shows: "zombie",
    functions: { settle_tasks: [/ AND (t\.)?lease_token = (b\.|p_)lease/], renew_lease: [/ AND (t\.)?lease_token = (b\.|p_)lease/] },
  },
  terminal: {
    what: "claim_tasks takes whatever is rung, over or not",
    turnsRed: "I4",
    shows: "F-18",
    functions: { claim_tasks: ["WHERE CASE q.status WHEN 'queued' THEN true WHEN 'running' THEN q.lease_until < now() END "] },
  },
  meter: {
    what: "the gateway estimates every call instead of reading what the provider counted",
    turnsRed: "I5",
    shows: "s7",
    files: { "shared/metering/settlement.ts": ["readUsage(rawUsage) ?? "] },
  },
  listed: {
    what: "nobody closes the calls of a gateway that died",
    turnsRed: "I6",
    shows: "x1",
    functions: {
      finish_tasks: [/UPDATE llm_calls c SET state = 'unknown'[\s\S]*?;/],
      claim_tasks: [/UPDATE llm_calls SET state = 'unknown'[\s\S]*?;/],
      open_llm_call: [/UPDATE llm_calls SET state = 'unknown'[\s\S]*?;/],
    },
  },
  replay: {
    what: "llm_calls_replay and the look-up that uses it are gone: a stored answer is bought again",
    turnsRed: "I7",
    shows: "llm.after_settle",
    functions: { begin_llm_call: [/SELECT \* INTO c FROM llm_calls[\s\S]*?END IF;/] },
    statements: ["DROP INDEX llm_calls_replay"],
  },
  reservation: {
    what: "the end of a task does not give its reservation back",
    turnsRed: "I8",
    shows: "s7",
    functions: { finish_tasks: ["reserved = u.reserved - h.reserved, "] },
  },
  sender: {
    what: "what a sender was about to tell is never taken from it when it dies",
    turnsRed: "I9",
    shows: "webhook.before_post",
    functions: { claim_webhook_delivery: [" OR q.lease_until < now()"] },
  },
  tenant: {
    what: "a task is found by its id alone, whoever asks",
    turnsRed: "I11",
    shows: "I11",
    functions: { read_tasks: ["t.tenant_id = p_tenants[i] AND "] },
    statements: ["ALTER TABLE tasks DISABLE ROW LEVEL SECURITY"],
    files: { "shared/tasks/read-tasks.ts": [" && row.tenant_id === tenantId"] },
  },
  tombstone: {
    what: "nobody notes outside of PostgreSQL who was erased, so a backup brings them back",
    turnsRed: "I12",
    shows: "F-33",
    files: { "shared/privacy/erase-user.ts": ["await putTombstone(storage, claim);"] },
  },
  fingerprint: {
    what: "create_tickets files without looking, and no index keeps an issue to one ticket",
    turnsRed: "I10",
    shows: "tickets.after_create",
    functions: { create_tickets: [/SELECT \* INTO v_known FROM tickets[\s\S]*?END IF;/] },
    statements: ["DROP INDEX one_live_ticket_per_fingerprint"],
  },
  group: {
    what: "the bridge does not make its consumer group again",
    turnsRed: "I13",
    shows: "F-03",
    files: { "shared/host/bridge/stream-consumer.ts": [`${MISSING_GROUP}\n        else `, MISSING_GROUP] },
  },
  acknowledge: {
    what: "the bridge acknowledges nothing",
    turnsRed: "I14",
    shows: "s7",
    files: { "shared/host/bridge/stream-consumer.ts": ["await acknowledged(entry.id);"] },
  },
  answer: {
    what: "nobody compares the task of an answer with the one that was asked",
    turnsRed: "D",
    shows: "F-21",
    files: {
      "shared/execution/call-plugin.ts": [
        'if (output.task_id !== publicId("task", claim.taskId)) throw new PluginFailure("INTERNAL", "The plugin answered for another task.", "plugin", false);',
      ],
    },
  },
} as const satisfies Record<string, Safeguard>;

export type Break = keyof typeof SAFEGUARDS;
export const BREAKS: Readonly<Record<Break, Safeguard>> = SAFEGUARDS;

export const isBreak = (name: string): name is Break => name in SAFEGUARDS;

export const listBreaks = (): string =>
  Object.entries(BREAKS)
    .map(([name, { what, turnsRed }]) => `  ${name.padEnd(12)} ${turnsRed.padEnd(4)} ${what}`)
    .join("\n");

function cut(what: string, whole: string, parts: readonly (string | RegExp)[]): string {
  return parts.reduce<string>((text, part) => {
    const left = text.replace(part, "");
    if (left === text) throw new Error(`${what} has no such safeguard: ${part}. Has it changed?`);
    return left;
  }, whole);
}

export async function breakDatabase(url: string, name: Break): Promise<void> {
  const { functions = {}, statements = [] } = BREAKS[name];
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const [fn, parts] of Object.entries(functions)) {
      const { rows } = await client.query<{ text: string }>("SELECT pg_get_functiondef($1::regproc) AS text", [fn]);
      await client.query(cut(fn, rows[0]?.text ?? "", parts));
    }
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** For the bundler. */
export function breakCode(name: Break): Plugin {
  const files = Object.entries(BREAKS[name].files ?? {});
  return {
    name: "break",
    setup({ onLoad }) {
      onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const found = files.find(([file]) => path.split(sep).join("/").endsWith(`/${file}`));
        return found && { contents: cut(found[0], await readFile(path, "utf8"), found[1]), loader: "ts" };
      });
    },
  };
}
