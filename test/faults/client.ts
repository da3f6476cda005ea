/** The caller of a fault run. It writes down every call before it is made and what came of it, and asks again with the same key when it cannot know. */
import { appendFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import plugin, { FILER } from "./plugin.ts";
import type { Random } from "./random.ts";
import type { Deserved, JournalEntry } from "./records.ts";
import { marksIn } from "./records-around.ts";

export interface Job {
  marker: string;
  apiKey: string;
  /** Looks how it goes, where the submitting key may be gone by then. */
  readKey?: string;
  conversation?: string;
  /** Keeps the plugin busy for so long. */
  slowMs?: number;
  /** Two submits at once with one Idempotency-Key. */
  isTwin?: boolean;
  cancelAfterMs?: number;
  deadlineMs: number;
  /** A submit that has to be refused. */
  refusal?: "unknown plugin" | "empty command";
  /** What the plugin and the provider are asked to do: directives in square brackets. */
  directives?: string;
  /** Another plugin than the probe; null leaves the choice to the router. */
  plugin?: string | null;
  /** What the probe finds goes on to ticket-processor. */
  isPlan?: boolean;
  /** How it has to end; the auditor looks. */
  deserves?: Deserved;
}

export interface Client {
  /** Resolves when the caller knows the end of the task, or that there is none, or has given up. */
  run(job: Job): Promise<void>;
  /** Reads a task of another tenant, and writes down what the answer showed. The status of the answer; null: none. */
  peek(job: Job, taskId: string): Promise<number | null>;
  /** From now on nothing is asked again. */
  giveUp(): void;
}

/** What the probe says that it can do, so that a router finds it. */
const COMMAND = plugin.manifest.capabilities[0] ?? "go";
const PLAN = [
  { id: "ask", plugin: plugin.name },
  { id: "file", plugin: FILER, needs: ["ask"], command: "Create a ticket for each issue" },
];
const REQUEST_TIMEOUT_MS = 20_000;
const TERMINAL = new Set(["success", "partial", "failed", "cancelled"]);
const Answer = v.object({ task_id: v.string(), status: v.string() });
type Call = { marks: string[] } & (
  | { outcome: "ok"; status: number; body: v.InferOutput<typeof Answer> }
  | { outcome: "fail"; status: number }
  | { outcome: "info"; status: number | null }
);

export interface ClientOptions {
  url: string;
  journalFile: string;
  random: Random;
  /** How long after its deadline the end of a task is waited for. */
  patienceMs: number;
  /** Whose key it is. */
  tenantOf(apiKey: string): string | undefined;
}

export function openClient({ url, journalFile, random, patienceMs, tenantOf }: ClientOptions): Client {
  const over = new AbortController();
  const note = (entry: Omit<JournalEntry, "at">) => appendFileSync(journalFile, `${JSON.stringify({ at: Date.now(), ...entry })}\n`);

  async function call(job: Job, method: string, path: string, body?: string): Promise<Call> {
    let marks: string[] = [];
    try {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${(method === "POST" ? null : job.readKey) ?? job.apiKey}`,
          ...(body === undefined ? {} : { "content-type": "application/json", "idempotency-key": job.marker }),
        },
        body,
        signal: AbortSignal.any([over.signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]),
      });
      const text = await answer.text();
      marks = marksIn(text);
      if (answer.status >= 500) return { outcome: "info", status: answer.status, marks };
      if (answer.status >= 400) return { outcome: "fail", status: answer.status, marks };
      return { outcome: "ok", status: answer.status, body: v.parse(Answer, JSON.parse(text)), marks };
    } catch {
      return { outcome: "info", status: null, marks };
    }
  }

  /** Asks until the answer is one. Null: refused, or given up. */
  async function insist(job: Job, op: "submit" | "cancel", method: string, path: string, body?: string): Promise<string | null> {
    while (!over.signal.aborted) {
      note({ op, marker: job.marker, outcome: "invoke", deserves: job.deserves, tenant: tenantOf(job.apiKey) });
      const result = await call(job, method, path, body);
      const answer = result.outcome === "ok" ? result.body : null;
      note({
        op,
        marker: job.marker,
        outcome: result.outcome,
        status: result.status,
        task_id: answer?.task_id,
        seen: answer?.status,
        tenant: tenantOf(job.apiKey),
        marks: result.marks,
      });
      if (result.outcome !== "info") return answer?.task_id ?? null;
      await delay(random.between(100, 500));
    }
    return null;
  }

  async function watch(job: Job, taskId: string): Promise<void> {
    let last = "";
    const until = performance.now() + job.deadlineMs + patienceMs;
    while (!over.signal.aborted && performance.now() < until) {
      const result = await call(job, "GET", `/v1/tasks/${taskId}?wait=10`);
      if (result.outcome === "ok") {
        const { status } = result.body;
        if (status !== last)
          note({ op: "read", marker: job.marker, outcome: "ok", status: result.status, task_id: taskId, seen: status, tenant: tenantOf(job.apiKey), marks: result.marks });
        last = status;
        if (TERMINAL.has(status)) return;
      } else if (result.outcome === "fail") return note({ op: "read", marker: job.marker, outcome: "fail", status: result.status, task_id: taskId });
      else await delay(random.between(100, 400));
    }
  }

  return {
    giveUp: () => over.abort(),
    async peek(job, taskId) {
      const { outcome, status, marks } = await call(job, "GET", `/v1/tasks/${taskId}`);
      note({ op: "peek", marker: job.marker, outcome, status, tenant: tenantOf(job.apiKey), marks });
      return status;
    },
    async run(job) {
      const body = JSON.stringify({
        command: job.refusal === "empty command" ? " " : `[mark ${job.marker}]${job.slowMs ? ` [slow ${job.slowMs}]` : ""}${job.directives ? ` ${job.directives}` : ""} ${COMMAND}`,
        ...(job.isPlan && { plan: PLAN }),
        plugin: job.isPlan ? undefined : job.refusal === "unknown plugin" ? "nobody-knows-this" : job.plugin === null ? undefined : (job.plugin ?? plugin.name),
        conversation_id: job.conversation,
        deadline: new Date(Date.now() + job.deadlineMs).toISOString(),
      });
      const submits = Array.from({ length: job.isTwin ? 2 : 1 }, () => insist(job, "submit", "POST", "/v1/tasks", body));
      const [taskId] = (await Promise.all(submits)).filter((id) => id !== null);
      if (taskId === undefined) return;
      const cancelled = job.cancelAfterMs === undefined ? null : delay(job.cancelAfterMs).then(() => insist(job, "cancel", "DELETE", `/v1/tasks/${taskId}`));
      await Promise.all([cancelled, watch(job, taskId)]);
      // A second look: what has ended stays as it is.
      if (!over.signal.aborted) await watch(job, taskId);
    },
  };
}
