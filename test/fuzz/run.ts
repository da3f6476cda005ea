/**
 * The fuzz battery: requests of every operation, one after the other over real HTTP, against functions in process, PostgreSQL and Redis. Each answer is held
 * to the invariants; of the requests that were refused, every fifty are held to having written no row. The same seed draws the same requests, but for ids and
 * times. Each round has tenants of its own, since requests use up what is there to be asked for.
 */
import fc from "fast-check";
import pg from "pg";
import { Client } from "undici";
import { keeper } from "../batteries/plugins.ts";
import { countRows } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { type Answer, findHalves, problemOf, SLOW_MS } from "./invariants.ts";
import { plant } from "./planted.ts";
import { asCurl, type FuzzRequest, OPERATIONS, requestsOf } from "./requests.ts";

export interface FuzzOptions {
  requests: number;
  seed: number;
  /** A server with the migrated template; the test run's own unless said. */
  postgresUrl?: string;
  say?(line: string): void;
}

export interface FuzzReport {
  /** Requests that were drawn; what shrinking and looking again have sent is not among them. */
  sent: number;
  byStatus: Map<number, number>;
  /** Good answers by operation. */
  answered: Map<string, number>;
  refusedHeld: number;
  seconds: number;
  failures: string[];
}

const ROUND = 2_500;
const BATCH = 50;
const MAX_FAILURES = 5;
/** An event stream of a task that nobody runs never ends. */
const STREAM_MS = 30;

export async function runFuzz({ requests, seed, postgresUrl, say = () => {} }: FuzzOptions): Promise<FuzzReport> {
  const logged: string[] = [];
  const platform = await startTestPlatform({
    plugins: [echo, keeper],
    withBridge: false,
    postgresUrl,
    // With these lines, whatever names no plugin is a question.
    env: { CHAIN_THRESHOLD: "1", CONFIDENCE_MIN: "0", LOG_LEVEL: "error" },
    onLogLine: (line) => logged.push(line),
  });
  const admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
  const report: FuzzReport = { sent: 0, byStatus: new Map(), answered: new Map(), refusedHeld: 0, seconds: 0, failures: [] };
  const startedAt = performance.now();
  try {
    for (let round = 0; report.sent < requests && report.failures.length < MAX_FAILURES; round++) {
      await runRound(platform, admin, seed + round, Math.min(ROUND, requests - report.sent), report);
      say(`${String(report.sent).padStart(6)} requests, ${Math.round((performance.now() - startedAt) / 1000)} s, ${report.failures.length} failures`);
    }
    report.failures.push(...logged.slice(0, 3).map((line) => `an error in the log: ${line.slice(0, 2_000)}`));
    report.seconds = (performance.now() - startedAt) / 1000;
  } finally {
    await admin.end();
    await platform.stop();
  }
  return report;
}

async function runRound(platform: TestPlatform, admin: pg.Client, seed: number, count: number, report: FuzzReport): Promise<void> {
  const world = await plant(platform);
  const client = new Client(platform.publicUrl, { pipelining: 1 });
  const fail = (request: FuzzRequest, problem: string) => report.failures.push(`seed ${seed}, ${request.operation}: ${problem}\n  ${asCurl(request, world.key).slice(0, 5_000)}`);
  let refused: FuzzRequest[] = [];
  let isShrinking = false;
  let hasWritten = false;
  let before = await countRows(admin);

  async function holdRefused(): Promise<void> {
    const suspects = refused;
    const mayDiffer = hasWritten;
    [refused, hasWritten] = [[], false];
    let after = await countRows(admin);
    if (!isEqual(before, after)) {
      // Those that were let in have written, as they should; the others are asked again, without them.
      if (mayDiffer) after = await lookAgain(client, admin, suspects, after, fail);
      else for (const request of suspects) await holdOne(client, admin, request, fail);
    }
    report.refusedHeld += suspects.length;
    before = after;
  }

  const outcome = await fc.check(
    fc.asyncProperty(requestsOf(world), async (request) => {
      const answer = await send(client, request);
      const problem = problemOf(request, answer);
      if (!isShrinking) {
        report.sent++;
        report.byStatus.set(answer.status, (report.byStatus.get(answer.status) ?? 0) + 1);
        if (answer.status < 400) report.answered.set(request.operation, (report.answered.get(request.operation) ?? 0) + 1);
        if (answer.status >= 400) refused.push(request);
        else hasWritten ||= request.method !== "GET" && request.method !== "HEAD";
        if (!problem && report.sent % BATCH === 0) await holdRefused();
      }
      if (problem) {
        isShrinking = true;
        throw new Error(problem);
      }
    }),
    { numRuns: count, seed },
  );
  if (outcome.counterexample) fail(outcome.counterexample[0], outcome.errorInstance instanceof Error ? outcome.errorInstance.message : String(outcome.errorInstance));
  else await holdRefused();
  for (const half of await findHalves(admin)) report.failures.push(`seed ${seed}: ${half}`);
  await client.destroy();
}

