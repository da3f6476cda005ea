import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { findTask } from "../../shared/tasks/read-tasks.ts";
import { TaskView, taskView } from "../../shared/tasks/task-view.ts";
import { waitForTask } from "../../shared/tasks/wait-for-task.ts";

/** One task, as it stands or, with `?wait=`, as soon as it has ended. */
export default http({
  name: "task-poll",
  summary: "Read one task; `?wait=N` waits up to N seconds for its end.",
  route: "GET /v1/tasks/{task_id}",
  scope: "tasks:read",
  needs: ["db", "signals"],
  params: v.object({ task_id: idParam("task") }),
  query: v.strictObject({ wait: v.optional(v.pipe(v.string(), v.regex(/^\d{1,2}$/, "must be 0 to 25 seconds"), v.transform(Number), v.maxValue(25, "must be 0 to 25 seconds"))) }),
  replies: { 200: TaskView },
  scale: { min: 0, max: 20, concurrency: 100 },

  async handle({ params, query, caller, request, db, signals }) {
    const task = query.wait
      ? await waitForTask({ db, signals }, { tenantId: caller.tenantId, taskId: params.task_id, waitMs: query.wait * 1000, signals: [request.signal, request.draining] })
      : await findTask(db, caller.tenantId, params.task_id);
    if (!task) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    return ok(taskView(task));
  },
});
