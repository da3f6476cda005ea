import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { asId } from "../../shared/ids.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";
import { listTasks } from "../../shared/tasks/read-tasks.ts";
import { TaskStatus, TaskSummary, taskSummary } from "../../shared/tasks/task-view.ts";

/** The tenant's tasks, newest first, in pages that cost the same however many tasks there are. */
export default http({
  name: "task-list",
  summary: "List tasks, newest first, by status and plugin.",
  route: "GET /v1/tasks",
  scope: "tasks:read",
  needs: ["db", "cursors"],
  query: v.strictObject({
    status: v.optional(TaskStatus),
    plugin: v.optional(PluginName),
    limit: v.optional(
      v.pipe(v.string(), v.regex(/^\d{1,3}$/, "must be 1 to 100"), v.transform(Number), v.minValue(1, "must be 1 to 100"), v.maxValue(100, "must be 1 to 100")),
      "20",
    ),
    cursor: v.optional(v.pipe(v.string(), v.maxLength(512))),
  }),
  replies: { 200: v.strictObject({ tasks: v.array(TaskSummary), next_cursor: v.nullable(v.string()) }) },
  scale: { min: 0, max: 10, concurrency: 80 },

  async handle({ query, caller, db, cursors }) {
    const scope = ["tasks", caller.tenantId, query.status, query.plugin];
    const before = query.cursor === undefined ? null : asId("task", cursors.open(scope, query.cursor));
    const rows = await listTasks(db, caller.tenantId, query, before, query.limit);
    const page = rows.slice(0, query.limit);
    const last = page.at(-1);
    return ok({ tasks: page.map(taskSummary), next_cursor: rows.length > query.limit && last ? cursors.seal(scope, last.id) : null });
  },
});
