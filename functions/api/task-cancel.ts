import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { cancelTask } from "../../shared/tasks/read-tasks.ts";

/** Cancels a queued task at once and asks a running one to stop. The answer says what holds: the first terminal write wins. */
export default http({
  name: "task-cancel",
  summary: "Cancel a task: at once while it is queued, within one node while it runs.",
  route: "DELETE /v1/tasks/{task_id}",
  scope: "tasks:write",
  needs: ["db", "signals", "ring"],
  params: v.object({ task_id: idParam("task") }),
  replies: { 202: v.strictObject({ task_id: v.string(), status: v.picklist(["cancelling", "cancelled"]) }) },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 10, concurrency: 80 },

  async handle({ params, caller, request, db, signals, ring }) {
    const cancelled = await cancelTask(db, caller.tenantId, params.task_id);
    if (!cancelled) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    if (cancelled.was_over && cancelled.status !== "cancelled")
      throw new Refusal("CONFLICT", { message: `The task has already ended: ${cancelled.status}.`, details: { status: cancelled.status } });
    FAILPOINT: await failpoint("cancel.after_flag");
    if (cancelled.status === "cancelling") await signals.cancelRequested(params.task_id);
    else if (!cancelled.was_over) await signals.taskEnded(params.task_id);
    await Promise.all(cancelled.rings.map((id) => ring.webhook(id, request.traceparent)));
    FAILPOINT: await failpoint("cancel.after_signal");
    return accepted({ task_id: publicId("task", params.task_id), status: cancelled.status });
  },
});
