import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http, ok } from "../../shared/host/declare.ts";
import { bodyDigest } from "../../shared/host/http-function.ts";
import { newId, publicId } from "../../shared/ids.ts";
import { currentCatalogue } from "../../shared/registry/catalogue.ts";
import { refuseUnrouted } from "../../shared/routing/refuse-unrouted.ts";
import { commandDigest } from "../../shared/routing/route-cache.ts";
import { routeCommand } from "../../shared/routing/route-command.ts";
import { admitTask } from "../../shared/tasks/admit-task.ts";
import { findTask } from "../../shared/tasks/read-tasks.ts";
import { IdempotencyKey, MAX_SUBMISSION_BYTES, Submission, waitSecondsOf } from "../../shared/tasks/submission.ts";
import { isTerminal, TaskSummary, TaskView, taskSummary, taskView } from "../../shared/tasks/task-view.ts";
import { waitForTask } from "../../shared/tasks/wait-for-task.ts";

/** Seconds that a submit to a plugin which calls itself fast waits by itself. */
const FAST_WAIT_SEC = 10;
const Hint = v.object({ command: v.string(), plugin: v.optional(v.string()) });
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
};

/** Routes, checks, reserves and inserts a task, rings for it, and waits for the result if the caller asks to. */
export default http({
  name: "task-submit",
  summary: "Submit a command; the platform finds the plugin that answers it.",
  route: "POST /v1/tasks",
  scope: "tasks:write",
  needs: ["db", "redis", "embedder", "ring", "signals", "settings", "telemetry"],
  headers: {
    "Idempotency-Key": "1 to 255 printable characters; the same key with the same body within 24 hours gives the same task.",
    Prefer: "`wait=N` waits up to N seconds (at most 25) for the result.",
  },
  body: Submission,
  maxBodyBytes: MAX_SUBMISSION_BYTES,
  replies: { 200: TaskView, 202: TaskSummary },
  documented: {
    refusals: ["PLUGIN_NOT_SUBSCRIBED", "NOT_FOUND", "NO_MATCHING_PLUGIN", "QUOTA_EXCEEDED"],
    replyHeaders: { Location: "Where the task can be read.", "Idempotency-Replayed": "`true` when the Idempotency-Key was known: this is the first submit's task." },
    requestExamples: EXAMPLES,
  },
  scale: { min: 1, max: 20, concurrency: 100 },
  memoryMib: 384,
  routeHint(body) {
    const parsed = v.safeParse(Hint, body);
    if (!parsed.success) return undefined;
    const { plugin, command } = parsed.output;
    return plugin === undefined ? { command: commandDigest(command.trim()) } : { plugin };
  },

  async handle({ body, caller, request, db, redis, embedder, ring, signals, settings, telemetry }) {
    FAILPOINT: await failpoint("submit.after_validate");
    const idempotencyKey = readIdempotencyKey(request.header("idempotency-key"));
    const catalogue = await currentCatalogue(db, redis, request.admission?.registryGeneration ?? null);
    const thresholds = { chainThreshold: settings.CHAIN_THRESHOLD, confidenceMin: settings.CONFIDENCE_MIN };
    const route = await routeCommand(
      { catalogue, embedder, redis, thresholds },
      { tenantId: caller.tenantId, command: body.command, plugin: body.plugin, cachedRoute: request.admission?.cachedRoute ?? null },
    );
    if (route.kind !== "plugin") throw refuseUnrouted(route);
    const { entry, method, confidence } = route;
    await request.admitToPlugin(entry.name);

    const id = newId("task");
    const idempotency = idempotencyKey === null ? null : { key: idempotencyKey, requestSha256: bodyDigest(request.bodyBytes) };
    const admitted = await admitTask(db, caller, {
      id,
      submission: body,
      plugin: entry.name,
      version: entry.version,
      method,
      confidence,
      traceparent: request.traceparent,
      requestId: request.requestId,
      idempotency,
    });
    if (admitted.outcome === "key_reused") throw new Refusal("INVALID_INPUT", { message: "This Idempotency-Key was used for another body within the last 24 hours." });
    if (admitted.outcome === "not_subscribed") {
      throw new Refusal("PLUGIN_NOT_SUBSCRIBED", {
        message: `Your plan does not include the ${entry.name} plugin.`,
        details: { plugin: entry.name, upgrade_url: settings.UPGRADE_URL },
      });
    }
    if (admitted.outcome === "quota_exceeded") {
      throw new Refusal("QUOTA_EXCEEDED", {
        message: `The ${admitted.limit} executions of ${entry.name} in this month are used up.`,
        details: { plugin: entry.name, quota_limit: admitted.limit, upgrade_url: settings.UPGRADE_URL },
      });
    }

    const { taskId } = admitted;
    request.note({ task_id: publicId("task", taskId), plugin_name: entry.name, routing_method: method });
    const headers: Record<string, string> = { location: `/v1/tasks/${publicId("task", taskId)}` };
    if (admitted.outcome === "replayed") headers["idempotency-replayed"] = "true";
    else telemetry.taskAdmitted({ taskId, tenantId: caller.tenantId, plugin: entry.name, method, confidence });
    const waitSec = waitSecondsOf(request.header("prefer")) ?? (entry.manifest.estimated_latency === "fast" ? FAST_WAIT_SEC : 0);
    const rung = admitted.outcome === "admitted" ? () => ring.task(entry.name, taskId, request.traceparent) : undefined;
    if (waitSec > 0) {
      const task = await waitForTask({ db, signals }, { tenantId: caller.tenantId, taskId, waitMs: waitSec * 1000, signals: [request.signal, request.draining] }, rung);
      if (task && isTerminal(task.status)) return ok(taskView(task), headers);
    } else await rung?.();
    FAILPOINT: await failpoint("submit.after_ring");
    if (admitted.outcome === "replayed") {
      const task = await findTask(db, caller.tenantId, taskId);
      if (task) return isTerminal(task.status) ? ok(taskView(task), headers) : accepted(taskSummary(task), headers);
    }
    return accepted(
      taskSummary({
        id: taskId,
        plugin_name: entry.name,
        status: "queued",
        routing_method: method,
        routing_confidence: confidence,
        created_at: admitted.createdAt,
        started_at: null,
        completed_at: null,
      }),
      headers,
    );
  },
});

function readIdempotencyKey(header: string | undefined): string | null {
  if (header === undefined) return null;
  if (!v.is(IdempotencyKey, header)) throw new Refusal("INVALID_INPUT", { message: "Idempotency-Key must be 1 to 255 printable ASCII characters." });
  return header;
}
