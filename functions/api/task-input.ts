import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http, ok } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { currentCatalogue } from "../../shared/registry/catalogue.ts";
import { matchAnswer } from "../../shared/routing/match-answer.ts";
import { findVisible } from "../../shared/routing/score-texts.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";
import { type Answered, answerTask } from "../../shared/tasks/questions.ts";
import { findTask } from "../../shared/tasks/read-tasks.ts";
import { waitSecondsOf } from "../../shared/tasks/submission.ts";
import { isTerminal, TaskSummary, TaskView, taskSummary, taskView } from "../../shared/tasks/task-view.ts";
import { waitForTask } from "../../shared/tasks/wait-for-task.ts";

const Input = v.pipe(
  v.strictObject({
    plugin: v.optional(v.pipe(PluginName, v.description("One of the candidates."))),
    answer: v.optional(
      v.pipe(
        v.string(),
        v.trim(),
        v.minLength(1, "must not be empty"),
        v.maxLength(500, "must have at most 500 characters"),
        v.description("A candidate's name, its number, or a few words that fit only one of them."),
      ),
    ),
  }),
  v.metadata({ oneOf: [{ required: ["plugin"] }, { required: ["answer"] }] }),
  v.check(({ plugin, answer }) => (plugin === undefined) !== (answer === undefined), "give exactly one of plugin and answer"),
);

/** Answers the question of a pending task; from then on it is a task like any other. The same answer again finds the same task. */
export default http({
  name: "task-input",
  summary: "Answer a task's question: name a candidate, or say in words which one.",
  route: "POST /v1/tasks/{task_id}/input",
  scope: "tasks:write",
  needs: ["db", "redis", "embedder", "ring", "signals", "settings", "telemetry"],
  params: v.object({ task_id: idParam("task") }),
  headers: { Prefer: "`wait=N` waits up to N seconds (at most 25) for the result." },
  body: Input,
  replies: { 200: TaskView, 202: TaskSummary },
  documented: {
    refusals: ["CONFLICT", "INPUT_TIMEOUT", "PLUGIN_NOT_SUBSCRIBED", "QUOTA_EXCEEDED"],
    replyHeaders: { Location: "Where the task can be read." },
    requestExamples: { named: { summary: "One of the candidates", value: { plugin: "code-review" } }, said: { summary: "In words", value: { answer: "the second one" } } },
  },
  scale: { min: 0, max: 10, concurrency: 80 },
  memoryMib: 384,

  async handle({ params, body, caller, request, db, redis, embedder, ring, signals, settings, telemetry }) {
    const { task_id: taskId } = params;
    const asked = await findTask(db, caller.tenantId, taskId);
    if (!asked) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    if (asked.status !== "pending" && asked.routing_method !== "clarified") throw notPending(asked.status);
    const candidates = asked.input_request?.candidates ?? [];
    const offered = candidates.map(({ plugin }) => plugin);

    const catalogue = await currentCatalogue(db, redis, request.admission?.registryGeneration ?? null);
    const thresholds = { chainThreshold: settings.CHAIN_THRESHOLD, confidenceMin: settings.CONFIDENCE_MIN };
    const scorer = { catalogue, embedder, thresholds, visible: null, telemetry };
    const chosen = body.plugin ?? (await matchAnswer(scorer, body.answer ?? "", offered));
    const entry = chosen !== null && offered.includes(chosen) ? findVisible(scorer, chosen) : undefined;
    if (!entry) throw new Refusal("INVALID_INPUT", { message: "The answer must be one of the candidates, by name or number.", details: { candidates } });
    // An answer reserves one step; running this plugin without those that it builds on would be wrong without a word.
    if (entry.manifest.dependencies.length > 0)
      throw new Refusal("CONFLICT", {
        message: `${entry.name} takes several steps: cancel this task and submit the command with \`plugin\`: "${entry.name}".`,
        details: { plugin: entry.name },
      });
    await request.admitToPlugin(entry.name);

    FAILPOINT: await failpoint("input.before_answer");
    const answered = await answerTask(db, caller.tenantId, taskId, { plugin: entry.name, version: entry.version });
    const isNew = answered?.outcome === "answered";
    if (!isNew && answered?.outcome !== "answered_before") throw refusalOf(answered, entry.name, settings.UPGRADE_URL);
    FAILPOINT: await failpoint("input.after_commit");
    request.note({ task_id: publicId("task", taskId), plugin_name: entry.name, routing_method: "clarified" });
    if (isNew) telemetry.taskAdmitted({ taskId, tenantId: caller.tenantId, plugin: entry.name, method: "clarified", confidence: 1, routingMs: null });

    // The trace that began with the submit goes on.
    const begin = isNew ? () => ring.task(entry.name, taskId, answered.traceparent ?? request.traceparent) : undefined;
    const waitMs = (waitSecondsOf(request.header("prefer")) ?? 0) * 1000;
    if (waitMs === 0) await begin?.();
    const task =
      waitMs > 0
        ? await waitForTask({ db, signals }, { tenantId: caller.tenantId, taskId, waitMs, signals: [request.signal, request.draining] }, begin)
        : await findTask(db, caller.tenantId, taskId);
    if (!task) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    const headers = { location: `/v1/tasks/${publicId("task", taskId)}` };
    return isTerminal(task.status) ? ok(taskView(task), headers) : accepted(taskSummary(task), headers);
  },
});

const notPending = (status: string) => new Refusal("CONFLICT", { message: `The task does not wait for an answer: it is ${status}.`, details: { status } });

function refusalOf(answered: Answered | null, plugin: string, upgradeUrl: string): Refusal {
  switch (answered?.outcome) {
    case undefined:
      return new Refusal("NOT_FOUND", { message: "There is no such task." });
    case "too_late":
      return new Refusal("INPUT_TIMEOUT");
    case "not_subscribed":
      return new Refusal("PLUGIN_NOT_SUBSCRIBED", { message: `Your plan does not include the ${plugin} plugin.`, details: { plugin, upgrade_url: upgradeUrl } });
    case "quota_exceeded":
      return new Refusal("QUOTA_EXCEEDED", {
        message: `The ${answered.quota_limit} executions of ${plugin} in this month are used up.`,
        details: { plugin, quota_limit: answered.quota_limit, upgrade_url: upgradeUrl },
      });
    default:
      return new Refusal("CONFLICT", { message: "The task has already been answered otherwise, or ended." });
  }
}
