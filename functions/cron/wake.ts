import { takeDueConversations } from "../../shared/conversations/summaries.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { cron } from "../../shared/host/declare.ts";
import { endUnansweredTasks } from "../../shared/tasks/questions.ts";
import { takeDueTasks } from "../../shared/tasks/read-tasks.ts";
import { traceparentOf } from "../../shared/telemetry/trace.ts";

const BATCH = 500;
const MAX_BATCHES = 20;

/** Rings again for all that PostgreSQL says is due: tasks that nobody claimed, leases that ran out, conversations that overflowed. Ends questions that nobody answered. */
export default cron({
  name: "wake",
  summary: "Ring again for work that is due and was not heard; end questions that nobody answered.",
  schedule: "*/15 * * * * *",
  needs: ["platformDb", "ring", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },

  async run({ platformDb, ring, telemetry, signal }) {
    telemetry.questionsEnded(await endUnansweredTasks(platformDb, BATCH));
    // Taking a task puts its next ring off, so nothing is taken while nobody can be rung.
    if (!(await ring.isReady())) return;
    let count = 0;
    for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch++) {
      const due = await takeDueTasks(platformDb, BATCH);
      if (due.length === 0) break;
      FAILPOINT: await failpoint("wake.after_take");
      const rung = await Promise.all(due.map((task) => ring.task(task.plugin, task.id, traceparentOf(task.traceparent))));
      count += rung.filter(Boolean).length;
      FAILPOINT: await failpoint("wake.after_ring");
      // Redis went away: PostgreSQL remembers, and a later run rings.
      if (due.length < BATCH || rung.includes(false)) break;
    }
    const conversations = signal.aborted ? [] : await takeDueConversations(platformDb, BATCH);
    const rung = await Promise.all(conversations.map((id) => ring.conversation(id, traceparentOf(null))));
    telemetry.wakeRang(count + rung.filter(Boolean).length);
  },
});
