/**
 * The doors to PostgreSQL. A function that holds a `TenantDb` can only act for one tenant at a time, and row-level security
 * holds it to that; a `PlatformDb` serves the jobs that work for all tenants. Both share one pool.
 */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Kysely, PostgresDialect, sql, type Transaction } from "kysely";
import type { Pool, PoolConfig } from "pg";
import { Refusal } from "../errors.ts";
import type { TenantId } from "../ids.ts";
import { fullJitterMs } from "../retry-delay.ts";
import type { Tables } from "./tables.ts";

export type Tx = Transaction<Tables>;

interface Calls {
  /**
   * Runs one of the SQL functions of migrations/, which enter their role themselves, or reads the registry, which belongs to no
   * tenant: one round trip, one transaction. `text` is constant; values go as parameters.
   */
  call<Row extends object>(text: string, values: readonly unknown[]): Promise<Row[]>;
}

export interface TenantDb extends Calls {
  /** Statements for one tenant in one transaction. Keep it short and never wait for anything but the database inside. */
  tenant<T>(tenantId: TenantId, work: (tx: Tx) => Promise<T>): Promise<T>;
}

export interface PlatformDb extends Calls {
  /** Statements for all tenants in one transaction. */
  platform<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
}

export interface Database extends TenantDb, PlatformDb {
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** `?prepare=off` says that sessions are shared (PGlite's socket, some poolers), so that no statement may be prepared by name. */
  url: string;
  driver: "pg" | "neon";
  poolSize: number;
  /** For a free connection, opening one included; 3 seconds unless said. */
  waitMs?: number;
  /** Neon's WebSocket proxy and TLS switches, for local tests of that driver. */
  neon?: (config: typeof import("@neondatabase/serverless")["neonConfig"]) => void;
}

/** Times of one statement and of waiting for a connection. A statement on the way of a task takes milliseconds. */
const STATEMENT_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 3_000;

export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const pool = await openPool(options);
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  pool.on("error", () => {});
  if (new URL(options.url).searchParams.get("prepare") === "off") unprepared.add(pool);
  const kysely = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });

  const transaction = <T>(enter: ReturnType<typeof sql>, work: (tx: Tx) => Promise<T>) =>
    guard(() =>
      kysely.transaction().execute(async (tx) => {
        await enter.execute(tx);
        return work(tx);
      }),
    );

  return {
    call: <Row extends object>(text: string, values: readonly unknown[]) => guard(async () => (await prepared<Row>(pool, text, values)).rows),
    tenant: (tenantId, work) => transaction(sql`SELECT set_config('role', 'aau_app', true), set_config('app.tenant', ${tenantId}, true)`, work),
    platform: (work) => transaction(sql`SELECT set_config('role', 'aau_platform', true)`, work),
    close: () => pool.end(),
  };
}

async function openPool({ url, driver, poolSize, waitMs = CONNECT_TIMEOUT_MS, neon }: DatabaseOptions): Promise<Pool> {
  const settings: PoolConfig = {
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: waitMs,
    idleTimeoutMillis: 30_000,
    query_timeout: STATEMENT_TIMEOUT_MS,
    keepAlive: true,
  };
  if (driver === "pg") {
    const { default: pg } = await import("pg");
    return new pg.Pool(settings);
  }
  const { Pool: NeonPool, neonConfig } = await import("@neondatabase/serverless");
  const { default: WebSocket } = await import("ws");
  neonConfig.webSocketConstructor = WebSocket;
  neon?.(neonConfig);
  // Neon's Pool has pg's interface but its own copy of the types.
  return new NeonPool(settings) as unknown as Pool;
}

/** Duplicate and unknown prepared statement. */
const MIXED_SESSIONS = new Set(["42P05", "26000"]);
const unprepared = new WeakSet<Pool>();
const names = new Map<string, string>();

/** The texts are constant, so there are as many names as there are statements in the code. */
function nameOf(text: string): string {
  const known = names.get(text);
  if (known) return known;
  const name = `aau_${createHash("sha256").update(text).digest("hex").slice(0, 24)}`;
  names.set(text, name);
  return name;
}

/**
 * Prepared once a connection, which saves the server a quarter of its work. Behind PGlite's socket and some poolers, sessions are
 * shared or change: their URL says so with `prepare=off`. Where it does not, the statement fails before it runs, is sent again without
 * a name, and so are all that follow.
 */
async function prepared<Row extends object>(pool: Pool, text: string, values: readonly unknown[]): Promise<{ rows: Row[] }> {
  if (!unprepared.has(pool)) {
    try {
      return await pool.query<Row & object>({ name: nameOf(text), text, values: [...values] });
    } catch (error) {
      if (!MIXED_SESSIONS.has(sqlState(error) ?? "")) throw error;
      unprepared.add(pool);
    }
  }
  return await pool.query<Row & object>(text, [...values]);
}

/** SQLSTATE classes that say "not now": connection trouble, no resources, an operator at work, a lost race. */
const TRANSIENT = /^(08|53|57|40)/;

/** The SQLSTATE of a database error, else null. */
export function sqlState(error: unknown): string | null {
  if (typeof error !== "object" || error === null || !("code" in error)) return null;
  return typeof error.code === "string" && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : null;
}

/** A trigger's word: the data of this user is being erased, and nothing begins for them any more. Their keys are revoked. */
const SUBJECT_ERASED = "AAU03";

/** Serialization failure and deadlock: PostgreSQL rolled the transaction back, so the whole of it may run again. */
const LOST_RACE = new Set(["40001", "40P01"]);
const MAX_TRIES = 4;
const RETRY = { baseMs: 20, capMs: 200 };

/** A lost connection or a time-out leaves it open whether a write took place; the caller's key or the row's id decides. */
async function guard<T>(work: () => Promise<T>, tries = 1): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    const state = sqlState(error);
    if (state !== null && LOST_RACE.has(state) && tries < MAX_TRIES) {
      await delay(fullJitterMs(tries, RETRY));
      return guard(work, tries + 1);
    }
    if (state === SUBJECT_ERASED) throw new Refusal("AUTH_INVALID", { cause: error });
    if (state !== null && !TRANSIENT.test(state)) throw error;
    if (state === null && !isConnectionTrouble(error)) throw error;
    throw new Refusal("SERVICE_UNAVAILABLE", { retryAfterSec: 1, cause: error });
  }
}

function isConnectionTrouble(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if ("code" in error && typeof error.code === "string" && /^(ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_|EHOSTUNREACH)/.test(error.code)) return true;
  return /timeout|Connection terminated|connection.*closed|Client has encountered a connection error|not queryable/i.test(error.message);
}