const isEqual = (one: Record<string, number>, other: Record<string, number>): boolean => Object.entries(one).every(([table, count]) => other[table] === count);
const mayWrite = ({ method }: FuzzRequest) => method !== "GET" && method !== "HEAD";

/** Asks again what was refused beside requests that were not; what is let in this time says nothing. */
async function lookAgain(
  client: Client,
  admin: pg.Client,
  suspects: readonly FuzzRequest[],
  before: Record<string, number>,
  fail: (request: FuzzRequest, problem: string) => void,
) {
  let isQuiet = true;
  for (const request of suspects.filter(mayWrite)) isQuiet &&= (await send(client, request)).status >= 400;
  const after = await countRows(admin);
  if (isQuiet && !isEqual(before, after)) for (const request of suspects) await holdOne(client, admin, request, fail);
  return countRows(admin);
}

async function holdOne(client: Client, admin: pg.Client, request: FuzzRequest, fail: (request: FuzzRequest, problem: string) => void): Promise<void> {
  const before = await countRows(admin);
  const { status } = await send(client, request);
  const after = await countRows(admin);
  const grown = Object.entries(after).filter(([table, count]) => before[table] !== count);
  if (status >= 400 && grown.length > 0)
    fail(request, `was refused with ${status}, and changed ${grown.map(([table, count]) => `${table} from ${before[table]} to ${count}`).join(", ")}`);
}

async function send(client: Client, { method, target, headers, body }: FuzzRequest): Promise<Answer> {
  const startedAt = performance.now();
  const limit = AbortSignal.timeout(SLOW_MS + 5_000);
  const answer = await client.request({ method: method as "GET", path: target, headers: headers.flat(), body, signal: limit }).catch((error: unknown) => {
    throw new Error(`no answer after ${Math.round(performance.now() - startedAt)} ms: ${error}`);
  });
  const isStream = String(answer.headers["content-type"]).startsWith("text/event-stream");
  const text = isStream ? await readStart(answer.body) : await answer.body.text();
  return { status: answer.statusCode, headers: answer.headers, text, ms: performance.now() - startedAt };
}

async function readStart(body: AsyncIterable<Uint8Array> & { destroy(): unknown; on(event: "error", listener: () => void): unknown }): Promise<string> {
  body.on("error", () => {});
  const first = (async () => {
    for await (const chunk of body) return Buffer.from(chunk).toString();
    return "";
  })().catch(() => "");
  const text = await Promise.race([first, new Promise<string>((resolve) => setTimeout(resolve, STREAM_MS, ""))]);
  body.destroy();
  return text;
}

/** What was seen, for people. */
export function linesOf({ sent, byStatus, answered, refusedHeld, seconds, failures }: FuzzReport): string[] {
  const never = OPERATIONS.map(([name]) => name).filter((name) => !answered.has(name));
  return [
    `${sent} requests in ${seconds.toFixed(1)} s, ${Math.round(sent / seconds)} a second`,
    [...byStatus]
      .sort(([one], [other]) => one - other)
      .map(([status, count]) => `${status}: ${count}`)
      .join(", "),
    `${refusedHeld} refused requests held to having written no row`,
    never.length === 0 ? `each of ${OPERATIONS.length} operations was answered well at least once` : `never answered well: ${never.join(", ")}`,
    ...failures,
    failures.length === 0 ? "No answer broke a rule." : `${failures.length} failures.`,
  ];
}
