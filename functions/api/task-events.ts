import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { streamTaskEvents } from "../../shared/tasks/event-stream.ts";
import { readTaskEvents } from "../../shared/tasks/read-tasks.ts";

/** Server-Sent Events of a task's progress, node by node. `Last-Event-ID` resumes; the stream ends with `finished`. */
export default http({
  name: "task-events",
  summary: "Stream a task's progress as Server-Sent Events; resumes by Last-Event-ID.",
  route: "GET /v1/tasks/{task_id}/events",
  scope: "tasks:read",
  needs: ["db", "signals"],
  params: v.object({ task_id: idParam("task") }),
  headers: { "Last-Event-ID": "The id of the last event that was received." },
  replies: { 200: null },
  documented: { produces: "text/event-stream" },
  scale: { min: 0, max: 20, concurrency: 200 },
  timeoutSec: 600,

  async handle({ params, caller, request, db, signals }) {
    const given = request.header("last-event-id") ?? "0";
    if (!/^\d{1,9}$/.test(given)) throw new Refusal("INVALID_INPUT", { message: "Last-Event-ID must be the id of an event of this task." });
    const first = await readTaskEvents(db, caller.tenantId, params.task_id, Number(given), 0);
    if (!first) throw new Refusal("NOT_FOUND", { message: "There is no such task." });
    const raw = streamTaskEvents(
      { db, signals },
      { tenantId: caller.tenantId, taskId: params.task_id, afterSeq: Number(given), signal: AbortSignal.any([request.signal, request.draining]) },
    );
    return { status: 200, raw, headers: { "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no" } };
  },
});
