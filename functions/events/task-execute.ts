import * as v from "valibot";
import { runTask } from "../../shared/execution/run-task.ts";
import { event } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

/** Knative breaks a request off after this. */
const TIMEOUT_SEC = 600;
/** Before that a running plugin stops at its next node, so that another instance goes on. */
const HAND_OVER_SEC = 45;

/** Claims a queued task, runs its plan under a lease, and settles it. Any number of wake-ups for one task run it once. */
export default event({
  name: "task-execute",
  summary: "Claim a task, run its plan, settle it.",
  event: "io.aau.task.queued",
  stream: "stream:tasks:{plugin}",
  data: v.object({ task_id: idParam("task") }),
  needs: ["db", "platformDb", "redis", "ring", "signals", "plugins", "capabilities", "secrets", "upstream", "embedder", "settings", "telemetry"],
  scale: { min: 1, max: 50, concurrency: 100 },
  timeoutSec: TIMEOUT_SEC,
  memoryMib: 512,

  handle({ data, event, signal, settings, ...resources }) {
    const stopAfterMs = Math.floor(performance.now()) + (TIMEOUT_SEC - HAND_OVER_SEC) * 1000;
    return runTask({ ...resources, leaseMs: settings.TASK_LEASE_MS, maxCrashes: settings.MAX_CRASHES, stopAfterMs, traceparent: event.traceparent }, data.task_id, signal);
  },
});
