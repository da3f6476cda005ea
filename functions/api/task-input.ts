import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http, ok } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { planOfOffer } from "../../shared/planning/offers.ts";
import { currentCatalogue, visibleIn } from "../../shared/registry/catalogue.ts";
import { matchAnswer } from "../../shared/routing/match-answer.ts";
import { findVisible, type Scorer } from "../../shared/routing/score-texts.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";
import { notSubscribed, quotaExceeded } from "../../shared/tasks/admit-task.ts";
import { type Answered, answerTask, commandOf } from "../../shared/tasks/questions.ts";
import { findTask } from "../../shared/tasks/read-tasks.ts";
import { waitSecondsOf } from "../../shared/tasks/submission.ts";
import { type InputRequest, isTerminal, TaskSummary, TaskView, taskSummary, taskView } from "../../shared/tasks/task-view.ts";
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
        v.description("A candidate's name, its number, or a few words that fit only one of them; `both` or `each` for the plan."),
      ),
    ),
    candidate: v.optional(
      v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(10), v.description("A candidate's number, from 1; also for the one without a `plugin`, the plan of all parts.")),
    ),
  }),
  v.metadata({ oneOf: [{ required: ["plugin"] }, { required: ["answer"] }, { required: ["candidate"] }] }),
  v.check((input) => Object.values(input).filter((value) => value !== undefined).length === 1, "give exactly one of plugin, answer and candidate"),
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
    refusals: ["CONFLICT", "INPUT_TIMEOUT", "PLUGIN_NOT_SUBSCRIBED", "CHAINING_NOT_INCLUDED", "VERSION_UNSATISFIED", "CIRCULAR_DEPENDENCY", "QUOTA_EXCEEDED"],
    replyHeaders: { Location: "Where the task can be read." },
    requestExamples: {
      named: { summary: "One of the candidates", value: { plugin: "code-review" } },
      said: { summary: "In words", value: { answer: "the second one" } },
      planned: { summary: "By its number", value: { candidate: 1 } },
    },
  },
  scale: { min: 0, max: 10, concurrency: 80 },
  memoryMib: 384,

  async handle({ params, body, caller, request, db, redis, embedder, ring, signals, settings, telemetry }) {
    const { task_id: taskId } = params;
    const asked = await findTask(db, caller.tenantId, taskId);
    if (!asked) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    if (asked.status !== "pending" && asked.routing_method !== "clarified") throw notPending(asked.status);
    const candidates = asked.input_request?.candidates ?? [];

    const catalogue = await currentCatalogue(db, redis, request.admission?.registryGeneration ?? null, caller.tenantId);
    const thresholds = { chainThreshold: settings.CHAIN_THRESHOLD, confidenceMin: settings.CONFIDENCE_MIN };
    const scorer = { catalogue, embedder, thresholds, visible: visibleIn(catalogue), telemetry };
    const place = await placeOf(scorer, body, candidates);
    const offer = place === null ? undefined : candidates[place];
    if (place === null || !offer || (offer.plugin !== null && !findVisible(scorer, offer.plugin)))
      throw new Refusal("INVALID_INPUT", { message: "The answer must be one of the candidates, by name or number.", details: { candidates } });
    const command = offer.parts ? await commandOf(db, caller.tenantId, taskId) : "";
    const { plugin, plan } = planOfOffer(scorer, offer, command, { tier: caller.tier, upgradeUrl: settings.UPGRADE_URL });
    for (const name of new Set(plan.map((step) => step.plugin))) await request.admitToPlugin(name);

    FAILPOINT: await failpoint("input.before_answer");
    const answered = await answerTask(db, caller.tenantId, taskId, { place, plugin, plan });
    const isNew = answered?.outcome === "answered";
    if (!isNew && answered?.outcome !== "answered_before") throw refusalOf(answered, plugin, settings.UPGRADE_URL);
    FAILPOINT: await failpoint("input.after_commit");
    request.note({ task_id: publicId("task", taskId), plugin_name: plugin, routing_method: "clarified" });
    if (isNew) telemetry.taskAdmitted({ taskId, tenantId: caller.tenantId, plugin, method: "clarified", confidence: 1, routingMs: null });

    // The trace that began with the submit goes on.
    const begin = isNew ? () => ring.task(plugin, taskId, answered.traceparent ?? request.traceparent, 1) : undefined;
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

/** Where among the candidates the one stands that the caller means. */
async function placeOf(
  scorer: Scorer,
  { plugin, candidate, answer }: v.InferOutput<typeof Input>,
  candidates: v.InferOutput<typeof InputRequest>["candidates"],
): Promise<number | null> {
  const offered = candidates.map((one) => one.plugin);
  if (candidate !== undefined) return candidate <= offered.length ? candidate - 1 : null;
  if (plugin === undefined) return matchAnswer(scorer, answer ?? "", offered, candidates.find(({ parts }) => parts)?.parts);
  return offered.includes(plugin) ? offered.indexOf(plugin) : null;
}

const notPending = (status: string) => new Refusal("CONFLICT", { message: `The task does not wait for an answer: it is ${status}.`, details: { status } });

function refusalOf(answered: Answered | null, plugin: string, upgradeUrl: string): Refusal {
  switch (answered?.outcome) {
    case undefined:
      return new Refusal("NOT_FOUND", { message: "There is no such task." });
    case "too_late":
      return new Refusal("INPUT_TIMEOUT");
    case "not_subscribed":
      return notSubscribed(answered.plugin ?? plugin, upgradeUrl);
    case "quota_exceeded":
      return quotaExceeded(answered.plugin ?? plugin, answered.quota_limit ?? 0, upgradeUrl);
    default:
      return new Refusal("CONFLICT", { message: "The task has already been answered otherwise, or ended." });
  }
}
