import * as v from "valibot";
import { summariseHistory } from "../../shared/conversations/summarise-history.ts";
import { event } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

/** Tells the oldest turns of a long conversation in its running summary. Any number of wake-ups tell each turn once. */
export default event({
  name: "history-summarise",
  summary: "Summarise the oldest turns of a long conversation.",
  event: "io.aau.conversation.overflowed",
  stream: "stream:summarization",
  data: v.object({ conversation_id: idParam("conversation") }),
  needs: ["platformDb", "redis", "upstream", "telemetry"],
  scale: { min: 0, max: 5, concurrency: 10 },

  handle({ data, signal, platformDb, ...resources }) {
    return summariseHistory({ db: platformDb, ...resources }, data.conversation_id, signal);
  },
});
