import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http, ok } from "../../shared/host/declare.ts";
import { bodyDigest } from "../../shared/host/http-function.ts";
import { newId, publicId, type TaskId } from "../../shared/ids.ts";
import { DryRun, dryRun } from "../../shared/planning/dry-run.ts";
import { planSubmission } from "../../shared/planning/plan-submission.ts";
import { currentCatalogue, visibleIn } from "../../shared/registry/catalogue.ts";
import { commandDigest } from "../../shared/routing/route-cache.ts";
import { admitTask, notSubscribed, quotaExceeded } from "../../shared/tasks/admit-task.ts";
import { askCaller } from "../../shared/tasks/questions.ts";
import { findTask } from "../../shared/tasks/read-tasks.ts";
import { IdempotencyKey, MAX_SUBMISSION_BYTES, Submission, waitSecondsOf } from "../../shared/tasks/submission.ts";
import { type FullTaskRow, isTerminal, TaskSummary, TaskView, taskSummary, taskView } from "../../shared/tasks/task-view.ts";
import { waitForTask } from "../../shared/tasks/wait-for-task.ts";

/** Seconds that a submit to a plugin which calls itself fast waits by itself. */
const FAST_WAIT_SEC = 10;
const Hint = v.object({ command: v.string(), plugin: v.optional(v.string()), plan: v.optional(v.unknown()) });
const EXAMPLES = {
  routed: {
    summary: "The platform finds the plugin",
    value: { command: "Review this change for security problems", attachments: [{ name: "change.diff", media_type: "text/x-diff", content: "--- a/login.js\n+++ b/login.js\n…" }] },
  },
  named: {
    summary: "The caller names it, and limits the cost",
    value: {
      command: "Review this change",
      plugin: "code-review",
      attachments: [{ name: "change.diff", media_type: "text/x-diff", url: "https://example.com/change.diff" }],
      max_cost_usd: "0.25",
    },
  },
  planned: {
    summary: "The caller has a plan",
    value: {
      command: "Review this change and create a ticket for each issue",
      plan: [
        { id: "review", plugin: "code-review" },
        {
          id: "tickets",
          plugin: "ticket-processor",
          version: "^1.0.0",
          needs: ["review"],
          command: "Create a ticket for each finding",
          inputs: [{ from: "review", pointer: "/data/comments", as: "attachment", name: "comments.json" }],
          when: 'steps.review.status != "failed"',
        },
      ],
    },
  },
};

