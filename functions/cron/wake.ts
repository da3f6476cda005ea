import { takeDueConversations } from "../../shared/conversations/summaries.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { cron } from "../../shared/host/declare.ts";
import { takeDueDocuments } from "../../shared/knowledge/due-documents.ts";
import { takeDueErasures } from "../../shared/privacy/erasure-ledger.ts";
import { endUnansweredTasks } from "../../shared/tasks/questions.ts";
import { takeDueTasks } from "../../shared/tasks/read-tasks.ts";
import { traceparentOf } from "../../shared/telemetry/trace.ts";
import { takeDueWebhooks } from "../../shared/webhooks/due-webhooks.ts";

const BATCH = 500;
const MAX_BATCHES = 20;

/**
 * Rings again for all that PostgreSQL says is due: tasks and documents that nobody claimed, leases that ran out, vectors of another model,
 * conversations that overflowed, endpoints that are to be told something, erasures left half-way. Ends questions that nobody answered.
 */
export default cron({
  name: "wake",
  summary: "Ring again for work that is due and was not heard; end questions that nobody answered.",
  schedule: "*/15 * * * * *",
  needs: ["platformDb", "ring", "embedder", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },

  async run({ platformDb, ring, embedder, telemetry, signal }) {
    telemetry.questionsEnded(await endUnansweredTasks(platformDb, BATCH));
    // Taking what is due puts its next ring off, so nothing is taken while nobody can be rung.
    if (!(await ring.isReady())) return;
    // Behind what is rung for the first time: most of these wait in a backlog, and have been heard.
    const tasks = await ringAll(
      () => takeDueTasks(platformDb, BATCH),
      (task) => ring.task(task.plugin, task.id, traceparentOf(task.traceparent), Number.POSITIVE_INFINITY),
      signal,
    );
    const documents = await ringAll(
      () => takeDueDocuments(platformDb, embedder.model, BATCH),
      (id) => ring.document(id, traceparentOf(null)),
      signal,
    );
    const conversations = await ringAll(
      () => takeDueConversations(platformDb, BATCH),
      (id) => ring.conversation(id, traceparentOf(null)),
      signal,
    );
    const webhooks = await ringAll(
      () => takeDueWebhooks(platformDb, BATCH),
      (id) => ring.webhook(id, traceparentOf(null)),
      signal,
    );
    const erasures = await ringAll(
      () => takeDueErasures(platformDb, BATCH),
      (id) => ring.erasure(id, traceparentOf(null)),
      signal,
    );
    telemetry.wakeRang(tasks + documents + conversations + webhooks + erasures);
  },
});

/** Takes batch by batch and rings for each; says how many rings were heard. */
async function ringAll<T>(take: () => Promise<T[]>, ring: (item: T) => Promise<boolean>, signal: AbortSignal): Promise<number> {
  let count = 0;
  for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch++) {
    const due = await take();
    if (due.length === 0) break;
    FAILPOINT: await failpoint("wake.after_take");
    const rung = await Promise.all(due.map(ring));
    count += rung.filter(Boolean).length;
    FAILPOINT: await failpoint("wake.after_ring");
    // Redis went away: PostgreSQL remembers, and a later run rings.
    if (due.length < BATCH || rung.includes(false)) break;
  }
  return count;
}