/** Plans, checks, reserves and inserts a task, rings for it, and waits for the result if the caller asks to. */
export default http({
  name: "task-submit",
  summary: "Submit a command; the platform finds the plugin, or the chain of plugins, that answers it.",
  route: "POST /v1/tasks",
  scope: "tasks:write",
  needs: ["db", "redis", "embedder", "upstream", "ring", "signals", "settings", "telemetry"],
  headers: {
    "Idempotency-Key": "1 to 255 printable characters; the same key with the same body within 24 hours gives the same task.",
    Prefer: "`wait=N` waits up to N seconds (at most 25) for the result.",
  },
  query: v.strictObject({
    dry_run: v.optional(v.pipe(v.picklist(["true", "false"], "must be true or false"), v.description("`true` plans, checks and estimates, and runs nothing."))),
  }),
  body: Submission,
  maxBodyBytes: MAX_SUBMISSION_BYTES,
  replies: { 200: v.union([TaskView, DryRun]), 202: TaskSummary },
  documented: {
    refusals: ["PLUGIN_NOT_SUBSCRIBED", "CHAINING_NOT_INCLUDED", "NOT_FOUND", "NO_MATCHING_PLUGIN", "CIRCULAR_DEPENDENCY", "VERSION_UNSATISFIED", "QUOTA_EXCEEDED"],
    replyHeaders: {
      Location: "Where the task can be read.",
      "Idempotency-Replayed": "`true` when the Idempotency-Key was known: this is the first submit's task.",
      "AAU-Sandbox-Remaining": "How many free executions of the plugin are left; only where you have not subscribed to it.",
    },
    requestExamples: EXAMPLES,
  },
  scale: { min: 1, max: 20, concurrency: 100 },
  memoryMib: 384,
  routeHint(body) {
    const parsed = v.safeParse(Hint, body);
    if (!parsed.success) return undefined;
    const { plugin, command, plan } = parsed.output;
    // A plan of the caller's own is not routed.
    if (plan !== undefined) return undefined;
    return plugin === undefined ? { command: commandDigest(command.trim()) } : { plugin };
  },

  async handle({ body, query, caller, request, db, redis, embedder, upstream, ring, signals, settings, telemetry }) {
    FAILPOINT: await failpoint("submit.after_validate");
    const startedAt = performance.now();
    const isDryRun = query.dry_run === "true";
    const upgradeUrl = settings.UPGRADE_URL;
    const idempotencyKey = readIdempotencyKey(request.header("idempotency-key"));
    const catalogue = await currentCatalogue(db, redis, request.admission?.registryGeneration ?? null, caller.tenantId);
    const thresholds = { chainThreshold: settings.CHAIN_THRESHOLD, confidenceMin: settings.CONFIDENCE_MIN };
    const router = { catalogue, embedder, upstream, redis, thresholds, visible: visibleIn(catalogue), telemetry };
    const routingSince = performance.now();
    const decided = await planSubmission(router, { submission: body, caller, cachedRoute: request.admission?.cachedRoute ?? null, upgradeUrl, isDryRun });
    const routingMs = performance.now() - routingSince;
    if (decided.kind === "planned") for (const name of new Set([decided.entry.name, ...decided.plan.map((step) => step.plugin)])) await request.admitToPlugin(name);
    if (isDryRun) return ok(await dryRun({ db, upstream, catalogue, upgradeUrl }, caller, body, decided));

    const id = newId("task");
    const idempotency = idempotencyKey === null ? null : { key: idempotencyKey, requestSha256: bodyDigest(request.bodyBytes) };
    const base = { id, submission: body, traceparent: request.traceparent, requestId: request.requestId, idempotency };
    if (decided.kind === "question") {
      const asked = await askCaller(db, caller, { ...base, route: decided });
      if (asked.outcome === "key_reused") throw keyReused();
      await Promise.all(asked.rings.map((webhook) => ring.webhook(webhook, request.traceparent)));
      request.note({ task_id: publicId("task", asked.taskId), routing_method: decided.method });
      return answerWith(await findTask(db, caller.tenantId, asked.taskId), headersOf(asked.taskId, asked.outcome === "replayed"));
    }

    const { entry, plan, method, confidence, embedding } = decided;
    const admitted = await admitTask(db, caller, { ...base, plugin: entry.name, plan, method, confidence, embedding });
    if (admitted.outcome === "key_reused") throw keyReused();
    if (admitted.outcome === "not_subscribed") throw notSubscribed(admitted.plugin, upgradeUrl);
    if (admitted.outcome === "quota_exceeded") throw quotaExceeded(admitted.plugin, admitted.limit, upgradeUrl);

    const { taskId } = admitted;
    const isReplay = admitted.outcome === "replayed";
    request.note({ task_id: publicId("task", taskId), plugin_name: entry.name, routing_method: method });
    const headers = { ...headersOf(taskId, isReplay), ...(admitted.triesLeft === null ? {} : { "aau-sandbox-remaining": String(admitted.triesLeft) }) };
    if (!isReplay) telemetry.taskAdmitted({ taskId, tenantId: caller.tenantId, plugin: entry.name, method, confidence, routingMs });
    const isFast = plan.length === 1 && entry.manifest.estimated_latency === "fast";
    const waitSec = waitSecondsOf(request.header("prefer")) ?? (isFast ? FAST_WAIT_SEC : 0);
    const rung = isReplay ? undefined : () => ring.task(entry.name, taskId, request.traceparent, admitted.backlog);
    if (waitSec > 0) {
      const waited = await waitForTask({ db, signals }, { tenantId: caller.tenantId, taskId, waitMs: waitSec * 1000, signals: [request.signal, request.draining] }, rung);
      const isDone = waited !== null && isTerminal(waited.status);
      if (!isReplay && !request.signal.aborted) telemetry.submitWaited({ ms: performance.now() - startedAt, isDone });
      if (isDone) return ok(taskView(waited), headers);
    } else await rung?.();
    FAILPOINT: await failpoint("submit.after_ring");
    if (isReplay) return answerWith(await findTask(db, caller.tenantId, taskId), headers);
    const task = { id: taskId, plugin_name: entry.name, status: "queued" as const, routing_method: method, routing_confidence: confidence };
    return accepted(taskSummary({ ...task, created_at: admitted.createdAt, started_at: null, completed_at: null }), headers);
  },
});

function answerWith(task: FullTaskRow | null, headers: Record<string, string>) {
  if (!task) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
  return isTerminal(task.status) ? ok(taskView(task), headers) : accepted(taskSummary(task), headers);
}

function headersOf(taskId: TaskId, isReplay: boolean): Record<string, string> {
  return { location: `/v1/tasks/${publicId("task", taskId)}`, ...(isReplay ? { "idempotency-replayed": "true" } : {}) };
}

const keyReused = () => new Refusal("INVALID_INPUT", { message: "This Idempotency-Key was used for another body within the last 24 hours." });

function readIdempotencyKey(header: string | undefined): string | null {
  if (header === undefined) return null;
  if (!v.is(IdempotencyKey, header)) throw new Refusal("INVALID_INPUT", { message: "Idempotency-Key must be 1 to 255 printable ASCII characters." });
  return header;
}
